//! Connections that pools' `egress` does not permit: counted, logged, and kept to be shown.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::{info, warn};

use super::Executor;
use crate::{
    config::{EgressMode, PoolConfig},
    control::{clock, snapshot::DenialView},
    provider::egress::{Denial, DenialReason},
    telemetry::metrics,
};
use edgerunner_scheduler::model::UnixMs;

/// Hosts of one pool that are kept by name. A job can make up as many as it likes.
const HOSTS_MAX: usize = 500;
const OTHERS: &str = "(other hosts)";
/// In one snapshot.
const SHOWN_MAX: usize = 500;
const QUEUED_MAX: usize = 1_024;
/// For the webhook that names a runner's job.
const JOB_KNOWN_WITHIN: Duration = Duration::from_secs(15);
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

/// What was denied since this process began, and what the logs of Envoys still had of before.
#[derive(Default)]
pub(super) struct Denials(Mutex<HashMap<Key, DenialView>>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    pool: String,
    host: String,
    reason: DenialReason,
    observed: bool,
}

/// The job that a runner was running.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Origin {
    job: Option<u64>,
    /// The delivery of its last event.
    delivery: Option<String>,
    repository: Option<String>,
}

impl Denials {
    /// Returns whether the runner is another one than before.
    fn add(&self, denial: &Denial, origin: &Origin) -> bool {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = Key {
            pool: denial.pool.clone(),
            host: denial.host.clone(),
            reason: denial.reason,
            observed: denial.observed,
        };
        if !rows.contains_key(&key)
            && rows.keys().filter(|other| other.pool == key.pool).count() >= HOSTS_MAX
        {
            key.host = OTHERS.to_owned();
        }
        let row = rows.entry(key).or_insert_with_key(|key| DenialView {
            pool: key.pool.clone(),
            host: key.host.clone(),
            reason: key.reason.as_str().to_owned(),
            observed: key.observed,
            connections: 0,
            first_ms: denial.at,
            last_ms: denial.at,
            runner: None,
            job_id: None,
            repository: None,
        });
        let is_new = row.connections == 0 || row.runner != denial.runner;
        row.connections += 1;
        row.first_ms = row.first_ms.min(denial.at);
        if denial.at >= row.last_ms {
            row.last_ms = denial.at;
            row.runner.clone_from(&denial.runner);
            row.job_id = origin.job;
            row.repository.clone_from(&origin.repository);
        }
        is_new
    }

    /// The latest first.
    fn latest(&self) -> Vec<DenialView> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<DenialView> = rows.values().cloned().collect();
        rows.sort_by(|a, b| (b.last_ms, &a.pool, &a.host).cmp(&(a.last_ms, &b.pool, &b.host)));
        rows.truncate(SHOWN_MAX);
        rows
    }
}

/// Exports the counters of pools with `egress`.
pub(super) fn from_zero(pools: &[PoolConfig]) {
    for pool in pools.iter().filter(|pool| pool.container.has_egress()) {
        let observes = pool.container.egress_mode == EgressMode::Observe;
        for reason in DenialReason::ALL {
            let observed = observes && reason.may_be_observed();
            metrics::egress_denied_from_zero(&pool.name, reason.as_str(), observed);
        }
    }
}

impl Executor {
    /// At most 500, the latest first.
    pub(crate) fn denials(&self) -> Vec<DenialView> {
        self.shared.denials.latest()
    }

