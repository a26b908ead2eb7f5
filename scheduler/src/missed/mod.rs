//! Missed webhooks: which request to send to GitHub next to find events that did not arrive.
//!
//! Pure, like the planner: time, responses and rate limits are arguments. GitHub does not retry
//! a failed delivery, so the deliveries of every webhook are listed and failed ones are
//! redelivered. A webhook may also leave no trace, or the credential may not be allowed to list
//! its deliveries, so the queued jobs of every repository are listed too.

mod budget;
mod deliveries;
mod queued_jobs;
#[cfg(test)]
mod tests;
mod webhook_id;

use std::{collections::BTreeMap, time::Duration};

pub use self::{
    budget::{RateLimit, RequestBudget},
    webhook_id::{InvalidWebhookId, WebhookId},
};
use self::{
    deliveries::{FailedDelivery, Listing},
    queued_jobs::Queue,
};
use crate::model::{Instant, Moment, RunOrigin, UnixMs};

/// Wait before a request is repeated for which the credential lacks a permission.
const DENIED: Duration = Duration::from_secs(3_600);
const BACKOFF_MAX: Duration = Duration::from_secs(15 * 60);
/// Wait after a rate limit that GitHub reports without a time.
const LIMITED: Duration = Duration::from_secs(60);
/// Between requests that change something: GitHub asks for at least a second.
const AFTER_CHANGE: Duration = Duration::from_secs(1);
/// Between other requests: GitHub allows 900 a minute for all clients of a credential together.
const AFTER_READ: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Between two polls of the same list.
    pub interval: Duration,
    /// Older deliveries are not requested again.
    pub look_back: Duration,
    /// Share of each rate limit that may be spent, from 0 to 1.
    pub share: f64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// One page of a webhook's deliveries, newest first.
    Deliveries {
        webhook: WebhookId,
        page: Option<String>,
    },
    Redeliver {
        webhook: WebhookId,
        guid: String,
        /// Id of the latest attempt.
        delivery: u64,
        /// When the first known attempt was made.
        at: UnixMs,
    },
    Runs {
        repository: String,
        status: RunStatus,
        page: Option<String>,
    },
    Jobs {
        repository: String,
        run: Run,
        page: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStatus {
    Queued,
    InProgress,
}

#[derive(Debug)]
pub enum Response {
    Deliveries(Page<DeliveryAttempt>),
    /// GitHub accepted the request.
    Redelivering,
    /// The event is in the store, so no request was sent.
    Arrived,
    Runs(Page<Run>),
    /// The jobs themselves are handled by the caller.
    Jobs(Page<()>),
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Path of the next page.
    pub next: Option<String>,
    /// GitHub returned 304, which does not count against the rate limit.
    pub unchanged: bool,
}

/// A workflow run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub id: u64,
    /// `None` if the list does not show it.
    pub origin: Option<RunOrigin>,
}

/// One attempt to deliver an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryAttempt {
    pub id: u64,
    /// Identifies the event: all attempts share it.
    pub guid: String,
    pub at: UnixMs,
    /// HTTP status of the response; 0 if there was none.
    pub status: u16,
    pub event: String,
    /// Empty for events without one.
    pub action: String,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    pub kind: ErrorKind,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    RateLimited {
        retry_after: Option<Duration>,
    },
    Forbidden,
    NotFound,
    /// GitHub rejected the request as invalid.
    Invalid,
    Other,
}

impl Response {
    /// Whether the request did not count against the rate limit.
    pub fn is_free(&self) -> bool {
        match self {
            Self::Deliveries(page) => page.unchanged,
            Self::Runs(page) => page.unchanged,
            Self::Jobs(page) => page.unchanged,
            Self::Arrived => true,
            Self::Redelivering => false,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Request(Request),
    WaitUntil(Instant),
}

/// Something to log.
#[derive(Debug, PartialEq, Eq)]
pub enum Note {
    /// The credential lacks a permission. Noted once.
    Denied {
        what: Denied,
        message: String,
    },
    GaveUp {
        webhook: WebhookId,
        guid: String,
    },
    BudgetExhausted {
        account: String,
        until: Instant,
    },
}

/// Requests for which a credential lacks a permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    Deliveries(WebhookId),
    Redeliveries(WebhookId),
    /// Queued jobs of this repository.
    Jobs(String),
}

/// Everything that is known about one credential's webhooks and repositories.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    webhooks: BTreeMap<WebhookId, Listing>,
    repositories: BTreeMap<String, Queue>,
    /// Failed deliveries by GUID.
    failed: BTreeMap<String, FailedDelivery>,
    /// Budgets by account.
    budgets: BTreeMap<String, RequestBudget>,
    /// The kinds of requests take turns, so that many failures do not delay the search for
    /// queued jobs, nor the reverse.
    turn: usize,
    not_before: Option<Instant>,
    last_cleanup: Option<Instant>,
    notes: Vec<Note>,
}

#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    denied: bool,
}

