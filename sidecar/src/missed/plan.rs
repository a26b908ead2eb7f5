//! What to ask GitHub next, to find what it could not deliver. Pure, as the scheduler is:
//! time, answers and budgets are arguments.
//!
//! Hooks have their deliveries listed, and what never arrived is asked for once more.
//! Repositories have their queued jobs listed, since a webhook may leave no trace.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet, VecDeque},
    time::Duration,
};

use super::purse::RequestBudget;
use crate::{
    github::{Budget, DeliveryAttempt, Error, ErrorKind, Page, RunStatus},
    webhook_id::WebhookId,
};
use edgerunner_scheduler::model::UnixMs;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Each a list of its own to read.
const HOOKS_MAX: usize = 1_000;
const REPOSITORIES_MAX: usize = 1_000;
/// A repository without news for so long is looked at less often,
const QUIET_AFTER_MS: u64 = DAY_MS;
const QUIET_FACTOR: u64 = 10;
/// and one without any for so long no more.
const FORGET_AFTER_MS: u64 = 7 * DAY_MS;
/// Pages of deliveries read in one go: 10,000 of them.
const PAGES_MAX: usize = 100;
/// A delivery is listed when it is over, which may be half a minute after its time.
const OVERLAP_MS: u64 = 120_000;
/// Deliveries that failed and are not made good yet; more are left to the other way.
const FAILED_MAX: usize = 10_000;
/// Redeliveries of one event.
const TRIES_MAX: u32 = 6;
/// What the credential may not see is not asked for again before.
const DENIED_MS: u64 = HOUR_MS;
const TROUBLE_MAX_MS: u64 = 15 * 60_000;
/// Of a limit that names no time.
const LIMITED_MS: u64 = 60_000;
/// GitHub wants a second between requests that change something.
const AFTER_CHANGE_MS: u64 = 1_000;
/// And no more than 900 requests a minute, of everyone with this credential.
const AFTER_LOOK_MS: u64 = 100;

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) interval_ms: u64,
    pub(super) look_back_ms: u64,
    /// Of each budget.
    pub(super) share: f64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Deliveries {
        hook: WebhookId,
        page: Option<String>,
    },
    /// `at`: when it was delivered first, as far as we saw.
    Redeliver {
        hook: WebhookId,
        guid: String,
        delivery: u64,
        at: UnixMs,
    },
    Runs {
        repository: String,
        status: RunStatus,
        page: Option<String>,
    },
    Jobs {
        repository: String,
        run: u64,
        page: Option<String>,
    },
}

#[derive(Debug)]
pub(super) enum Response {
    Deliveries(Page<DeliveryAttempt>),
    /// GitHub will send it once more.
    Redelivering,
    /// It had arrived, and GitHub was not asked.
    Arrived,
    Runs(Page<u64>),
    /// The jobs themselves are no business of the plan's.
    Jobs(Page<()>),
}

