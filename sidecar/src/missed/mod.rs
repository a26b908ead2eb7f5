//! Webhooks that never arrived: GitHub repeats none by itself. What it could not deliver
//! is delivered again at our request, and comes in by Envoy as any other webhook. What
//! left no trace, or may not be listed, is found among the queued jobs of the
//! repositories that news came from.
//!
//! One task for each credential, so that none waits for another.

mod plan;
mod purse;
mod sources;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::sleep};
use tracing::{Instrument as _, error, info, info_span, warn};

pub(crate) use self::sources::Sources;
use self::{
    plan::{Next, Note, Request, Response, Settings, State},
    sources::{Origin, Source},
};
use crate::{
    config::{CredentialConfig, MissedWebhooks},
    control::Pools,
    control::clock,
    control::command::Events,
    control::snapshot::MissedView,
    github::clients::Clients,
    github::{Error, GitHub, JobProgress, ListedJob, Page, WebhookId},
    intake,
    store::{self, Delivery, JobDetails, Store, StoreOutcome, WebhookRecord},
    telemetry::metrics,
};
use edgerunner_scheduler::{
    model::{Job, JobKey, JobState, UnixMs},
    plan::match_pool,
};

/// Begins the name of a find, where a webhook has its GUID.
pub(crate) const LOOK_UP: &str = "look-up-";
/// As long as repositories are looked at after their last news.
const SEEN_MS: u64 = 7 * 24 * 3_600_000;
/// What a hook delivered is read again after a restart, unless it is known to be settled.
const SETTLED_AGAIN_MS: u64 = 10 * 60_000;
/// GitHub's clock and ours, at most.
const CLOCKS_APART_MS: u64 = 10 * 60_000;
/// A webhook may be on its way: a job is looked for once this part of the interval has
/// passed since it was queued.
const ON_ITS_WAY: u64 = 4;

/// What all watchers share.
pub(crate) struct Context {
    pub(crate) access: Arc<Clients>,
    pub(crate) store: Store,
    pub(crate) events: Events,
    pub(crate) pools: Pools,
}

/// Looks after what one credential may see.
struct Watcher {
    context: Arc<Context>,
    /// Index of the credential.
    credential: usize,
    name: String,
    settings: Settings,
    state: State,
    sources: mpsc::UnboundedReceiver<Source>,
    hooks: HashMap<WebhookId, WebhookRecord>,
    origins: HashMap<String, Origin>,
}

/// Begins with what is configured and what the store knows. The futures end never.
pub(crate) async fn start(
    config: &MissedWebhooks,
    credentials: &[CredentialConfig],
    context: Context,
) -> Result<(Sources, Vec<(String, impl Future<Output = ()> + Send + use<>)>), store::Error> {
    let context = Arc::new(context);
    let settings = Settings {
        interval_ms: u64::from(config.interval_seconds) * 1000,
        look_back_ms: u64::from(config.look_back_hours) * 3_600_000,
        share: config.budget_share,
    };
    let (senders, receivers): (Vec<_>, Vec<_>) =
        credentials.iter().map(|_| mpsc::unbounded_channel()).unzip();
    let sources = Sources::new(context.pools.clone(), credentials, senders);
    let now = clock::now();
    for record in context.store.webhooks().await? {
        if let Ok(hook) = record.hook.parse() {
            sources.see_hook(hook, record.app_id, record.seen_at, record.settled_until);
        }
    }
    for hook in config.hooks() {
        sources.see_hook(hook, 0, now, 0);
    }
    sources.see_named();
    for (job, latest) in context.store.latest_jobs(now.saturating_sub(SEEN_MS)).await? {
        sources.see_repository(&job, latest);
    }
    let watchers = receivers.into_iter().zip(credentials).enumerate();
    let watchers = watchers.map(|(credential, (sources, config))| {
        let watcher = Watcher {
            context: Arc::clone(&context),
            credential,
            name: config.name.clone(),
            settings,
            state: State::new(settings),
            sources,
            hooks: HashMap::new(),
            origins: HashMap::new(),
        };
        let span = info_span!("missed", credential = config.name);
        (config.name.clone(), watcher.run().instrument(span))
    });
    Ok((sources, watchers.collect()))
}