impl State {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            webhooks: BTreeMap::new(),
            repositories: BTreeMap::new(),
            failed: BTreeMap::new(),
            budgets: BTreeMap::new(),
            turn: 0,
            not_before: None,
            last_cleanup: None,
            notes: Vec::new(),
        }
    }

    fn open_budget(&mut self, account: &str, now: Instant) {
        if !self.budgets.contains_key(account) {
            self.budgets.insert(account.to_owned(), RequestBudget::new(self.settings.share, now));
        }
    }

    /// Notes since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// The budget of each account.
    pub fn budgets(&self) -> impl Iterator<Item = (&str, &RequestBudget)> {
        self.budgets.iter().map(|(account, budget)| (account.as_str(), budget))
    }

    /// The account whose rate limit a request counts against.
    pub fn account(&self, request: &Request) -> Option<&str> {
        match request {
            Request::Deliveries { webhook, .. } | Request::Redeliver { webhook, .. } => {
                self.webhooks.get(webhook).map(|listing| listing.account.as_str())
            }
            Request::Runs { repository, .. } | Request::Jobs { repository, .. } => {
                self.repositories.get(repository).map(|queue| queue.account.as_str())
            }
        }
    }

    /// A request counts as spent until [`Self::record_outcome`] reports that it was free.
    pub fn next(&mut self, now: Moment) -> Next {
        if let Some(not_before) = self.not_before.filter(|at| now.instant < *at) {
            return Next::WaitUntil(not_before);
        }
        self.clean_up(now.instant);
        let mut wake = now.instant + self.settings.interval;
        for _ in 0..3 {
            self.turn = (self.turn + 1) % 3;
            let found = match self.turn {
                0 => self.due_listing(now.instant, &mut wake),
                1 => self.due_redelivery(now.instant, &mut wake),
                _ => self.due_job_listing(now.instant, &mut wake),
            };
            if let Some(request) = found {
                let account = self.account(&request).map(str::to_owned);
                if let Some(budget) = account.and_then(|account| self.budgets.get_mut(&account)) {
                    budget.spend(now.instant);
                }
                let changes = matches!(request, Request::Redeliver { .. });
                let pause = if changes { AFTER_CHANGE } else { AFTER_READ };
                self.not_before = Some(now.instant + pause);
                return Next::Request(request);
            }
        }
        Next::WaitUntil(wake)
    }

    /// The outcome of a request. `limit`: the account's rate limit, as GitHub last reported it.
    pub fn record_outcome(
        &mut self,
        request: &Request,
        outcome: Result<Response, RequestError>,
        limit: Option<RateLimit>,
        now: Moment,
    ) {
        let account = self.account(request).map(str::to_owned).unwrap_or_default();
        if let Some(budget) = self.budgets.get_mut(&account) {
            if let Some(limit) = limit {
                budget.update_limit(limit, now);
            }
            if outcome.as_ref().is_ok_and(Response::is_free) {
                budget.refund();
            }
            if let Err(RequestError { kind: ErrorKind::RateLimited { retry_after }, .. }) = &outcome
            {
                // The request stays due.
                return budget.close(now.instant + retry_after.unwrap_or(LIMITED));
            }
        }
        match (request, outcome) {
            (Request::Deliveries { webhook, .. }, Ok(Response::Deliveries(page))) => {
                self.listed(webhook, page, now);
            }
            (Request::Deliveries { webhook, .. }, Err(error)) => {
                self.listing_failed(webhook, &error, now.instant);
            }
            (Request::Redeliver { guid, .. }, Ok(Response::Arrived)) => {
                drop(self.failed.remove(guid));
            }
            (Request::Redeliver { guid, webhook, .. }, outcome) => {
                self.redelivery_requested(webhook, guid, outcome.err(), now.instant);
            }
            (Request::Runs { repository, .. } | Request::Jobs { repository, .. }, outcome) => {
                self.jobs_listed(repository, outcome, now.instant);
            }
            (Request::Deliveries { .. }, Ok(_)) => {}
        }
    }

    fn clean_up(&mut self, now: Instant) {
        if self.last_cleanup.is_some_and(|last| now < last + self.settings.interval) {
            return;
        }
        self.last_cleanup = Some(now);
        self.failed.retain(|_, failed| failed.forget_at > now);
        self.repositories.retain(|_, queue| !queue.is_forgotten(now));
    }
}

impl Backoff {
    /// How long to wait before the next try.
    fn wait(
        &mut self,
        error: &RequestError,
        settings: &Settings,
        notes: &mut Vec<Note>,
        what: impl Fn() -> Denied,
    ) -> Duration {
        self.failures += 1;
        match error.kind {
            ErrorKind::Forbidden | ErrorKind::NotFound => {
                if !self.denied {
                    notes.push(Note::Denied { what: what(), message: error.message.clone() });
                }
                self.denied = true;
                DENIED
            }
            _ => {
                let doubled = settings.interval.saturating_mul(1 << self.failures.min(10));
                doubled.clamp(settings.interval, BACKOFF_MAX.max(settings.interval))
            }
        }
    }
}

/// The first candidate that is due and whose budget is open. Lowers `wake` to the time at which
/// the next one will be.
fn first_due<'a, T: Ord>(
    budgets: &mut BTreeMap<String, RequestBudget>,
    notes: &mut Vec<Note>,
    candidates: impl Iterator<Item = (Instant, &'a str, T)>,
    now: Instant,
    wake: &mut Instant,
) -> Option<T> {
    let mut first: Option<(Instant, T)> = None;
    for (due, account, what) in candidates {
        if due > now {
            *wake = (*wake).min(due);
            continue;
        }
        let Some(budget) = budgets.get_mut(account) else { continue };
        let opens = budget.opens_at(now);
        if opens > now {
            *wake = (*wake).min(opens);
            if !budget.exhausted {
                budget.exhausted = true;
                notes.push(Note::BudgetExhausted { account: account.to_owned(), until: opens });
            }
        } else if first.as_ref().is_none_or(|first| (due, &what) < (first.0, &first.1)) {
            first = Some((due, what));
        }
    }
    first.map(|(_, what)| what)
}
