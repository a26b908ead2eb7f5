//! Missed webhooks against a small model of GitHub, in simulated time.

use std::collections::{BTreeMap, HashMap};

use super::*;

/// Wall time at the start; the monotonic clock begins at 0.
const T0: UnixMs = 1_700_000_000_000;
/// Milliseconds.
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

const SETTINGS: Settings = Settings {
    interval: Duration::from_millis(MINUTE),
    look_back: Duration::from_millis(24 * HOUR),
    share: 0.2,
};
/// A job younger than this may still have a webhook in transit.
const IN_TRANSIT: u64 = MINUTE / 4;
const REPOSITORY: &str = "acme/app";

fn webhook() -> WebhookId {
    "orgs/acme/hooks/1".parse().unwrap()
}

/// A GitHub, and the requests that were sent to it.
struct World {
    state: State,
    /// Wall time of GitHub, and of the sidecar unless its clock was set.
    now: UnixMs,
    /// How far the sidecar's clock was set forward.
    clock_step: i64,
    /// Oldest first.
    deliveries: Vec<DeliveryAttempt>,
    /// Queued jobs of each repository: since when, each in its own run.
    queued: BTreeMap<String, Vec<UnixMs>>,
    page_size: usize,
    /// Whether a redelivery gets through.
    receiver_is_up: bool,
    denied: fn(&Request) -> Option<ErrorKind>,
    limit: RateLimit,
    /// The last response to each request, for ETags.
    etags: HashMap<String, String>,
    requests: Vec<(UnixMs, Request)>,
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
            clock_step: 0,
            deliveries: Vec::new(),
            queued: BTreeMap::new(),
            page_size: 100,
            receiver_is_up: true,
            denied: |_| None,
            limit: RateLimit { limit: 5_000, remaining: 5_000, reset: (T0 + HOUR) / 1000 },
            etags: HashMap::new(),
            requests: Vec::new(),
            spent: 0,
            found: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The sidecar's clocks.
    fn moment(&self) -> Moment {
        Moment {
            instant: Instant::from_millis((self.now - T0) as i64),
            wall: self.now.saturating_add_signed(self.clock_step),
        }
    }

    fn watch_webhook(&mut self, read_until: UnixMs) {
        let now = self.moment().instant;
        self.state.watch_webhook(webhook(), "", read_until, now);
    }

    fn watch_repository(&mut self, repository: &str, last_event: UnixMs) {
        let now = self.moment();
        self.state.watch_repository(repository, "", Some(last_event), now);
    }

    fn watch_both(&mut self) {
        self.watch_webhook(0);
        self.watch_repository(REPOSITORY, self.moment().wall);
    }

