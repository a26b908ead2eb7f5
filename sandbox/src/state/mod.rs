//! The sandbox's whole state. It changes only under the lock of [`App`](crate::app::App).

mod ids;
pub(crate) mod jobs;
pub(crate) mod registrations;
mod webhooks;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use crate::call::Call;
use crate::delivery::{DeliveryQueue, DeliveryRecord, QueueTask};
use crate::faults::{ActiveFaults, Faults};
use crate::job::Job;
use crate::payload::{Urls, id_of};
use crate::rate_limit::{RateLimitBucket, RateWindow};
use crate::registration::{RegistrationToken, Runner};
use crate::settings::Settings;
use ids::Ids;

pub(crate) struct State {
    pub settings: Settings,
    pub urls: Urls,
    pub jobs: BTreeMap<u64, Job>,
    pub runners: BTreeMap<u64, Runner>,
    pub registration_tokens: Vec<RegistrationToken>,
    pub installation_tokens: HashMap<String, InstallationToken>,
    /// Owners whose installation was requested; lower case.
    owners: BTreeSet<String>,
    /// In the order in which the attempts ended.
    pub deliveries: Vec<DeliveryRecord>,
    pub calls: Vec<Call>,
    pub faults: ActiveFaults,
    rate_windows: HashMap<RateLimitBucket, RateWindow>,
    pub delivery_queues: HashMap<u64, DeliveryQueue>,
    /// Tasks to start once the lock is released.
    pub tasks: Vec<QueueTask>,
    ids: Ids,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct InstallationToken {
    pub installation: u64,
    pub expires_at: Timestamp,
}

impl State {
    pub(crate) fn new(settings: Settings, urls: Urls) -> Self {
        Self {
            settings,
            urls,
            jobs: BTreeMap::new(),
            runners: BTreeMap::new(),
            registration_tokens: Vec::new(),
            installation_tokens: HashMap::new(),
            owners: BTreeSet::new(),
            deliveries: Vec::new(),
            calls: Vec::new(),
            faults: ActiveFaults::new(Faults::default()),
            rate_windows: HashMap::new(),
            delivery_queues: HashMap::new(),
            tasks: Vec::new(),
            ids: Ids::new(Timestamp::now()),
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

    pub(crate) fn installation_id(&self, owner: &str) -> u64 {
        id_of(&format!("installation of {owner}"))
    }

    /// The owners that have an installation. Any owner may exist, so these are the ones named
    /// by a request, a job or the settings.
    pub(crate) fn known_owners(&self) -> BTreeSet<String> {
        let of_jobs = self.jobs.values().map(|job| job.repository.owner.to_lowercase());
        let configured = self.settings.owners.iter().map(|owner| owner.to_lowercase());
        self.owners.iter().cloned().chain(of_jobs).chain(configured).collect()
    }

    pub(crate) fn add_owner(&mut self, owner: &str) {
        self.owners.insert(owner.to_lowercase());
    }
}
