//! The plan against a GitHub of a few lines, in simulated time.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::github::{Budget, ErrorKind, RunStatus};

const T0: UnixMs = 1_700_000_000_000;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

const SETTINGS: Settings = Settings { interval_ms: MINUTE, look_back_ms: 24 * HOUR, share: 0.2 };
const REPOSITORY: &str = "acme/app";

fn hook() -> WebhookId {
    "orgs/acme/hooks/1".parse().unwrap()
}

/// What GitHub has and what was asked of it.
struct World {
    state: State,
    now: UnixMs,
    /// Oldest first.
    deliveries: Vec<crate::github::DeliveryAttempt>,
    /// Queued jobs of each repository: since when, each with a run of its own.
    queued: BTreeMap<String, Vec<UnixMs>>,
    page_size: usize,
    /// Whether a redelivery gets through.
    receiver_is_up: bool,
    denied: fn(&Request) -> Option<ErrorKind>,
    budget: Budget,
    /// What was answered last, as an ETag has it.
    answered: HashMap<String, String>,
    asked: Vec<(UnixMs, Request)>,
    spent: u64,
    found: Vec<UnixMs>,
    notes: Vec<Note>,
}

impl World {
    fn new() -> Self {
        Self::with(SETTINGS)
    }

    fn with(settings: Settings) -> Self {
        Self {
            state: State::new(settings),
            now: T0,
            deliveries: Vec::new(),
            queued: BTreeMap::new(),
            page_size: 100,
            receiver_is_up: true,
            denied: |_| None,
            budget: Budget { limit: 5_000, remaining: 5_000, reset: (T0 + HOUR) / 1000 },
            answered: HashMap::new(),
            asked: Vec::new(),
            spent: 0,
            found: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn see_both(&mut self) {
        self.state.see_hook(hook(), "", 0, self.now);
        self.state.see_repository(REPOSITORY, "", self.now, self.now);
    }

    fn deliver(&mut self, guid: &str, action: &str, status: u16) {
        self.deliveries.push(crate::github::DeliveryAttempt {
            id: self.deliveries.len() as u64 + 1,
            guid: guid.to_owned(),
            at: self.now,
            status,
            event: "workflow_job".into(),
            action: action.into(),
        });
    }

    fn queue(&mut self, repository: &str) {
        self.queued.entry(repository.to_owned()).or_default().push(self.now);
    }

    fn run_for(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            match self.state.next(self.now) {
                Next::WaitUntil(until) => self.now = until.max(self.now + 1).min(end),
                Next::Request(ask) => {
                    let outcome = self.answer(&ask);
                    let free = outcome.as_ref().is_ok_and(Response::is_free);
                    self.spent += u64::from(!free);
                    if self.now >= self.budget.reset * 1000 {
                        self.budget.remaining = self.budget.limit;
                        self.budget.reset += HOUR / 1000;
                    }
                    self.budget.remaining -= u64::from(!free);
                    self.asked.push((self.now, ask.clone()));
                    self.state.heard(&ask, outcome, Some(self.budget), self.now);
                }
            }
            self.notes.extend(self.state.notes());
        }
    }

    fn answer(&mut self, ask: &Request) -> Result<Response, Error> {
        if let Some(cause) = (self.denied)(ask) {
            let retry_after = (cause == ErrorKind::RateLimited).then_some(Duration::from_secs(300));
            return Err(Error { kind: cause, retry_after, message: "no".into() });
        }
        Ok(match ask {
            Request::Deliveries { page, .. } => {
                let items: Vec<_> = self.deliveries.iter().rev().cloned().collect();
                Response::Deliveries(self.page(ask, items, page.as_deref()))
            }
            Request::Redeliver { delivery, .. } => {
                let event = self.deliveries[*delivery as usize - 1].clone();
                let status = if self.receiver_is_up { 202 } else { 502 };
                self.deliver(&event.guid, &event.action, status);
                Response::Redelivering
            }
            Request::Runs { repository, status, page } => {
                let queued = self.queued.get(repository).map_or(0, Vec::len) as u64;
                let runs =
                    if *status == RunStatus::Queued { (1..=queued).collect() } else { vec![] };
                Response::Runs(self.page(ask, runs, page.as_deref()))
            }
            Request::Jobs { repository, run, page } => {
                let since = self.queued[repository][*run as usize - 1];
                // As the watcher has it.
                if since + SETTINGS.interval_ms / ON_ITS_WAY <= self.now {
                    self.found.push(self.now - since);
                }
                let page = self.page(ask, vec![since], page.as_deref());
                Response::Jobs(Page { items: vec![], next: page.next, unchanged: page.unchanged })
            }
        })
    }

    fn page<T: Clone + std::fmt::Debug>(
        &mut self,
        ask: &Request,
        all: Vec<T>,
        page: Option<&str>,
    ) -> Page<T> {
        let first: usize = page.map_or(0, |page| page.parse().unwrap());
        let end = all.len().min(first + self.page_size);
        let next = (end < all.len()).then(|| end.to_string());
        let items = all[first..end].to_vec();
        let etag = format!("{items:?} {next:?}");
        let unchanged = self.answered.insert(format!("{ask:?}"), etag.clone()) == Some(etag);
        Page { items, next, unchanged }
    }

    fn redeliveries(&self) -> Vec<(UnixMs, &str)> {
        let asked = self.asked.iter().filter_map(|(at, ask)| match ask {
            Request::Redeliver { guid, .. } => Some((*at, guid.as_str())),
            _ => None,
        });
        asked.collect()
    }

    fn count(&self, what: fn(&Request) -> bool) -> usize {
        self.asked.iter().filter(|(_, ask)| what(ask)).count()
    }
}

fn is_listing(ask: &Request) -> bool {
    matches!(ask, Request::Deliveries { .. })
}

#[test]
fn a_webhook_that_failed_is_made_good_within_two_minutes() {
    let mut world = World::new();
    world.see_both();
    world.deliver("before", "queued", 202);
    world.run_for(HOUR + 17 * SECOND);
    let at = world.now;
    world.deliver("lost", "queued", 503);
    world.run_for(2 * MINUTE);
    let [(asked_at, "lost")] = world.redeliveries()[..] else { panic!("{:?}", world.asked) };
    println!("asked for after {} s; {} requests spent", (asked_at - at) / SECOND, world.spent);
    assert!(asked_at - at <= 2 * MINUTE);
    // Once is enough.
    world.run_for(HOUR);
    assert_eq!(world.redeliveries().len(), 1);
    assert_eq!(world.notes, []);
    assert!(world.count(is_listing) >= 120);
    // The two lists of runs once, that of deliveries whenever it was new, and the redelivery.
    assert!(world.spent <= 6, "{}", world.spent);
}

#[test]
fn a_job_that_no_webhook_tells_of_is_found_within_two_minutes() {
    let mut world = World::new();
    // Its webhook is nowhere listed, or may not be.
    world.denied = |ask| is_listing(ask).then_some(ErrorKind::Forbidden);
    world.see_both();
    world.run_for(HOUR + 17 * SECOND);
    world.queue(REPOSITORY);
    world.run_for(2 * MINUTE);
    println!("found after {} s; {} requests spent", world.found[0] / SECOND, world.spent);
    assert!(world.found[0] <= 2 * MINUTE);
    let [Note::Denied { what, .. }] = &world.notes[..] else { panic!("{:?}", world.notes) };
    assert!(what.contains("orgs/acme/hooks/1"), "{what}");
    // What is denied is asked for once an hour.
    world.run_for(3 * HOUR);
    assert_eq!((world.count(is_listing), world.notes.len()), (5, 1));
}

#[test]
fn a_busy_installation_spends_its_share_and_no_more_and_gets_everywhere() {
    let mut world = World::new();
    world.state.see_hook(hook(), "", 0, T0);
    for number in 0..100 {
        let repository = format!("acme/{number}");
        world.state.see_repository(&repository, "", T0, T0);
        world.queue(&repository);
    }
    for number in 0..1_500 {
        world.deliver(&number.to_string(), "completed", 503);
    }
    world.run_for(HOUR);
    println!("{} requests spent in an hour", world.spent);
    assert!((990..=1_084).contains(&world.spent), "{}", world.spent);
    assert!(world.redeliveries().len() > 300, "{}", world.redeliveries().len());
    assert!(world.found.len() >= 100, "{}", world.found.len());
    let used_up = world.notes.iter().filter(|note| matches!(note, Note::UsedUp { .. })).count();
    assert_eq!((used_up, world.notes.len()), (1, 1));
    let (_, purse) = world.state.purses().next().unwrap();
    assert_eq!((purse.allowed(), purse.used_up), (1_000, true));

    let before = world.spent;
    world.run_for(HOUR);
    assert!(world.spent - before <= 1_001, "{}", world.spent - before);
}

#[test]
fn that_a_job_is_over_is_sent_again_before_that_it_was_queued() {
    let mut world = World::new();
    world.see_both();
    for (guid, action) in [("first", "queued"), ("second", "in_progress"), ("third", "completed")] {
        world.deliver(guid, action, 503);
        world.now += SECOND;
    }
    world.run_for(MINUTE);
    let order: Vec<_> = world.redeliveries().iter().map(|(_, guid)| *guid).collect();
    assert_eq!(order, ["third", "second", "first"]);
}

#[test]
fn what_never_gets_through_is_given_up() {
    let mut world = World::new();
    world.see_both();
    world.receiver_is_up = false;
    world.deliver("lost", "queued", 504);
    world.run_for(6 * HOUR);
    let at: Vec<_> = world.redeliveries().iter().map(|(at, _)| (at - T0) / MINUTE).collect();
    assert_eq!(at, [0, 2, 6, 14, 30, 62]);
    assert_eq!(world.notes, [Note::GaveUp { hook: hook(), guid: "lost".into() }]);
    assert!(world.state.settled_until(&hook()) > T0 + HOUR);
}

#[test]
fn what_was_refused_on_purpose_or_is_no_news_is_let_alone() {
    let mut world = World::new();
    world.see_both();
    for status in [400, 403, 413] {
        world.deliver(&status.to_string(), "queued", status);
    }
    world.deliver("waiting", "waiting", 503);
    world.deliver("ping", "", 503);
    world.deliver("again", "queued", 503);
    world.deliver("again", "queued", 202);
    world.run_for(HOUR);
    assert_eq!(world.redeliveries(), []);
    assert_eq!(world.count(is_listing), 60);
}

#[test]
fn a_delivery_that_took_its_time_is_listed_behind_newer_ones() {
    let mut world = World::new();
    world.see_both();
    world.deliver("new", "queued", 202);
    world.run_for(MINUTE);
    world.deliver("slow", "queued", 504);
    world.deliveries[1].at = T0 - 30 * SECOND;
    world.run_for(2 * MINUTE);
    assert_eq!(world.redeliveries().len(), 1);
}

#[test]
fn a_wrong_secret_or_no_answer_is_worth_another_try() {
    let mut world = World::new();
    world.see_both();
    for status in [0, 401, 404, 500, 502, 503, 504] {
        world.deliver(&status.to_string(), "queued", status);
    }
    world.run_for(MINUTE);
    assert_eq!(world.redeliveries().len(), 7);
}

#[test]
fn a_restart_reads_on_where_the_last_ended() {
    let mut world = World::new();
    world.page_size = 10;
    for number in 0..1_000 {
        world.deliver(&number.to_string(), "queued", 202);
        world.now += MINUTE;
    }
    world.state.see_hook(hook(), "", world.now - 12 * MINUTE, world.now);
    world.run_for(MINUTE);
    assert_eq!(world.count(is_listing), 2);
    assert_eq!(world.state.settled_until(&hook()), T0 + 999 * MINUTE);
    // And what is open is open still after the next.
    world.receiver_is_up = false;
    world.deliver("lost", "queued", 503);
    let at = world.now;
    world.run_for(3 * MINUTE);
    assert_eq!(world.state.settled_until(&hook()), at - 1);
}

#[test]
fn the_first_look_goes_back_as_far_as_configured() {
    let mut world = World::with(Settings { look_back_ms: 2 * HOUR, ..SETTINGS });
    world.page_size = 10;
    world.deliver("too old", "queued", 503);
    world.now += HOUR;
    for number in 0..180 {
        world.deliver(&number.to_string(), "queued", if number == 120 { 503 } else { 202 });
        world.now += MINUTE;
    }
    world.state.see_hook(hook(), "", 0, world.now);
    world.run_for(MINUTE);
    assert_eq!(world.redeliveries().iter().map(|(_, guid)| *guid).collect::<Vec<_>>(), ["120"]);
    assert_eq!(world.count(is_listing), 13);
}

#[test]
fn a_rate_limit_is_waited_out() {
    let mut world = World::new();
    world.denied = |_| Some(ErrorKind::RateLimited);
    world.see_both();
    world.run_for(5 * MINUTE - SECOND);
    assert_eq!(world.asked.len(), 1);
    world.denied = |_| None;
    world.run_for(2 * SECOND);
    assert!(world.asked.len() > 2, "{:?}", world.asked);
}

#[test]
fn an_error_of_github_is_waited_out_ever_longer() {
    let mut world = World::new();
    world.denied = |_| Some(ErrorKind::Server);
    world.see_both();
    world.run_for(6 * HOUR);
    assert!((40..=60).contains(&world.asked.len()), "{}", world.asked.len());
    assert_eq!(world.notes, []);
    world.denied = |_| None;
    world.run_for(16 * MINUTE);
    world.queue(REPOSITORY);
    world.run_for(2 * MINUTE);
    assert!(!world.found.is_empty());
}

#[test]
fn a_token_that_may_list_but_not_redeliver_is_told_of() {
    let mut world = World::new();
    world.denied = |ask| matches!(ask, Request::Redeliver { .. }).then_some(ErrorKind::Forbidden);
    world.see_both();
    for number in 0..10 {
        world.deliver(&number.to_string(), "queued", 503);
    }
    world.run_for(30 * MINUTE);
    assert_eq!((world.redeliveries().len(), world.notes.len()), (1, 1));
}

#[test]
fn a_quiet_repository_is_looked_at_less_often_until_there_is_news() {
    let mut world = World::new();
    world.state.see_repository(REPOSITORY, "", T0 - 25 * HOUR, T0);
    world.run_for(HOUR);
    assert_eq!(world.asked.len(), 2 * 6);
    world.state.see_repository(REPOSITORY, "", world.now, world.now);
    world.run_for(HOUR);
    assert_eq!(world.asked.len(), 2 * (6 + 60));
    world.run_for(9 * 24 * HOUR);
    let before = world.asked.len();
    world.run_for(HOUR);
    assert_eq!(world.asked.len(), before, "it is forgotten");
}