    fn deliver(&mut self, guid: &str, action: &str, status: u16) {
        self.deliveries.push(DeliveryAttempt {
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
            let now = self.moment();
            match self.state.next(now) {
                Next::WaitUntil(until) => {
                    let wait = until.duration_since(now.instant).as_millis() as u64;
                    self.now = (self.now + wait.max(1)).min(end);
                }
                Next::Request(request) => {
                    let outcome = self.answer(&request);
                    let free = outcome.as_ref().is_ok_and(Response::is_free);
                    self.spent += u64::from(!free);
                    if self.now >= self.limit.reset * 1000 {
                        self.limit.remaining = self.limit.limit;
                        self.limit.reset += HOUR / 1000;
                    }
                    self.limit.remaining -= u64::from(!free);
                    self.requests.push((self.now, request.clone()));
                    let now = self.moment();
                    self.state.record_outcome(&request, outcome, Some(self.limit), now);
                }
            }
            self.notes.extend(self.state.take_notes());
        }
    }

    fn answer(&mut self, request: &Request) -> Result<Response, RequestError> {
        if let Some(kind) = (self.denied)(request) {
            return Err(RequestError { kind, message: "no".into() });
        }
        Ok(match request {
            Request::Deliveries { page, .. } => {
                let items: Vec<_> = self.deliveries.iter().rev().cloned().collect();
                Response::Deliveries(self.page(request, items, page.as_deref()))
            }
            Request::Redeliver { delivery, .. } => {
                let event = self.deliveries[*delivery as usize - 1].clone();
                let status = if self.receiver_is_up { 202 } else { 502 };
                self.deliver(&event.guid, &event.action, status);
                Response::Redelivering
            }
            Request::Runs { repository, status, page } => {
                let queued = self.queued.get(repository).map_or(0, Vec::len) as u64;
                let queued = if *status == RunStatus::Queued { queued } else { 0 };
                let runs: Vec<Run> = (1..=queued).map(|id| Run { id, origin: None }).collect();
                Response::Runs(self.page(request, runs, page.as_deref()))
            }
            Request::Jobs { repository, run, page } => {
                let since = self.queued[repository][run.id as usize - 1];
                // As the watcher does.
                if since + IN_TRANSIT <= self.now {
                    self.found.push(self.now - since);
                }
                let page = self.page(request, vec![since], page.as_deref());
                Response::Jobs(Page { items: vec![], next: page.next, unchanged: page.unchanged })
            }
        })
    }

    fn page<T: Clone + std::fmt::Debug>(
        &mut self,
        request: &Request,
        all: Vec<T>,
        page: Option<&str>,
    ) -> Page<T> {
        let first: usize = page.map_or(0, |page| page.parse().unwrap());
        let end = all.len().min(first + self.page_size);
        let next = (end < all.len()).then(|| end.to_string());
        let items = all[first..end].to_vec();
        let etag = format!("{items:?} {next:?}");
        let unchanged = self.etags.insert(format!("{request:?}"), etag.clone()) == Some(etag);
        Page { items, next, unchanged }
    }

    fn redeliveries(&self) -> Vec<(UnixMs, &str)> {
        let requests = self.requests.iter().filter_map(|(at, request)| match request {
            Request::Redeliver { guid, .. } => Some((*at, guid.as_str())),
            _ => None,
        });
        requests.collect()
    }

    fn count(&self, what: fn(&Request) -> bool) -> usize {
        self.requests.iter().filter(|(_, request)| what(request)).count()
    }
}

fn is_listing(request: &Request) -> bool {
    matches!(request, Request::Deliveries { .. })
}

#[test]
fn a_failed_webhook_is_requested_again_within_two_minutes() {
    let mut world = World::new();
    world.watch_both();
    world.deliver("before", "queued", 202);
    world.run_for(HOUR + 17 * SECOND);
    let at = world.now;
    world.deliver("lost", "queued", 503);
    world.run_for(2 * MINUTE);
    let [(requested_at, "lost")] = world.redeliveries()[..] else { panic!("{:?}", world.requests) };
    println!("requested after {} s; {} requests spent", (requested_at - at) / SECOND, world.spent);
    assert!(requested_at - at <= 2 * MINUTE);
    // Only once.
    world.run_for(HOUR);
    assert_eq!(world.redeliveries().len(), 1);
    assert_eq!(world.notes, []);
    assert!(world.count(is_listing) >= 120);
    // The two lists of runs once, the deliveries whenever they changed, and the redelivery.
    assert!(world.spent <= 6, "{}", world.spent);
}

#[test]
fn a_job_without_a_webhook_is_found_within_two_minutes() {
    let mut world = World::new();
    // Its webhook cannot be listed.
    world.denied = |request| is_listing(request).then_some(ErrorKind::Forbidden);
    world.watch_both();
    world.run_for(HOUR + 17 * SECOND);
    world.queue(REPOSITORY);
    world.run_for(2 * MINUTE);
    println!("found after {} s; {} requests spent", world.found[0] / SECOND, world.spent);
    assert!(world.found[0] <= 2 * MINUTE);
    let [Note::Denied { what, .. }] = &world.notes[..] else { panic!("{:?}", world.notes) };
    assert_eq!(*what, Denied::Deliveries(webhook()));
    // A denied request is repeated once an hour.
    world.run_for(3 * HOUR);
    assert_eq!((world.count(is_listing), world.notes.len()), (5, 1));
}

#[test]
fn a_busy_installation_polls_everything_within_its_share() {
    let mut world = World::new();
    world.watch_webhook(0);
    for number in 0..100 {
        let repository = format!("acme/{number}");
        world.watch_repository(&repository, T0);
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
    let exhausted =
        world.notes.iter().filter(|note| matches!(note, Note::BudgetExhausted { .. })).count();
    assert_eq!((exhausted, world.notes.len()), (1, 1));
    let (_, budget) = world.state.budgets().next().unwrap();
    assert_eq!((budget.allowed(), budget.exhausted()), (1_000, true));

    let before = world.spent;
    world.run_for(HOUR);
    assert!(world.spent - before <= 1_001, "{}", world.spent - before);
}

#[test]
fn the_completion_of_a_job_is_redelivered_before_its_queueing() {
    let mut world = World::new();
    world.watch_both();
    for (guid, action) in [("first", "queued"), ("second", "in_progress"), ("third", "completed")] {
        world.deliver(guid, action, 503);
        world.now += SECOND;
    }
    world.run_for(MINUTE);
    let order: Vec<_> = world.redeliveries().iter().map(|(_, guid)| *guid).collect();
    assert_eq!(order, ["third", "second", "first"]);
}

#[test]
fn an_event_that_never_gets_through_is_given_up() {
    let mut world = World::new();
    world.watch_both();
    world.receiver_is_up = false;
    world.deliver("lost", "queued", 504);
    world.run_for(6 * HOUR);
    let at: Vec<_> = world.redeliveries().iter().map(|(at, _)| (at - T0) / MINUTE).collect();
    assert_eq!(at, [0, 2, 6, 14, 30, 62]);
    assert_eq!(world.notes, [Note::GaveUp { webhook: webhook(), guid: "lost".into() }]);
    assert!(world.state.settled_until(&webhook()) > T0 + HOUR);
}

#[test]
fn deliveries_that_were_rejected_on_purpose_or_are_irrelevant_are_left_alone() {
    let mut world = World::new();
    world.watch_both();
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
fn a_list_whose_reading_broke_off_is_read_again_though_its_first_page_has_not_changed() {
    let mut world = World::new();
    world.page_size = 10;
    world.deliver("lost", "queued", 503);
    for number in 0..15 {
        world.deliver(&number.to_string(), "queued", 202);
    }
    // The cursor of the second page is refused.
    world.denied = |request| {
        let second = matches!(request, Request::Deliveries { page: Some(_), .. });
        second.then_some(ErrorKind::Invalid)
    };
    world.watch_webhook(0);
    world.run_for(5 * MINUTE);
    assert_eq!(world.redeliveries(), []);
    assert_eq!(world.state.settled_until(&webhook()), 0);
    world.denied = |_| None;
    world.run_for(20 * MINUTE);
    assert_eq!(world.redeliveries().len(), 1);
}

#[test]
fn a_slow_delivery_is_found_behind_newer_ones() {
    let mut world = World::new();
    world.watch_both();
    world.deliver("new", "queued", 202);
    world.run_for(MINUTE);
    world.deliver("slow", "queued", 504);
    world.deliveries[1].at = T0 - 30 * SECOND;
    world.run_for(2 * MINUTE);
    assert_eq!(world.redeliveries().len(), 1);
}

#[test]
fn a_wrong_secret_or_a_missing_response_is_retried() {
    let mut world = World::new();
    world.watch_both();
    for status in [0, 401, 404, 500, 502, 503, 504] {
        world.deliver(&status.to_string(), "queued", status);
    }
    world.run_for(MINUTE);
    assert_eq!(world.redeliveries().len(), 7);
}

#[test]
fn a_restart_continues_where_the_last_process_stopped() {
    let mut world = World::new();
    world.page_size = 10;
    for number in 0..1_000 {
        world.deliver(&number.to_string(), "queued", 202);
        world.now += MINUTE;
    }
    world.watch_webhook(world.now - 12 * MINUTE);
    world.run_for(MINUTE);
    assert_eq!(world.count(is_listing), 2);
    assert_eq!(world.state.settled_until(&webhook()), T0 + 999 * MINUTE);
    // A failed delivery stays open.
    world.receiver_is_up = false;
    world.deliver("lost", "queued", 503);
    let at = world.now;
    world.run_for(3 * MINUTE);
    assert_eq!(world.state.settled_until(&webhook()), at - 1);
}

#[test]
fn the_first_poll_goes_back_as_far_as_configured() {
    let mut world =
        World::with(Settings { look_back: Duration::from_millis(2 * HOUR), ..SETTINGS });
    world.page_size = 10;
    world.deliver("too old", "queued", 503);
    world.now += HOUR;
    for number in 0..180 {
        world.deliver(&number.to_string(), "queued", if number == 120 { 503 } else { 202 });
        world.now += MINUTE;
    }
    world.watch_webhook(0);
    world.run_for(MINUTE);
    assert_eq!(world.redeliveries().iter().map(|(_, guid)| *guid).collect::<Vec<_>>(), ["120"]);
    assert_eq!(world.count(is_listing), 13);
}

#[test]
fn a_rate_limit_is_waited_out() {
    let mut world = World::new();
    world.denied = |_| Some(ErrorKind::RateLimited { retry_after: Some(Duration::from_secs(300)) });
    world.watch_both();
    world.run_for(5 * MINUTE - SECOND);
    assert_eq!(world.requests.len(), 1);
    world.denied = |_| None;
    world.run_for(2 * SECOND);
    assert!(world.requests.len() > 2, "{:?}", world.requests);
}

#[test]
fn errors_of_github_are_retried_at_growing_intervals() {
    let mut world = World::new();
    world.denied = |_| Some(ErrorKind::Other);
    world.watch_both();
    world.run_for(6 * HOUR);
    assert!((40..=60).contains(&world.requests.len()), "{}", world.requests.len());
    assert_eq!(world.notes, []);
    world.denied = |_| None;
    world.run_for(16 * MINUTE);
    world.queue(REPOSITORY);
    world.run_for(2 * MINUTE);
    assert!(!world.found.is_empty());
}

#[test]
fn a_token_that_may_list_but_not_redeliver_is_reported_once() {
    let mut world = World::new();
    world.denied =
        |request| matches!(request, Request::Redeliver { .. }).then_some(ErrorKind::Forbidden);
    world.watch_both();
    for number in 0..10 {
        world.deliver(&number.to_string(), "queued", 503);
    }
    world.run_for(30 * MINUTE);
    assert_eq!((world.redeliveries().len(), world.notes.len()), (1, 1));
}

#[test]
fn a_quiet_repository_is_polled_less_often_until_its_next_event() {
    let mut world = World::new();
    world.watch_repository(REPOSITORY, T0 - 25 * HOUR);
    world.run_for(HOUR);
    assert_eq!(world.requests.len(), 2 * 6);
    world.watch_repository(REPOSITORY, world.now);
    world.run_for(HOUR);
    assert_eq!(world.requests.len(), 2 * (6 + 60));
    world.run_for(9 * 24 * HOUR);
    let before = world.requests.len();
    world.run_for(HOUR);
    assert_eq!(world.requests.len(), before, "it is forgotten");
}

#[test]
fn setting_the_clock_neither_delays_nor_hurries_anything() {
    let rates = [0, 1, -1].map(|hours: i64| {
        let mut world = World::new();
        world.watch_both();
        world.run_for(HOUR);
        world.clock_step = hours * HOUR as i64;
        let before = world.requests.len();
        world.run_for(HOUR);
        let requests = world.requests.len() - before;
        world.deliver("lost", "queued", 503);
        world.run_for(2 * MINUTE);
        assert_eq!(world.redeliveries().len(), 1, "{hours} h");
        requests
    });
    assert_eq!(rates, [rates[0]; 3]);

    // A limit that GitHub set is waited out, not more and not less.
    for hours in [1, -1] {
        let mut world = World::new();
        world.denied =
            |_| Some(ErrorKind::RateLimited { retry_after: Some(Duration::from_secs(300)) });
        world.watch_both();
        world.run_for(SECOND);
        world.clock_step = hours * HOUR as i64;
        world.run_for(5 * MINUTE - 2 * SECOND);
        assert_eq!(world.requests.len(), 1, "{hours} h");
        world.run_for(2 * SECOND);
        assert!(world.requests.len() > 1, "{hours} h");
    }
}
