//! Everything the sandbox knows, changed only under its lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::calls::Call;
use crate::delivery::{Delivery, Event, Lane, Outgoing};
use crate::faults::{ActiveFaults, Faults, Mishap};
use crate::payload::{self, Hook, HookConfig, PingEvent, Repository, SimpleUser, Urls, id_of};
use crate::registration::{RegistrationToken, Runner};
use crate::scope::RepositoryName;
use crate::settings::{HookKind, Settings};

pub(crate) struct State {
    pub settings: Settings,
    pub urls: Urls,
    pub jobs: BTreeMap<u64, crate::job::Job>,
    pub runners: BTreeMap<u64, Runner>,
    pub tokens: Vec<RegistrationToken>,
    pub installation_tokens: HashMap<String, InstallationToken>,
    /// Those an installation was asked for; lower case.
    owners: BTreeSet<String>,
    pub deliveries: Vec<Delivery>,
    pub calls: Vec<Call>,
    pub faults: ActiveFaults,
    rates: HashMap<Payer, RateWindow>,
    pub lanes: HashMap<u64, Lane>,
    /// Work that starts once the lock is released.
    pub tasks: Vec<Task>,
    ids: Ids,
}

/// What is to be done about a lane after the lock is released.
#[derive(Debug)]
pub(crate) enum Task {
    Drain(u64),
    DrainAfter(u64, Duration),
    /// Send what was held back although nothing has passed it.
    Release(u64, Duration),
}

/// How long a reordered delivery waits for one to pass it.
const HELD_AT_MOST: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
pub(crate) struct InstallationToken {
    pub installation: u64,
    pub expires_at: DateTime<Utc>,
}

/// Whose budget a request counts against.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Payer {
    /// Of the settings' tokens, by its place.
    Token(usize),
    Installation(u64),
    /// The GitHub App itself.
    App,
    /// Without a token that is good, the address counts.
    Address,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RateWindow {
    pub limit: u32,
    pub used: u32,
    pub reset_at: DateTime<Utc>,
}

impl RateWindow {
    pub(crate) fn remaining(&self) -> u32 {
        self.limit.saturating_sub(self.used)
    }
}

/// GitHub's for requests without a token.
const ADDRESS_LIMIT: u32 = 60;

/// Ids grow with the time of start: what a client stored of an earlier sandbox
/// must not be taken for a job of this one.
struct Ids {
    job: u64,
    run: u64,
    run_number: u64,
    runner: u64,
    delivery: u64,
    lane: u64,
}

impl Ids {
    fn new(now: DateTime<Utc>) -> Self {
        let age = u64::try_from(now.timestamp() - 1_700_000_000).unwrap_or_default();
        Self {
            job: 40_000_000_000 + age * 1_000,
            run: 10_000_000_000 + age * 100,
            run_number: 0,
            runner: age * 10,
            delivery: 200_000_000_000 + age * 10_000,
            lane: u64::MAX / 2,
        }
    }
}

fn next(id: &mut u64) -> u64 {
    *id += 1;
    *id
}

impl State {
    pub(crate) fn new(settings: Settings, urls: Urls) -> Self {
        let now = Utc::now();
        Self {
            settings,
            urls,
            jobs: BTreeMap::new(),
            runners: BTreeMap::new(),
            tokens: Vec::new(),
            installation_tokens: HashMap::new(),
            owners: BTreeSet::new(),
            deliveries: Vec::new(),
            calls: Vec::new(),
            faults: ActiveFaults::new(Faults::default()),
            rates: HashMap::new(),
            lanes: HashMap::new(),
            tasks: Vec::new(),
            ids: Ids::new(now),
        }
    }

    /// This hour's.
    pub(crate) fn rate(&mut self, payer: Payer) -> &mut RateWindow {
        let now = Utc::now();
        let own = self.settings.requests_per_hour;
        let limit = if payer == Payer::Address { own.min(ADDRESS_LIMIT) } else { own };
        let reset_at = now + chrono::Duration::hours(1);
        let rate = self.rates.entry(payer).or_insert(RateWindow { limit, used: 0, reset_at });
        if rate.reset_at <= now {
            *rate = RateWindow { limit, used: 0, reset_at };
        }
        rate
    }

    pub(crate) fn next_job_id(&mut self) -> u64 {
        next(&mut self.ids.job)
    }

    /// The id and the number of a new run.
    pub(crate) fn next_run(&mut self) -> (u64, u64) {
        (next(&mut self.ids.run), next(&mut self.ids.run_number))
    }

    pub(crate) fn next_runner_id(&mut self) -> u64 {
        next(&mut self.ids.runner)
    }

    pub(crate) fn next_delivery_id(&mut self) -> u64 {
        next(&mut self.ids.delivery)
    }