impl Response {
    pub(super) fn is_free(&self) -> bool {
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
pub(super) enum Next {
    Request(Request),
    WaitUntil(UnixMs),
}

/// What people should know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Note {
    Denied { what: String, message: String },
    GaveUp { hook: WebhookId, guid: String },
    UsedUp { account: String, until: UnixMs },
}

#[derive(Debug)]
pub(super) struct State {
    settings: Settings,
    hooks: BTreeMap<WebhookId, Listing>,
    repositories: BTreeMap<String, Queue>,
    /// By GUID.
    failed: BTreeMap<String, Failed>,
    /// By account.
    purses: BTreeMap<String, RequestBudget>,
    /// Each kind has its turn, so that many failures do not keep queued jobs from being
    /// seen, nor the other way round.
    turn: usize,
    not_before: UnixMs,
    tidied_at: UnixMs,
    notes: Vec<Note>,
}

#[derive(Debug)]
struct Listing {
    account: String,
    due: UnixMs,
    trouble: Backoff,
    /// Deliveries until then were read.
    read_until: UnixMs,
    reading: Option<Reading>,
}

/// A look at a list, which is read from its newest page on.
#[derive(Debug)]
struct Reading {
    began: UnixMs,
    page: Option<String>,
    pages: usize,
    newest: UnixMs,
    arrived: HashSet<String>,
}

#[derive(Debug)]
struct Failed {
    hook: WebhookId,
    delivery: u64,
    at: UnixMs,
    tries: u32,
    /// `None`: given up.
    due: Option<UnixMs>,
}

#[derive(Debug)]
struct Queue {
    account: String,
    seen_at: UnixMs,
    due: UnixMs,
    began: UnixMs,
    trouble: Backoff,
    asks: VecDeque<Request>,
}

#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    denied: bool,
}

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            hooks: BTreeMap::new(),
            repositories: BTreeMap::new(),
            failed: BTreeMap::new(),
            purses: BTreeMap::new(),
            turn: 0,
            not_before: 0,
            tidied_at: 0,
            notes: Vec::new(),
        }
    }

    /// A webhook came from this hook, or it is configured. `read_until`: what was
    /// delivered before is known to be here.
    pub(super) fn see_hook(
        &mut self,
        hook: WebhookId,
        account: &str,
        read_until: UnixMs,
        now: UnixMs,
    ) {
        if self.hooks.contains_key(&hook) || self.hooks.len() >= HOOKS_MAX {
            return;
        }
        self.open_purse(account, now);
        let listing = Listing {
            account: account.to_owned(),
            due: now,
            trouble: Backoff::default(),
            read_until,
            reading: None,
        };
        self.hooks.insert(hook, listing);
    }

    /// There was news of this repository, `UnixMs::MAX`: there always is.
    pub(super) fn see_repository(
        &mut self,
        repository: &str,
        account: &str,
        seen_at: UnixMs,
        now: UnixMs,
    ) {
        if let Some(queue) = self.repositories.get_mut(repository) {
            queue.seen_at = queue.seen_at.max(seen_at);
            if queue.trouble.failures == 0 {
                // It was quiet.
                queue.due = queue.due.min(now + self.settings.interval_ms);
            }
            return;
        }
        if self.repositories.len() >= REPOSITORIES_MAX {
            return;
        }
        self.open_purse(account, now);
        let queue = Queue {
            account: account.to_owned(),
            seen_at,
            due: now,
            began: now,
            trouble: Backoff::default(),
            asks: VecDeque::new(),
        };
        self.repositories.insert(repository.to_owned(), queue);
    }

    fn open_purse(&mut self, account: &str, now: UnixMs) {
        if !self.purses.contains_key(account) {
            self.purses.insert(account.to_owned(), RequestBudget::new(self.settings.share, now));
        }
    }

    pub(super) fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Everything that the hook delivered before arrived, or was given up.
    pub(super) fn settled_until(&self, hook: &WebhookId) -> UnixMs {
        let open = self.failed.values().filter(|it| it.hook == *hook && it.due.is_some());
        let read_until = self.hooks.get(hook).map_or(0, |listing| listing.read_until);
        open.map(|failed| failed.at.saturating_sub(1)).fold(read_until, UnixMs::min)
    }

    pub(super) fn purses(&self) -> impl Iterator<Item = (&str, &RequestBudget)> {
        self.purses.iter().map(|(account, purse)| (account.as_str(), purse))
    }

    pub(super) fn account(&self, ask: &Request) -> Option<&str> {
        match ask {
            Request::Deliveries { hook, .. } | Request::Redeliver { hook, .. } => {
                self.hooks.get(hook).map(|listing| listing.account.as_str())
            }
            Request::Runs { repository, .. } | Request::Jobs { repository, .. } => {
                self.repositories.get(repository).map(|queue| queue.account.as_str())
            }
        }
    }

    /// What is asked counts as spent until it is heard to have cost nothing.
    pub(super) fn next(&mut self, now: UnixMs) -> Next {
        if now < self.not_before {
            return Next::WaitUntil(self.not_before);
        }
        self.tidy(now);
        let mut wake = now + self.settings.interval_ms;
        for _ in 0..3 {
            self.turn = (self.turn + 1) % 3;
            let found = match self.turn {
                0 => self.due_listing(now, &mut wake),
                1 => self.due_redelivery(now, &mut wake),
                _ => self.due_look_up(now, &mut wake),
            };
            if let Some(ask) = found {
                let account = self.account(&ask).map(str::to_owned);
                if let Some(purse) = account.and_then(|account| self.purses.get_mut(&account)) {
                    purse.spend(now);
                }
                let changes = matches!(ask, Request::Redeliver { .. });
                self.not_before = now + if changes { AFTER_CHANGE_MS } else { AFTER_LOOK_MS };
                return Next::Request(ask);
            }
        }
        Next::WaitUntil(wake)
    }

    fn due_listing(&mut self, now: UnixMs, wake: &mut UnixMs) -> Option<Request> {
        let due = self.hooks.iter().map(|(hook, it)| (it.due, it.account.as_str(), hook));
        let hook = first_due(&mut self.purses, &mut self.notes, due, now, wake)?.clone();
        let listing = self.hooks.get_mut(&hook)?;
        let reading = listing.reading.get_or_insert_with(|| Reading {
            began: now,
            page: None,
            pages: 0,
            newest: 0,
            arrived: HashSet::new(),
        });
        let page = reading.page.clone();
        Some(Request::Deliveries { hook, page })
    }

    fn due_redelivery(&mut self, now: UnixMs, wake: &mut UnixMs) -> Option<Request> {
        let hooks = &self.hooks;
        let due = self.failed.iter().filter_map(|(guid, failed)| {
            let listing = hooks.get(&failed.hook).filter(|listing| !listing.trouble.denied)?;
            // What is due is due alike. The newest goes first: that a job is over is heard
            // before that it was queued, and then no runner is launched for it.
            let due = failed.due.map(|due| if due <= now { 0 } else { due })?;
            Some((due, listing.account.as_str(), (Reverse(failed.at), guid)))
        });
        let (_, guid) = first_due(&mut self.purses, &mut self.notes, due, now, wake)?;
        let guid = guid.clone();
        let failed = self.failed.get_mut(&guid)?;
        if failed.tries >= TRIES_MAX {
            failed.due = None;
            self.notes.push(Note::GaveUp { hook: failed.hook.clone(), guid });
            *wake = now;
            return None;
        }
        let Failed { hook, delivery, at, .. } = failed;
        Some(Request::Redeliver { hook: hook.clone(), delivery: *delivery, at: *at, guid })
    }

    fn due_look_up(&mut self, now: UnixMs, wake: &mut UnixMs) -> Option<Request> {
        let due = self.repositories.iter().map(|(name, it)| (it.due, it.account.as_str(), name));
        let name = first_due(&mut self.purses, &mut self.notes, due, now, wake)?.clone();
        let queue = self.repositories.get_mut(&name)?;
        if queue.asks.is_empty() {
            queue.began = now;
            queue.asks.extend(
                [RunStatus::Queued, RunStatus::InProgress].map(|status| Request::Runs {
                    repository: name.clone(),
                    status,
                    page: None,
                }),
            );
        }
        queue.asks.front().cloned()
    }

    /// How it went. `budget` is what GitHub has told of the account's.
    pub(super) fn heard(
        &mut self,
        ask: &Request,
        outcome: Result<Response, Error>,
        budget: Option<Budget>,
        now: UnixMs,
    ) {
        let account = self.account(ask).map(str::to_owned).unwrap_or_default();
        if let Some(purse) = self.purses.get_mut(&account) {
            if let Some(budget) = budget {
                purse.learn(budget, now);
            }
            if outcome.as_ref().is_ok_and(Response::is_free) {
                purse.take_back();
            }
            if let Err(Error { kind: ErrorKind::RateLimited, retry_after, .. }) = &outcome {
                let wait = retry_after.map_or(LIMITED_MS, millis);
                // What was asked for is asked for again.
                return purse.close(now.saturating_add(wait));
            }
        }
        match (ask, outcome) {
            (Request::Deliveries { hook, .. }, Ok(Response::Deliveries(page))) => {
                self.read(hook, page, now);
            }
            (Request::Deliveries { hook, .. }, Err(error)) => self.not_listed(hook, &error, now),
            (Request::Redeliver { guid, .. }, Ok(Response::Arrived)) => {
                drop(self.failed.remove(guid));
            }
            (Request::Redeliver { guid, hook, .. }, outcome) => {
                self.asked_again(hook, guid, outcome.err(), now);
            }
            (Request::Runs { repository, .. } | Request::Jobs { repository, .. }, outcome) => {
                self.looked_up(repository, outcome, now);
            }
            (Request::Deliveries { .. }, Ok(_)) => {}
        }
    }

    fn read(&mut self, hook: &WebhookId, page: Page<DeliveryAttempt>, now: UnixMs) {
        let Some(listing) = self.hooks.get_mut(hook) else { return };
        listing.trouble = Backoff::default();
        let Some(reading) = &mut listing.reading else { return };
        let oldest = listing
            .read_until
            .saturating_sub(OVERLAP_MS)
            .max(now.saturating_sub(self.settings.look_back_ms));
        reading.pages += 1;
        let mut reached = false;
        for delivery in page.items {
            reading.newest = reading.newest.max(delivery.at);
            reached = delivery.at < oldest;
            if reached {
                break;
            }
            if (200..300).contains(&delivery.status) {
                self.failed.remove(&delivery.guid);
                reading.arrived.insert(delivery.guid);
            } else if matters(&delivery) && !reading.arrived.contains(&delivery.guid) {
                let full = self.failed.len() >= FAILED_MAX;
                match self.failed.get_mut(&delivery.guid) {
                    Some(known) => {
                        known.delivery = known.delivery.max(delivery.id);
                        known.at = known.at.min(delivery.at);
                    }
                    None if full => {}
                    None => {
                        let failed = Failed {
                            hook: hook.clone(),
                            delivery: delivery.id,
                            at: delivery.at,
                            tries: 0,
                            due: Some(now),
                        };
                        self.failed.insert(delivery.guid, failed);
                    }
                }
            }
        }
        reading.page = page.next;
        // What has not changed was read before, all of it.
        let unchanged = page.unchanged && reading.pages == 1;
        if reached || unchanged || reading.page.is_none() || reading.pages >= PAGES_MAX {
            listing.due = reading.began + self.settings.interval_ms;
            listing.read_until = listing.read_until.max(reading.newest);
            listing.reading = None;
        }
    }

    fn not_listed(&mut self, hook: &WebhookId, error: &Error, now: UnixMs) {
        let Some(listing) = self.hooks.get_mut(hook) else { return };
        let what = || format!("the deliveries of {hook}");
        if error.kind == ErrorKind::Invalid {
            // A cursor may grow old.
            listing.reading = None;
        }
        listing.due = now + listing.trouble.wait(error, &self.settings, &mut self.notes, what);
    }

    fn asked_again(&mut self, hook: &WebhookId, guid: &str, error: Option<Error>, now: UnixMs) {
        let Some(failed) = self.failed.get_mut(guid) else { return };
        failed.tries += 1;
        // Twice the interval: the list has to tell first how it went.
        let wait = self.settings.interval_ms.saturating_mul(1 << failed.tries);
        failed.due = Some(now + wait);
        let Some(error) = error else { return };
        match error.kind {
            // Too old, or GitHub has it no more.
            ErrorKind::NotFound | ErrorKind::Invalid => {
                failed.due = None;
                self.notes.push(Note::GaveUp { hook: hook.clone(), guid: guid.to_owned() });
            }
            ErrorKind::Forbidden => {
                let Some(listing) = self.hooks.get_mut(hook) else { return };
                let what = || format!("a redelivery by {hook}");
                let wait = listing.trouble.wait(&error, &self.settings, &mut self.notes, what);
                // Until it is listed again.
                listing.due = now + wait;
            }
            _ => {}
        }
    }

    fn looked_up(&mut self, repository: &str, outcome: Result<Response, Error>, now: UnixMs) {
        let Some(queue) = self.repositories.get_mut(repository) else { return };
        let repository = repository.to_owned();
        match outcome {
            Ok(heard) => {
                queue.trouble = Backoff::default();
                let asked = queue.asks.pop_front();
                match (asked, heard) {
                    (Some(Request::Runs { status, .. }), Response::Runs(page)) => {
                        let jobs = page.items.into_iter().map(|run| Request::Jobs {
                            repository: repository.clone(),
                            run,
                            page: None,
                        });
                        queue.asks.extend(jobs);
                        if page.next.is_some() {
                            queue.asks.push_front(Request::Runs {
                                repository,
                                status,
                                page: page.next,
                            });
                        }
                    }
                    (Some(Request::Jobs { run, .. }), Response::Jobs(page))
                        if page.next.is_some() =>
                    {
                        queue.asks.push_front(Request::Jobs { repository, run, page: page.next });
                    }
                    _ => {}
                }
            }
            // The run is gone; of the others there is still something to see.
            Err(Error { kind: ErrorKind::NotFound, .. })
                if matches!(queue.asks.front(), Some(Request::Jobs { .. })) =>
            {
                queue.asks.pop_front();
            }
            Err(error) => {
                let what = || format!("the queued jobs of {repository}");
                queue.due = now + queue.trouble.wait(&error, &self.settings, &mut self.notes, what);
                queue.asks.clear();
                return;
            }
        }
        if queue.asks.is_empty() {
            let quiet = queue.seen_at.saturating_add(QUIET_AFTER_MS) < now;
            let factor = if quiet { QUIET_FACTOR } else { 1 };
            queue.due = queue.began + self.settings.interval_ms * factor;
        }
    }

    fn tidy(&mut self, now: UnixMs) {
        if now < self.tidied_at.saturating_add(self.settings.interval_ms) {
            return;
        }
        self.tidied_at = now;
        let look_back = self.settings.look_back_ms;
        self.failed.retain(|_, failed| failed.at.saturating_add(look_back) > now);
        self.repositories.retain(|_, queue| queue.seen_at.saturating_add(FORGET_AFTER_MS) > now);
    }
}

