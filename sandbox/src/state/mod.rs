//! The sandbox's whole state. It changes only under the lock of [`App`](crate::app::App).

mod ids;
mod installations;
pub(crate) mod jobs;
pub(crate) mod registrations;
mod repositories;
mod webhooks;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};

use crate::app_manifest::Manifest;
use crate::call::Call;
use crate::delivery::{DeliveryQueue, DeliveryRecord, QueueTask};
use crate::faults::{ActiveFaults, Faults};
use crate::installation::Installation;
use crate::job::Job;
use crate::payload::Urls;
use crate::rate_limit::{RateLimitBucket, RateWindow};
use crate::registration::{RegistrationToken, Runner, RunnerToken};
use crate::repository::Repository;
use crate::runner::VERSION;
use crate::settings::Settings;
use ids::Ids;

pub(crate) struct State {
    pub settings: Settings,
    pub urls: Urls,
    pub jobs: BTreeMap<u64, Job>,
    pub runners: BTreeMap<u64, Runner>,
    /// Those that differ from what their name says, in the order in which they first did.
    pub repositories: Vec<Repository>,
    pub registration_tokens: Vec<RegistrationToken>,
    pub installation_tokens: HashMap<String, InstallationToken>,
    /// Of Apps that are not registered yet, by code.
    pub app_manifests: HashMap<String, Manifest>,
    pub runner_tokens: HashMap<String, RunnerToken>,
    /// The process that uses the configuration of a runner for one job, by client id.
    pub configuration_users: HashMap<String, String>,
    /// Attempts of other processes.
    pub jit_reuses: usize,
    /// Owners whose installation was requested; lower case.
    owners: BTreeSet<String>,
    /// Installations that were changed, by owner; lower case.
    installations: BTreeMap<String, Installation>,
    /// In the order in which the attempts ended.
    pub deliveries: Vec<DeliveryRecord>,
    pub calls: Vec<Call>,
    pub faults: ActiveFaults,
    /// The versions of runners that GitHub knows, and when it stops accepting them.
    pub version_ends: BTreeMap<String, Timestamp>,
    rate_windows: HashMap<RateLimitBucket, RateWindow>,
    pub delivery_queues: HashMap<u64, DeliveryQueue>,
    /// Tasks to start once the lock is released.
    pub tasks: Vec<QueueTask>,
    ids: Ids,
    pub ids_since: Timestamp,
}

/// How long GitHub accepts the stand-in's version from now on: about as long as a new one.
const VERSION_LIFETIME: SignedDuration = SignedDuration::from_hours(62 * 24);

#[derive(Clone, Copy, Debug)]
pub(crate) struct InstallationToken {
    pub installation: u64,
    pub expires_at: Timestamp,
}

impl State {
    pub(crate) fn new(settings: Settings, urls: Urls) -> Self {
        let ids_since = settings.ids_since.unwrap_or_else(Timestamp::now);
        Self {
            settings,
            urls,
            jobs: BTreeMap::new(),
            runners: BTreeMap::new(),
            repositories: Vec::new(),
            registration_tokens: Vec::new(),
            installation_tokens: HashMap::new(),
            app_manifests: HashMap::new(),
            runner_tokens: HashMap::new(),
            configuration_users: HashMap::new(),
            jit_reuses: 0,
            owners: BTreeSet::new(),
            installations: BTreeMap::new(),
            deliveries: Vec::new(),
            calls: Vec::new(),
            faults: ActiveFaults::new(Faults::default()),
            version_ends: BTreeMap::from([(
                VERSION.to_owned(),
                Timestamp::now() + VERSION_LIFETIME,
            )]),
            rate_windows: HashMap::new(),
            delivery_queues: HashMap::new(),
            tasks: Vec::new(),
            ids: Ids::new(ids_since),
            ids_since,
        }
    }

    pub(crate) fn next_message_id(&mut self) -> u64 {
        self.ids.message()
    }

    /// GitHub stops accepting this version of the runner then; `None`: it does not know it.
    pub(crate) fn set_version_end(&mut self, version: &str, ends: Option<Timestamp>) {
        match ends {
            Some(ends) => drop(self.version_ends.insert(version.to_owned(), ends)),
            None => drop(self.version_ends.remove(version)),
        }
    }

    /// The bucket's current window; a new one if the last has ended.
    pub(crate) fn rate_window(&mut self, bucket: RateLimitBucket) -> &mut RateWindow {
        let now = Timestamp::now();
        let fresh = RateWindow::new(bucket, self.settings.requests_per_hour, now);
        let window = self.rate_windows.entry(bucket).or_insert(fresh);
        if window.reset_at <= now {
            *window = fresh;
        }
        window
    }
}
