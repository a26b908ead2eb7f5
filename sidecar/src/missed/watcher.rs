//! Recovers missed webhooks, with one task for each credential so that none delays another.
//!
//! Failed deliveries are redelivered by GitHub at our request, and arrive through Envoy like
//! any other webhook. Events without a trace, and events whose deliveries may not be listed, are
//! found among the queued jobs of the repositories.

use std::{collections::HashMap, future::pending, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{sync::mpsc, time::sleep};
use tracing::{Instrument as _, debug, error, error_span, info, warn};

use super::{
    registered,
    sources::{self, Origin, Source, Sources},
};
use crate::{
    config::{CredentialConfig, MissedWebhooks},
    control::{Pools, clock, command::EventSender},
    github::{
        self, GitHub, ListedJob,
        clients::{Clients, MissedBudget},
    },
    intake,
    store::{self, Delivery, JobDetails, Store, StoreOutcome, WebhookRecord},
    telemetry::{logging::List, metrics},
};
use edgerunner_scheduler::{
    missed::{
        Denied, ErrorKind, Next, Note, Page, Request, RequestError, Response, Settings, State,
        WebhookId,
    },
    model::{Host, Job, JobKey, JobState, RunOrigin, ServerTarget, UnixMs},
    plan::{Credential, match_pool},
};

/// Prefix of the delivery id of a job that was found by a look-up; a webhook has a GUID.
pub(crate) const LOOK_UP_PREFIX: &str = "look-up-";
/// Repositories with an event within this time are polled after a restart.
const RECENT_MS: u64 = 7 * 24 * 3_600_000;
/// A webhook's `settled_until` is saved once it has advanced by this much. After a restart,
/// deliveries since the saved time are read again.
const SETTLED_STEP_MS: u64 = 10 * 60_000;
/// Largest difference between GitHub's clock and ours.
const CLOCK_SKEW_MAX_MS: u64 = 10 * 60_000;
/// Between two searches for webhooks that are registered at GitHub.
const REGISTERED_EVERY: Duration = Duration::from_secs(3_600);
/// A job younger than the interval divided by this may still have a webhook in transit.
const IN_TRANSIT: u32 = 4;

/// Shared by all watchers.
pub(crate) struct Context {
    pub(crate) clients: Arc<Clients>,
    pub(crate) store: Store,
    /// To the driver, unless it reads deliveries from the store.
    pub(crate) events: Option<EventSender>,
    pub(crate) pools: Pools,
    /// Where GitHub sends webhooks, if it is configured.
    pub(crate) webhook_url: Option<String>,
}

/// Watches the webhooks and repositories of one credential.
struct Watcher {
    context: Arc<Context>,
    /// Index of the credential.
    credential: usize,
    name: String,
    /// All of them.
    credentials: Arc<[Credential]>,
    settings: Settings,
    state: State,
    sources: mpsc::UnboundedReceiver<Source>,
    webhooks: HashMap<WebhookId, WebhookRecord>,
    origins: HashMap<String, Origin>,
}

/// Starts with the configuration and the store. `arrivals` are the deliveries that the intake
/// receives: they show which webhooks and repositories exist. Returns the tasks to run, with
/// their names; none ends before the process does.
pub(crate) async fn start(
    config: &MissedWebhooks,
    credentials: &[CredentialConfig],
    context: Context,
    arrivals: mpsc::Receiver<Arc<[Delivery]>>,
) -> Result<Vec<(String, BoxFuture<'static, ()>)>, store::Error> {
    let context = Arc::new(context);
    let settings = Settings {
        interval: Duration::from_secs(config.interval_seconds.into()),
        look_back: Duration::from_secs(u64::from(config.look_back_hours) * 3_600),
        share: config.budget_share,
    };
    let (senders, receivers): (Vec<_>, Vec<_>) =
        credentials.iter().map(|_| mpsc::unbounded_channel()).unzip();
    let sources = Sources::new(context.pools.clone(), credentials, senders);
    let now = clock::now().wall;
    for record in context.store.webhooks().await? {
        if let Ok(webhook) = record.path.parse() {
            sources.announce_webhook(&webhook, record);
        }
    }
    for webhook in config.hooks() {
        sources.announce_webhook(&webhook, sources::seen(Host::default(), &webhook, 0, now));
    }
    sources.announce_named();
    let planned: Arc<[Credential]> =
        credentials.iter().map(CredentialConfig::planner_credential).collect();
    let mut tasks = Vec::new();
    for (credential, (announced, config)) in receivers.into_iter().zip(credentials).enumerate() {
        let watcher = Watcher {
            context: Arc::clone(&context),
            credential,
            name: config.name.clone(),
            credentials: Arc::clone(&planned),
            settings,
            state: State::new(settings),
            sources: announced,
            webhooks: HashMap::new(),
            origins: HashMap::new(),
        };
        let span = error_span!("missed", credential = config.name);
        let name = format!("missed webhooks ({})", config.name);
        tasks.push((name, watcher.run().instrument(span).boxed()));
    }
    let store = context.store.clone();
    let follow = async move {
        // A large store takes a while, and nothing else needs to wait for it.
        match store.latest_jobs(now.saturating_sub(RECENT_MS)).await {
            Ok(latest) => latest
                .iter()
                .for_each(|(job, latest)| sources.announce_repository(job, Some(*latest))),
            Err(error) => warn!(
                %error,
                "repositories are polled for missed webhooks only after their next event"
            ),
        }
        sources.follow(arrivals).await;
    };
    tasks.push(("missed webhooks".to_owned(), follow.boxed()));
    Ok(tasks)
}

impl Watcher {
    async fn run(mut self) {
        let mut look_at = clock::now().instant;
        loop {
            while let Ok(source) = self.sources.try_recv() {
                self.add_source(source).await;
            }
            let now = clock::now().instant;
            if look_at <= now {
                self.add_registered().await;
                look_at = now + REGISTERED_EVERY;
            }
            match self.state.next(clock::now()) {
                Next::Request(request) => {
                    let outcome = self.send(&request).await;
                    self.record_outcome(&request, outcome).await;
                }
                Next::WaitUntil(until) => {
                    self.report();
                    let wait = until.min(look_at).duration_since(clock::now().instant);
                    tokio::select! {
                        () = sleep(wait) => {}
                        source = self.sources.recv() => match source {
                            Some(source) => self.add_source(source).await,
                            // Their task ended, which the supervisor reports.
                            None => return pending().await,
                        },
                    }
                }
            }
        }
    }

    fn github(&self) -> &GitHub {
        &self.context.clients.by_index(self.credential).github
    }

    async fn add_source(&mut self, source: Source) {
        let now = clock::now();
        match source {
            Source::Webhook(webhook, record) => {
                let account = match &webhook {
                    WebhookId::At { target, .. } => self.github().account(target),
                    WebhookId::App => String::new(),
                };
                let known = self.webhooks.get(&webhook).map_or(0, |known| known.settled_until);
                if !self.webhooks.contains_key(&webhook) {
                    info!(hook = %webhook, "now watching this webhook's deliveries");
                }
                let settled_until = record.settled_until;
                self.state.watch_webhook(webhook.clone(), &account, settled_until, now.instant);
                let record = WebhookRecord { settled_until: known.max(settled_until), ..record };
                self.webhooks.insert(webhook, record.clone());
                self.save(record).await;
            }
            Source::Repository(origin, last_event) => {
                let Some(target) = origin.target() else { return };
                let account = self.github().account(&target);
                self.state.watch_repository(&origin.key(), &account, last_event, now);
                self.origins.insert(origin.key(), origin);
            }
        }
    }

    /// Watches the webhooks at GitHub that send to the configured URL.
    async fn add_registered(&mut self) {
        let Some(url) = &self.context.webhook_url else { return };
        let places = {
            let pools = self.context.pools.borrow();
            registered::places(&pools, &self.credentials, self.credential)
        };
        let found = registered::webhooks(self.github(), &places, url).await;
        let host = self.credentials[self.credential].host;
        let is_new = |webhook: &WebhookId| !self.webhooks.contains_key(webhook);
        let new: Vec<WebhookId> = found.into_iter().filter(is_new).collect();
        for webhook in new {
            let record = sources::seen(host, &webhook, 0, clock::now().wall);
            self.add_source(Source::Webhook(webhook, record)).await;
        }
    }

    async fn save(&self, record: WebhookRecord) {
        if let Err(error) = self.context.store.save_webhook(record).await {
            warn!(%error, "webhook not saved: it is unknown after a restart until it delivers");
        }
    }

    /// Sends a request with the watcher's credential, or with another one that serves the same
    /// target while GitHub refuses that one.
    async fn send(&self, request: &Request) -> Result<Response, RequestError> {
        let Some(target) = self.target_of(request) else {
            return self.send_with(self.credential, request).await.map_err(request_error);
        };
        let clients = &self.context.clients;
        let with = clients.stand_in(self.credential, &target);
        let mut result = self.send_with(with, request).await;
        clients.note(with, &target, result.as_ref().err());
        let repeatable = !matches!(request, Request::Redeliver { .. });
        if repeatable && result.as_ref().is_err_and(|error| error.kind.may_differ_by_credential()) {
            let other = clients.stand_in(with, &target);
            if other != with {
                result = self.send_with(other, request).await;
                clients.note(other, &target, result.as_ref().err());
            }
        }
        result.map_err(request_error)
    }

    /// The target whose credentials may send a request. `None`: the App's own webhook is shown to
    /// the App alone.
    fn target_of(&self, request: &Request) -> Option<ServerTarget> {
        match request {
            Request::Deliveries { webhook, .. } | Request::Redeliver { webhook, .. } => {
                let WebhookId::At { target, .. } = webhook else { return None };
                Some(target.clone().on(self.webhooks.get(webhook)?.host))
            }
            Request::Runs { repository, .. } | Request::Jobs { repository, .. } => {
                Some(self.origins.get(repository)?.registered_at.clone())
            }
        }
    }

    async fn send_with(
        &self,
        credential: usize,
        request: &Request,
    ) -> Result<Response, github::Error> {
        let github = &self.context.clients.by_index(credential).github;
        let github = github.for_purpose(github::Purpose::MissedWebhooks);
        match request {
            Request::Deliveries { webhook, page } => {
                github.deliveries(webhook, page.as_deref()).await.map(Response::Deliveries)
            }
            Request::Redeliver { webhook, guid, delivery, at } => {
                // It may be in the store although GitHub got no response, or may have arrived
                // since.
                let since = at.saturating_sub(CLOCK_SKEW_MAX_MS);
                if let Ok(true) = self.context.store.has_delivery(guid.clone(), since).await {
                    return Ok(Response::Arrived);
                }
                github.redeliver(webhook, *delivery).await.map(|()| {
                    metrics::redelivery(&self.name);
                    info!(delivery = guid, hook = %webhook, "redelivery of a failed webhook requested");
                    Response::Redelivering
                })
            }
            Request::Runs { repository, status, page } => {
                let (owner, name) = parts(repository);
                github.runs(owner, name, *status, page.as_deref()).await.map(Response::Runs)
            }
            Request::Jobs { repository, run, page } => {
                let (owner, name) = parts(repository);
                match github.jobs_of_run(owner, name, run.id, page.as_deref()).await {
                    Ok(Page { items, next, unchanged }) => {
                        for job in items {
                            self.store_if_missed(repository, job, run.origin).await;
                        }
                        Ok(Response::Jobs(Page { items: Vec::new(), next, unchanged }))
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Treats a queued job without a webhook as if its webhook had arrived.
    async fn store_if_missed(&self, repository: &str, job: ListedJob, of_run: Option<RunOrigin>) {
        let Context { store, events, pools, .. } = &*self.context;
        let now = clock::now().wall;
        let age = Duration::from_millis(now.saturating_sub(job.created_at));
        let fresh = age < self.settings.interval / IN_TRANSIT;
        let Some(origin) = self.origins.get(repository) else { return };
        if job.state != Some(JobState::Queued) || fresh {
            return;
        }
        let delivery = delivery(job, origin, of_run, now);
        let Job { key, labels, delivery: id, .. } = delivery.job.clone();
        // A job that a pool refuses is stored as well, and waits with the reason.
        let served = match match_pool(&pools.borrow(), &delivery.job) {
            Ok(_) => true,
            // It is stored as well, and waits with the reason.
            Err(why) => why.is_refusal(),
        };
        if !served || !matches!(store.job(key).await, Ok(None)) {
            return;
        }
        match intake::accept(store, events.as_ref(), Arc::new([delivery])).await {
            Ok(stored) if stored == [StoreOutcome::Advanced] => {
                metrics::job_found(&self.name);
                let labels = List(&labels);
                info!(job = %key, host = %key.host, delivery = id, repository, %labels, "found a queued job without a webhook");
            }
            Ok(_) => {}
            Err(error) => {
                error!(job = %key, host = %key.host, delivery = id, %error, "found a queued job without a webhook, but could not store it");
            }
        }
    }

    async fn record_outcome(&mut self, request: &Request, outcome: Result<Response, RequestError>) {
        if let Err(error) = &outcome {
            debug!(error = error.message, "request failed");
        }
        if let (Request::Deliveries { webhook, page: None }, Ok(Response::Deliveries(page))) =
            (request, &outcome)
        {
            let client = self.context.clients.by_index(self.credential);
            let url = self.context.webhook_url.as_deref();
            client.refused.note(webhook, url, &page.items, clock::now().wall);
        }
        if !outcome.as_ref().is_ok_and(Response::is_free) {
            metrics::missed_request(&self.name);
        }
        let account = self.state.account(request);
        let limit = account.and_then(|account| self.github().budget(account));
        self.state.record_outcome(request, outcome, limit, clock::now());
        self.report();
        if let Request::Deliveries { webhook, .. } = request {
            self.save_settled(webhook).await;
        }
    }

    async fn save_settled(&mut self, webhook: &WebhookId) {
        let settled_until = self.state.settled_until(webhook);
        if let Some(record) = self.webhooks.get_mut(webhook)
            && settled_until >= record.settled_until.saturating_add(SETTLED_STEP_MS)
        {
            record.settled_until = settled_until;
            let record = record.clone();
            self.save(record).await;
        }
    }

    /// Logs notes and publishes the budgets.
    fn report(&mut self) {
        let now = clock::now();
        for note in self.state.take_notes() {
            match note {
                Note::Denied { what, message } => match what {
                    Denied::Deliveries(webhook) => warn!(
                        error = message,
                        "cannot list deliveries of {webhook}: grant Webhooks: read and write, or \
                         ignore this if finding queued jobs is enough"
                    ),
                    Denied::Redeliveries(webhook) => warn!(
                        error = message,
                        "cannot request redeliveries of {webhook}: grant Webhooks: read and \
                         write, or ignore this if finding queued jobs is enough"
                    ),
                    Denied::Jobs(repository) => warn!(
                        error = message,
                        "cannot list queued jobs of {repository}: grant Actions: read, or ignore \
                         this if webhooks are enough"
                    ),
                },
                Note::GaveUp { webhook, guid } => {
                    metrics::redelivery_given_up(&self.name);
                    warn!(delivery = guid, hook = %webhook, "gave up redelivering a failed webhook");
                }
                Note::BudgetExhausted { account, until } => {
                    let wait = until.duration_since(now.instant);
                    info!(
                        account,
                        seconds = wait.as_millis().div_ceil(1000) as u64,
                        "webhook recovery pauses: its share of the rate limit is used up, or \
                         GitHub asked to wait"
                    );
                }
            }
        }
        let client = self.context.clients.by_index(self.credential);
        for (account, budget) in self.state.budgets() {
            let budget = MissedBudget {
                allowed: budget.allowed(),
                spent: budget.spent(now.instant),
                waits_until_ms: budget
                    .exhausted()
                    .then(|| now.wall_of(budget.opens_at(now.instant))),
            };
            client.missed.set(account, budget);
        }
    }
}

fn request_error(error: github::Error) -> RequestError {
    let kind = match error.kind {
        github::ErrorKind::RateLimited => ErrorKind::RateLimited { retry_after: error.retry_after },
        github::ErrorKind::Forbidden => ErrorKind::Forbidden,
        github::ErrorKind::NotFound => ErrorKind::NotFound,
        github::ErrorKind::Invalid => ErrorKind::Invalid,
        _ => ErrorKind::Other,
    };
    RequestError { kind, message: error.to_string() }
}

fn parts(repository: &str) -> (&str, &str) {
    repository.split_once('/').unwrap_or((repository, ""))
}

fn delivery(
    listed: ListedJob,
    origin: &Origin,
    of_run: Option<RunOrigin>,
    now: UnixMs,
) -> Delivery {
    Delivery {
        hook: String::new(),
        hook_id: 0,
        hook_target_type: String::new(),
        hook_target_id: 0,
        received_at: now,
        state: JobState::Queued,
        job: Job {
            key: JobKey {
                id: listed.id,
                run_attempt: listed.run_attempt.max(1),
                host: origin.host,
            },
            repository: origin.repository.clone(),
            organization: origin.organization.clone(),
            enterprise: origin.enterprise.clone(),
            visibility: of_run.map(|it| it.visibility).unwrap_or_default(),
            run_id: listed.run_id,
            from_fork: of_run.map(|it| it.from_fork),
            labels: listed.labels,
            queued_at: now,
            delivery: format!(
                "{LOOK_UP_PREFIX}{}-{}-{}",
                origin.host, listed.id, listed.run_attempt
            ),
        },
        details: JobDetails {
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