impl Backoff {
    /// How long to wait before the next try.
    fn wait(
        &mut self,
        error: &Error,
        settings: &Settings,
        notes: &mut Vec<Note>,
        what: impl Fn() -> String,
    ) -> u64 {
        self.failures += 1;
        match error.kind {
            ErrorKind::Forbidden | ErrorKind::NotFound => {
                if !self.denied {
                    notes.push(Note::Denied { what: what(), message: error.message.clone() });
                }
                self.denied = true;
                DENIED_MS
            }
            _ => {
                let doubled = settings.interval_ms.saturating_mul(1 << self.failures.min(10));
                doubled.clamp(settings.interval_ms, TROUBLE_MAX_MS.max(settings.interval_ms))
            }
        }
    }
}

/// The first of what is due whose purse is open.
fn first_due<'a, T: Ord>(
    purses: &mut BTreeMap<String, RequestBudget>,
    notes: &mut Vec<Note>,
    candidates: impl Iterator<Item = (UnixMs, &'a str, T)>,
    now: UnixMs,
    wake: &mut UnixMs,
) -> Option<T> {
    let mut first: Option<(UnixMs, T)> = None;
    for (due, account, what) in candidates {
        if due > now {
            *wake = (*wake).min(due);
            continue;
        }
        let Some(purse) = purses.get_mut(account) else { continue };
        let opens = purse.opens(now);
        if opens > now {
            *wake = (*wake).min(opens);
            if !purse.used_up {
                purse.used_up = true;
                notes.push(Note::UsedUp { account: account.to_owned(), until: opens });
            }
        } else if first.as_ref().is_none_or(|first| (due, &what) < (first.0, &first.1)) {
            first = Some((due, what));
        }
    }
    first.map(|(_, what)| what)
}

/// Whether the sidecar should hear of it, and would: what the filter refuses on purpose it
/// refuses again.
fn matters(delivery: &DeliveryAttempt) -> bool {
    delivery.event == "workflow_job"
        && matches!(delivery.action.as_str(), "queued" | "in_progress" | "completed")
        && !matches!(delivery.status, 400 | 403 | 405 | 413 | 415)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