impl Watcher {
    async fn run(mut self) {
        loop {
            while let Ok(source) = self.sources.try_recv() {
                self.see(source).await;
            }
            match self.state.next(clock::now()) {
                Next::Request(ask) => {
                    let outcome = self.ask(&ask).await;
                    self.heard(&ask, outcome).await;
                }
                Next::WaitUntil(until) => {
                    self.tell();
                    let wait = Duration::from_millis(until.saturating_sub(clock::now()));
                    tokio::select! {
                        () = sleep(wait) => {}
                        source = self.sources.recv() => match source {
                            Some(source) => self.see(source).await,
                            // The sources are gone only at the end of the process.
                            None => return,
                        },
                    }
                }
            }
        }
    }

    fn github(&self) -> &GitHub {
        &self.context.access.place(self.credential).github
    }

    async fn see(&mut self, source: Source) {
        let now = clock::now();
        match source {
            Source::WebhookId(hook, record) => {
                let account = match &hook {
                    WebhookId::At { target, .. } => self.github().account(target),
                    WebhookId::App => String::new(),
                };
                let known = self.hooks.get(&hook).map_or(0, |known| known.settled_until);
                if !self.hooks.contains_key(&hook) {
                    info!(%hook, "its deliveries are looked at from now on");
                }
                self.state.see_hook(hook.clone(), &account, record.settled_until, now);
                let record =
                    WebhookRecord { settled_until: known.max(record.settled_until), ..record };
                self.hooks.insert(hook, record.clone());
                self.keep(record).await;
            }
            Source::Repository(origin, seen_at) => {
                let Some(target) = origin.target() else { return };
                let account = self.github().account(&target);
                self.state.see_repository(&origin.key(), &account, seen_at, now);
                self.origins.insert(origin.key(), origin);
            }
        }
    }

    async fn keep(&self, record: WebhookRecord) {
        if let Err(error) = self.context.store.save_webhook(record).await {
            warn!(%error, "a hook is not known to the next start");
        }
    }

    async fn ask(&self, ask: &Request) -> Result<Response, Error> {
        let github = self.github();
        match ask {
            Request::Deliveries { hook, page } => {
                github.deliveries(hook, page.as_deref()).await.map(Response::Deliveries)
            }
            Request::Redeliver { hook, guid, delivery, at } => {
                // It may have been stored although GitHub saw no answer, or have come since.
                let since = at.saturating_sub(CLOCKS_APART_MS);
                if let Ok(true) = self.context.store.has_delivery(guid.clone(), since).await {
                    return Ok(Response::Arrived);
                }
                github.redeliver(hook, *delivery).await?;
                metrics::redelivery(&self.name);
                info!(delivery = guid, %hook, "a webhook failed: GitHub is to send it again");
                Ok(Response::Redelivering)
            }
            Request::Runs { repository, status, page } => {
                let (owner, name) = parts(repository);
                github.runs(owner, name, *status, page.as_deref()).await.map(Response::Runs)
            }
            Request::Jobs { repository, run, page } => {
                let (owner, name) = parts(repository);
                let page = github.jobs_of_run(owner, name, *run, page.as_deref()).await?;
                let Page { items, next, unchanged } = page;
                for job in items {
                    self.take_in(repository, job).await;
                }
                Ok(Response::Jobs(Page { items: Vec::new(), next, unchanged }))
            }
        }
    }