    /// Receives the denials of all providers. Runs as long as the process.
    pub(crate) async fn watch_denials(self) {
        let (sender, mut denials) = mpsc::channel(QUEUED_MAX);
        let places = self.shared.places.iter();
        let reports = places.map(|place| place.provider.report_denials(sender.clone()));
        let reports = futures_util::future::join_all(reports);
        // Without such a pool there is nothing to watch. A reload may add one.
        while !self.pools().iter().any(|pool| pool.container.has_egress()) {
            sleep(LOOK_UP_EVERY).await;
        }
        let began_at = clock::now().wall;
        let collected = async {
            let mut waiting: Vec<(Denial, Instant)> = Vec::new();
            let mut ticks = interval(LOOK_UP_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    Some(denial) = denials.recv(), if waiting.len() < QUEUED_MAX => {
                        let reason = denial.reason.as_str();
                        metrics::egress_denied(&denial.pool, reason, denial.observed);
                        waiting.push((denial, Instant::now()));
                    }
                    _ = ticks.tick() => {
                        waiting = self.add_denials(waiting, began_at).await;
                    }
                }
            }
        };
        let ((), _): ((), Vec<()>) = tokio::join!(collected, reports);
    }

    /// Returns those whose job may yet become known.
    async fn add_denials(
        &self,
        waiting: Vec<(Denial, Instant)>,
        began_at: UnixMs,
    ) -> Vec<(Denial, Instant)> {
        let mut origins: HashMap<String, Origin> = HashMap::new();
        let mut kept = Vec::new();
        for (denial, received_at) in waiting {
            let origin = match &denial.runner {
                None => Origin::default(),
                Some(runner) => match origins.get(runner) {
                    Some(known) => known.clone(),
                    None => {
                        let origin = self.origin(runner).await;
                        origins.insert(runner.clone(), origin.clone());
                        origin
                    }
                },
            };
            let may_come = denial.runner.is_some() && origin.job.is_none();
            if may_come && received_at.elapsed() < JOB_KNOWN_WITHIN {
                kept.push((denial, received_at));
                continue;
            }
            // What an earlier process logged already is not logged again.
            if self.shared.denials.add(&denial, &origin) && denial.at >= began_at {
                log(&denial, &origin);
            }
        }
        kept
    }

    /// Of a runner's job, as far as the store knows it.
    async fn origin(&self, runner: &str) -> Origin {
        let Ok(Some(history)) = self.shared.store.runner(runner.to_owned()).await else {
            return Origin::default();
        };
        let runner = history.runner;
        // A runner of an organization may serve any of its repositories.
        let of_target = runner.target.strip_prefix("repo:").map(str::to_owned);
        let Some(key) = runner.job else {
            return Origin { repository: of_target, ..Origin::default() };
        };
        let job = self.shared.store.job(key).await.ok().flatten().map(|record| record.job);
        let delivery = job.as_ref().map(|job| job.delivery.clone());
        let repository = job.map(|job| job.repository).or(of_target);
        Origin { job: Some(key.id), delivery, repository }
    }
}

fn log(denial: &Denial, Origin { job, delivery, repository }: &Origin) {
    let Denial { pool, runner, host, reason, observed, .. } = denial;
    let reason = reason.as_str();
    let (runner, repository) = (runner.as_deref(), repository.as_deref());
    let delivery = delivery.as_deref();
    if *observed {
        info!(
            pool,
            runner,
            job,
            delivery,
            repository,
            destination = host,
            reason,
            "a job's connection would be refused by the pool's egress"
        );
    } else {
        warn!(
            pool,
            runner,
            job,
            delivery,
            repository,
            destination = host,
            reason,
            "a job's connection was refused by the pool's egress"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(host: &str, runner: &str, at: UnixMs) -> Denial {
        Denial {
            pool: "default".into(),
            runner: Some(runner.into()),
            host: host.into(),
            reason: DenialReason::Host,
            observed: false,
            at,
        }
    }

    #[test]
    fn denials_are_counted_by_host_and_the_last_runner_is_shown() {
        let denials = Denials::default();
        let origin = Origin {
            job: Some(7),
            delivery: Some("delivery-7".into()),
            repository: Some("acme/app".into()),
        };
        assert!(denials.add(&denial("a.example:443", "edge-1", 10), &origin));
        assert!(!denials.add(&denial("a.example:443", "edge-1", 20), &origin));
        assert!(denials.add(&denial("b.example:443", "edge-1", 15), &Origin::default()));
        assert!(denials.add(&denial("a.example:443", "edge-2", 5), &Origin::default()));
        let rows = denials.latest();
        let [a, b] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((&*a.host, a.connections, a.first_ms, a.last_ms), ("a.example:443", 3, 5, 20));
        assert_eq!((a.runner.as_deref(), a.job_id), (Some("edge-1"), Some(7)));
        assert_eq!((&*b.host, b.job_id), ("b.example:443", None));
    }

    #[test]
    fn a_job_that_makes_up_hosts_fills_nothing() {
        let denials = Denials::default();
        for number in 0..HOSTS_MAX + 100 {
            let host = format!("{number}.example:443");
            denials.add(&denial(&host, "edge-1", number as u64), &Origin::default());
        }
        let mut other = denial("a.example", "edge-2", 1);
        other.pool = "other".into();
        denials.add(&other, &Origin::default());
        let rows = denials.0.lock().unwrap();
        assert_eq!(rows.len(), HOSTS_MAX + 2);
        let others = rows.values().find(|row| row.host == OTHERS).unwrap();
        assert_eq!(others.connections, 100);
        assert!(rows.values().any(|row| row.pool == "other" && row.host == "a.example"));
    }
}