    pub(crate) fn hook_id(&self, repository: &RepositoryName) -> u64 {
        id_of(&match self.settings.hook {
            HookKind::Repository => format!("hook of {repository}"),
            HookKind::Organization => format!("hook of {}", repository.owner),
            HookKind::Integration => "hook of the app".to_owned(),
        })
    }

    pub(crate) fn installation_id(&self, owner: &str) -> u64 {
        id_of(&format!("installation of {owner}"))
    }

    /// Since every owner exists, those who came up are all that can be listed.
    pub(crate) fn owners_seen(&self) -> BTreeSet<String> {
        let of_jobs = self.jobs.values().map(|job| job.repository.owner.to_lowercase());
        let configured = self.settings.owners.iter().map(|owner| owner.to_lowercase());
        self.owners.iter().cloned().chain(of_jobs).chain(configured).collect()
    }

    pub(crate) fn see_owner(&mut self, owner: &str) {
        self.owners.insert(owner.to_lowercase());
    }

    /// Puts an event on its way, as the faults have it.
    pub(crate) fn announce(
        &mut self,
        name: &'static str,
        action: Option<&'static str>,
        repository: &RepositoryName,
        job_id: Option<u64>,
        payload: &impl Serialize,
    ) -> Result<(), serde_json::Error> {
        if self.settings.webhook_url.is_none() {
            return Ok(());
        }
        let repository_id = id_of(&repository.to_string());
        let (target_type, target_id) = match self.settings.hook {
            HookKind::Repository => ("repository", repository_id),
            HookKind::Organization => ("organization", id_of(&repository.owner)),
            HookKind::Integration => ("integration", payload::APP_ID),
        };
        let event = Event {
            guid: uuid::Uuid::new_v4().to_string(),
            name,
            action,
            repository: repository.clone(),
            repository_id,
            installation_id: (self.settings.hook == HookKind::Integration)
                .then(|| self.installation_id(&repository.owner)),
            job_id,
            hook_id: self.hook_id(repository),
            target_type,
            target_id,
            payload: Bytes::from(serde_json::to_vec(payload)?),
        };
        let mishap = self.faults.on_delivery(action);
        let out = Outgoing { event, lost: mishap == Some(Mishap::Lost), redelivery: false };
        match mishap {
            Some(Mishap::Vanished) => {}
            Some(Mishap::Delayed { ms }) => {
                let lane = next(&mut self.ids.lane);
                self.lanes.entry(lane).or_default().queue.push_back(out);
                self.tasks.push(Task::DrainAfter(lane, Duration::from_millis(ms)));
            }
            Some(Mishap::Reordered) => {
                let lane = self.lane_of(job_id);
                self.lanes.entry(lane).or_default().held.push_back(out);
                self.tasks.push(Task::Release(lane, HELD_AT_MOST));
            }
            Some(Mishap::Doubled) => {
                self.send(job_id, out.clone());
                self.send(job_id, out);
            }
            Some(Mishap::Lost) | None => self.send(job_id, out),
        }
        Ok(())
    }

    /// Redeliveries wait for nothing and pass through no fault.
    pub(crate) fn redeliver(&mut self, event: Event) {
        self.send(None, Outgoing { event, lost: false, redelivery: true });
    }

    fn send(&mut self, job_id: Option<u64>, out: Outgoing) {
        let key = self.lane_of(job_id);
        let lane = self.lanes.entry(key).or_default();
        lane.queue.push_back(out);
        lane.queue.extend(lane.held.drain(..));
        self.tasks.push(Task::Drain(key));
    }

    fn lane_of(&mut self, job_id: Option<u64>) -> u64 {
        job_id.unwrap_or_else(|| next(&mut self.ids.lane))
    }
}

impl State {
    pub(crate) fn hook(&self, repository: &RepositoryName) -> Hook {
        Hook {
            kind: match self.settings.hook {
                HookKind::Repository => "Repository",
                HookKind::Organization => "Organization",
                HookKind::Integration => "App",
            },
            id: self.hook_id(repository),
            name: "web",
            active: true,
            events: vec!["workflow_job"],
            config: HookConfig {
                content_type: "json",
                url: self.settings.webhook_url.clone().unwrap_or_default(),
                insecure_ssl: "0",
            },
            updated_at: payload::EPOCH,
            created_at: payload::EPOCH,
        }
    }

    /// What GitHub sends when a hook is set up.
    pub(crate) fn ping(&mut self, repository: &RepositoryName) -> Result<(), serde_json::Error> {
        let event = PingEvent {
            zen: "Keep it logically awesome.",
            hook_id: self.hook_id(repository),
            hook: self.hook(repository),
            repository: Repository::new(repository, &self.urls),
            sender: SimpleUser::user(payload::ACTOR, &self.urls),
        };
        self.announce("ping", None, repository, None, &event)
    }
}