    /// A queued job that we should have heard of is treated as if we had.
    async fn take_in(&self, repository: &str, job: ListedJob) {
        let Context { store, events, pools, .. } = &*self.context;
        let now = clock::now();
        let fresh = now < job.created_at + self.settings.interval_ms / ON_ITS_WAY;
        let Some(origin) = self.origins.get(repository) else { return };
        if job.status != JobProgress::Queued || fresh {
            return;
        }
        let delivery = delivery(job, origin, now);
        let (key, labels) = (delivery.job.key, delivery.job.labels.clone());
        let served = match_pool(&pools.borrow(), &delivery.job).is_ok();
        if !served || !matches!(store.job(key).await, Ok(None)) {
            return;
        }
        match intake::accept(store, events, Arc::new([delivery])).await {
            Ok(stored) if stored == [StoreOutcome::Advanced] => {
                metrics::job_found(&self.name);
                info!(job = %key, repository, ?labels, "no webhook came for a queued job");
            }
            Ok(_) => {}
            Err(error) => error!(job = %key, %error, "a queued job that was found is not stored"),
        }
    }

    async fn heard(&mut self, ask: &Request, outcome: Result<Response, Error>) {
        if let Err(error) = &outcome {
            tracing::debug!(%error, "not heard");
        }
        if !outcome.as_ref().is_ok_and(Response::is_free) {
            metrics::missed_request(&self.name);
        }
        let budget = self.state.account(ask).and_then(|account| self.github().budget(account));
        self.state.heard(ask, outcome, budget, clock::now());
        self.tell();
        if let Request::Deliveries { hook, .. } = ask {
            self.keep_settled(hook).await;
        }
    }

    async fn keep_settled(&mut self, hook: &WebhookId) {
        let settled_until = self.state.settled_until(hook);
        if let Some(record) = self.hooks.get_mut(hook)
            && settled_until >= record.settled_until.saturating_add(SETTLED_AGAIN_MS)
        {
            record.settled_until = settled_until;
            let record = record.clone();
            self.keep(record).await;
        }
    }

    /// What people should know.
    fn tell(&mut self) {
        for note in self.state.notes() {
            match note {
                Note::Denied { what, message } => warn!(
                    message,
                    "GitHub denies us {what}: give the credential the permission to read \
                     and write Webhooks, and to read Actions, or live with the rest"
                ),
                Note::GaveUp { hook, guid } => {
                    metrics::redelivery_given_up(&self.name);
                    warn!(delivery = guid, %hook, "a webhook that failed is given up");
                }
                Note::UsedUp { account, until } => {
                    let seconds = until.saturating_sub(clock::now()).div_ceil(1000);
                    info!(
                        account,
                        seconds,
                        "looking for missed webhooks waits: its share of the rate limit is used \
                         up, or GitHub asks to wait"
                    );
                }
            }
        }
        let now = clock::now();
        let place = self.context.access.place(self.credential);
        for (account, purse) in self.state.purses() {
            let view = MissedView {
                allowed: purse.allowed(),
                spent: purse.spent(now),
                waits_until_ms: purse.used_up.then(|| purse.opens(now)),
            };
            place.missed.set(account, view);
        }
    }
}

fn parts(repository: &str) -> (&str, &str) {
    repository.split_once('/').unwrap_or((repository, ""))
}

fn delivery(listed: ListedJob, origin: &Origin, now: UnixMs) -> Delivery {
    Delivery {
        hook: String::new(),
        hook_id: 0,
        hook_target_type: String::new(),
        hook_target_id: 0,
        received_at: now,
        state: JobState::Queued,
        job: Job {
            key: JobKey { id: listed.id, run_attempt: listed.run_attempt.max(1) },
            repository: origin.repository.clone(),
            organization: origin.organization.clone(),
            enterprise: origin.enterprise.clone(),
            labels: listed.labels,
            queued_at: now,
            delivery: format!("{LOOK_UP}{}-{}", listed.id, listed.run_attempt),
        },
        details: JobDetails {
            run_id: listed.run_id,
            name: listed.name,
            workflow_name: listed.workflow_name,
            head_branch: listed.head_branch,
            html_url: listed.html_url,
            created_at: None,
        },
        conclusion: String::new(),
        runner_name: String::new(),
    }
}
