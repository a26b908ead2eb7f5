//! Events at a steady rate, of jobs that no pool has runners for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edgerunner_tests::{Webhook, client, eventually_within, payload};
use fastrand::Rng;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// Between a job's two events.
const QUEUED_FOR_MS: RangeInclusive<u64> = 1_000..=6_000;
/// While there is no answer, new jobs wait.
const UNANSWERED_MAX: usize = 256;
const SEND_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// The planner knows by then what was accepted, however busy the machine is.
const KNOWN_AFTER: Duration = Duration::from_secs(2);
const KNOWN_WITHIN: Duration = Duration::from_secs(15);
const END_LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Events {
    shared: Arc<Shared>,
    sending: AbortHandle,
}

struct Shared {
    envoy: SocketAddr,
    unanswered: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    jobs: HashMap<u64, Job>,
    /// By status and outcome.
    answers: BTreeMap<String, usize>,
    accepted: usize,
    refused: usize,
    slowest: Duration,
}

/// When its events were accepted.
#[derive(Clone, Copy, Default)]
struct Job {
    queued: Option<Instant>,
    /// The second one is on its way.
    completes: bool,
    completed: Option<Instant>,
}

/// What was answered.
pub(crate) struct Answers {
    pub(crate) accepted: usize,
    /// By status and outcome, 202 included.
    pub(crate) all: BTreeMap<String, usize>,
    pub(crate) slowest: Duration,
}

impl Events {
    /// Sends this many events a second from now on.
    pub(crate) fn send(envoy: SocketAddr, per_second: u32, mut random: Rng) -> Self {
        let shared = Arc::new(Shared {
            envoy,
            unanswered: Semaphore::new(UNANSWERED_MAX),
            state: Mutex::default(),
        });
        let this = Arc::clone(&shared);
        let sending = tokio::spawn(async move {
            let mut jobs = JoinSet::new();
            let mut ticks = interval(Duration::from_secs(2) / per_second);
            // As many as the sidecars bear: what waits does not come all at once.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for id in 1.. {
                ticks.tick().await;
                let queued_for = Duration::from_millis(random.u64(QUEUED_FOR_MS));
                jobs.spawn(Arc::clone(&this).job(id, queued_for));
                while jobs.try_join_next().is_some() {}
            }
        });
        Self { shared, sending: sending.abort_handle() }
    }

    /// How many were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.state().accepted
    }

    /// Sends none until the value is dropped, and waits for the answers to those that were sent.
    pub(crate) async fn quiet(&self) -> Result<SemaphorePermit<'_>> {
        let all = u32::try_from(UNANSWERED_MAX)?;
        Ok(self.shared.unanswered.acquire_many(all).await?)
    }

    /// How many answers were others than 202 so far.
    pub(crate) fn refused(&self) -> usize {
        self.shared.state().refused
    }

    /// Ends the jobs that are there, and sends no further ones.
    pub(crate) async fn end(self) -> Result<Answers> {
        self.sending.abort();
        let open = {
            let mut state = self.shared.state();
            // The answer to those that were just sent is unknown.
            state.jobs.retain(|_, job| job.completed.is_none());
            state.jobs.keys().copied().collect::<Vec<_>>()
        };
        let mut ends = JoinSet::new();
        for id in open {
            let shared = Arc::clone(&self.shared);
            ends.spawn(async move { shared.deliver(&webhook("completed", id)).await });
        }
        tokio::time::timeout(END_LIMIT, ends.join_all()).await.context("no answer")?;
        let state = self.shared.state();
        Ok(Answers { accepted: state.accepted, all: state.answers.clone(), slowest: state.slowest })
    }

    /// Waits until the one that plans knows what was accepted some time ago: the jobs that wait,
    /// and those that no longer do. `status` asks it.
    pub(crate) async fn are_known(&self, status: impl AsyncFn() -> Result<Value>) -> Result<()> {
        eventually_within(KNOWN_WITHIN, "the planner knows what was accepted", async || {
            let asked = Instant::now();
            let status = status().await?;
            let waiting = status["waiting"].as_array().context("no waiting jobs")?;
            let waiting: HashSet<u64> =
                waiting.iter().filter_map(|it| it["job_id"].as_u64()).collect();
            let long_ago = |at: Option<Instant>| at.is_some_and(|at| asked - at > KNOWN_AFTER);
            let state = self.shared.state();
            for (id, job) in &state.jobs {
                let waits = waiting.contains(id);
                ensure!(!(waits && long_ago(job.completed)), "job {id} waits, and is completed");
                ensure!(waits || job.completes || !long_ago(job.queued), "job {id} is unknown");
            }
            drop(state);
            self.forget();
            Ok(Some(()))
        })
        .await
    }

    /// What the planner was seen to know.
    fn forget(&self) {
        let is_new = |at: Instant| at.elapsed() < KNOWN_WITHIN;
        self.shared.state().jobs.retain(|_, job| job.completed.is_none_or(is_new));
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn job(self: Arc<Self>, id: u64, queued_for: Duration) {
        self.state().jobs.insert(id, Job::default());
        self.deliver(&webhook("queued", id)).await;
        self.note(id, |job| job.queued = Some(Instant::now()));
        sleep(queued_for).await;
        self.note(id, |job| job.completes = true);
        self.deliver(&webhook("completed", id)).await;
        self.note(id, |job| job.completed = Some(Instant::now()));
    }

    fn note(&self, id: u64, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.state().jobs.get_mut(&id) {
            change(job);
        }
    }

    /// Sends it again until it is accepted.
    async fn deliver(&self, webhook: &Webhook) {
        loop {
            let Ok(_permit) = self.unanswered.acquire().await else { return };
            let sent = Instant::now();
            let answer = match webhook.request() {
                Ok(request) => client::send(self.envoy, request).await,
                Err(error) => Err(error.into()),
            };
            let status = match &answer {
                Ok(answer) => format!("{} {}", answer.status, answer.outcome()),
                Err(_) => "none".to_owned(),
            };
            let is_accepted = answer.is_ok_and(|answer| answer.status == 202);
            {
                let mut state = self.state();
                *state.answers.entry(status).or_default() += 1;
                state.slowest = state.slowest.max(sent.elapsed());
                state.accepted += usize::from(is_accepted);
                state.refused += usize::from(!is_accepted);
            }
            if is_accepted {
                return;
            }
            sleep(SEND_AGAIN_AFTER).await;
        }
    }
}

fn webhook(action: &str, id: u64) -> Webhook {
    let mut payload = payload(action, id);
    if action == "completed" {
        payload["workflow_job"]["conclusion"] = "cancelled".into();
    }
    Webhook::workflow_job(&payload)
}
