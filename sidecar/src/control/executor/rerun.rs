//! Runs jobs again that ended because their runner did, once for each run.

use std::collections::BTreeMap;

use tracing::{error, info, warn};

use super::Executor;
use crate::{
    control::clock,
    github::{
        ErrorKind, GitHub, Purpose,
        reruns::{RerunAnswer, RerunOf},
    },
    store::{LostJob, Rerun},
    telemetry::metrics,
};
use edgerunner_scheduler::model::{Host, Target, UnixMs};

/// For how long the other jobs of a run may take until it can be run again.
const WAITED_FOR_MS: UnixMs = 24 * 3_600_000;

impl Executor {
    /// Asks GitHub to run lost jobs again whose run is over.
    pub(crate) async fn rerun_lost(self) {
        let since = clock::now().wall.saturating_sub(WAITED_FOR_MS);
        let lost = match self.shared.store.lost_jobs(since).await {
            Ok(lost) => lost,
            Err(error) => return warn!(%error, "lost jobs are not run again yet"),
        };
        let mut runs: BTreeMap<(Host, u64), Vec<LostJob>> = BTreeMap::new();
        for job in lost {
            runs.entry((job.key.host, job.run_id)).or_default().push(job);
        }
        for jobs in runs.into_values() {
            self.rerun(&jobs).await;
        }
    }

    /// The lost jobs of one run.
    async fn rerun(&self, jobs: &[LostJob]) {
        let Some(first) = jobs.first() else { return };
        let LostJob { key, run_id, repository, pool, delivery, .. } = first;
        let (Some((owner, name)), Ok(target)) =
            (repository.split_once('/'), first.target.parse::<Target>())
        else {
            return;
        };
        // A run has one further attempt, with all of them.
        let what = match jobs.len() {
            1 => RerunOf::Job(key.id),
            _ => RerunOf::FailedJobs { run: *run_id },
        };
        let target = target.on(key.host);
        let call = |github: GitHub| async move { github.rerun(owner, name, what).await };
        let answer = self.shared.clients.call(&target, Purpose::Other, call).await;
        let (job, host) = (*key, key.host);
        let outcome = match answer {
            Ok(RerunAnswer::StillRunning) => return,
            Ok(RerunAnswer::Accepted) => {
                info!(%job, %host, delivery, run = run_id, "a lost job is run again");
                "accepted"
            }
            Err(error) => match error.kind {
                ErrorKind::Unauthorized | ErrorKind::RateLimited | ErrorKind::Unreachable => {
                    return warn!(%job, %host, delivery, %error, "a lost job is not run again yet");
                }
                // It may run again anyway, and must not run twice.
                _ => {
                    warn!(%job, %host, delivery, %error, "a lost job is not run again: that needs the permission Actions: write");
                    "refused"
                }
            },
        };
        metrics::lost_run(pool, outcome);
        let rerun = Rerun { jobs: jobs.iter().map(|job| job.key).collect(), at: clock::now().wall };
        if let Err(error) = self.shared.store.save_rerun(rerun).await {
            error!(%job, %host, delivery, %error, "a lost job may be run again twice");
        }
    }
}
