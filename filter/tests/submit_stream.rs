//! The stream of submissions with a fake proxy and a fake sidecar: outages, refusals, limits.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    rc::Rc,
    time::Duration,
};

use edgerunner_filter::submit_stream::{Answered, Host, LIMITS, SubmitStream, Submitted};
use edgerunner_proto::v1::{Job, JobEvent, Outcome, Receipt, Reply, Submission};
use prost::Message as _;

const TIMEOUT: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(50);
const BUSY: u32 = 8;
const OTHER_RELEASE: u32 = 9;
const UNAVAILABLE: u32 = 14;
const DEADLINE: u32 = 4;

/// What the proxy was asked for.
#[derive(Default)]
struct Proxy {
    reachable: Cell<bool>,
    streams: Cell<u32>,
    opened: RefCell<Vec<u32>>,
    sent: RefCell<Vec<(u32, Submission)>>,
    cancelled: RefCell<Vec<u32>>,
    ticks_wanted: Cell<u32>,
    /// Sending fails although the stream is open.
    broken: Cell<bool>,
}

struct Shared(Rc<Proxy>);

impl Host for Shared {
    fn open(&self) -> Option<u32> {
        self.0.reachable.get().then(|| {
            self.0.streams.set(self.0.streams.get() + 1);
            self.0.opened.borrow_mut().push(self.0.streams.get());
            self.0.streams.get()
        })
    }

    fn send(&self, stream: u32, message: &[u8]) -> bool {
        if self.0.broken.get() {
            return false;
        }
        self.0.sent.borrow_mut().push((stream, Submission::decode(message).unwrap()));
        true
    }

    fn cancel(&self, stream: u32) {
        self.0.cancelled.borrow_mut().push(stream);
    }

    fn tick_soon(&self) {
        self.0.ticks_wanted.set(self.0.ticks_wanted.get() + 1);
    }
}

/// One worker. What waits for a reply is the number of its job.
struct Worker {
    proxy: Rc<Proxy>,
    stream: SubmitStream<Shared, u64>,
    now: Duration,
}

impl Worker {
    fn new() -> Self {
        let proxy = Rc::new(Proxy::default());
        let stream = SubmitStream::new(Shared(Rc::clone(&proxy)), TIMEOUT);
        Self { proxy, stream, now: Duration::ZERO }
    }

    /// With an open stream.
    fn connected() -> Self {
        let mut worker = Self::new();
        worker.proxy.reachable.set(true);
        worker.submit(0).unwrap();
        worker.connect();
        worker.reply(0);
        worker
    }

    fn submit(&mut self, job: u64) -> Option<Submitted> {
        self.submit_large(job, 1_000)
    }

    fn submit_large(&mut self, job: u64, body_bytes: u64) -> Option<Submitted> {
        let event =
            JobEvent { job: Some(Job { id: job, ..Job::default() }), ..JobEvent::default() };
        self.stream.submit(event, format!("trace-{job}"), self.now, body_bytes, job)
    }

    fn tick(&mut self) -> Vec<Answered<u64>> {
        self.now += TICK;
        self.stream.tick(self.now)
    }

    fn tick_for(&mut self, time: Duration) -> Vec<Answered<u64>> {
        let end = self.now + time;
        let mut answered = Vec::new();
        while self.now < end {
            answered.extend(self.tick());
        }
        answered
    }

    /// Ticks until a stream is being opened, and opens it. Nothing may time out.
    fn connect(&mut self) -> u32 {
        let before = self.proxy.streams.get();
        for _ in 0..10 {
            assert_eq!(self.tick(), []);
            if self.proxy.streams.get() > before {
                self.open(before + 1);
                return before + 1;
            }
        }
        panic!("no stream was opened");
    }

    fn open(&mut self, stream: u32) {
        let wanted = self.proxy.ticks_wanted.get();
        let sent = self.proxy.sent.borrow().len();
        self.stream.opened(stream);
        // The proxy would call back while it is still in this call.
        assert_eq!(self.proxy.sent.borrow().len(), sent);
        assert!(self.proxy.ticks_wanted.get() > wanted);
        assert_eq!(self.stream.tick(self.now), []);
    }

    /// Jobs in the order in which they were sent since the last call.
    fn sent(&self) -> Vec<u64> {
        let sent = std::mem::take(&mut *self.proxy.sent.borrow_mut());
        sent.into_iter().map(|(_, sent)| sent.event.unwrap().job.unwrap().id).collect()
    }

    fn token(&self, job: u64) -> u64 {
        let sent = self.proxy.sent.borrow();
        let of_job = |sent: &&(u32, Submission)| {
            sent.1.event.as_ref().unwrap().job.as_ref().unwrap().id == job
        };
        sent.iter().rev().find(of_job).unwrap().1.token
    }

    fn reply_with(
        &mut self,
        job: u64,
        status: u32,
        receipt: Option<Receipt>,
    ) -> Option<Answered<u64>> {
        let token = self.token(job);
        self.stream.replied(Reply { token, status, receipt })
    }

    fn reply(&mut self, job: u64) -> Answered<u64> {
        let answered = self.reply_with(job, 0, Some(Receipt::default())).unwrap();
        assert_eq!(answered.waiting, job);
        answered
    }
}

fn ends(answered: &[Answered<u64>]) -> Vec<(u64, Result<(), u32>)> {
    answered.iter().map(|it| (it.waiting, it.result.as_ref().map(drop).map_err(|it| *it))).collect()
}

#[test]
fn over_an_open_stream_a_submission_is_sent_at_once() {
    let mut worker = Worker::connected();
    worker.sent();
    let submitted = worker.submit(1).unwrap();
    assert!(!submitted.held);
    let (stream, submission) = worker.proxy.sent.borrow()[0].clone();
    assert_eq!((stream, submission.token), (1, submitted.token));
    assert_eq!(submission.traceparent, "trace-1");
    assert!(!worker.reply(1).held);
    assert!(!worker.stream.is_waiting());
}

#[test]
fn what_comes_before_the_way_to_the_sidecar_is_open_is_held_and_sent_in_order() {
    let mut worker = Worker::new();
    for job in 1..=5 {
        assert!(worker.submit(job).unwrap().held);
    }
    assert!(worker.proxy.ticks_wanted.get() > 0);
    assert_eq!(worker.tick_for(Duration::from_secs(3)), []);
    assert!(worker.stream.is_waiting());
    worker.proxy.reachable.set(true);
    worker.connect();
    // One first; then as many more as there were replies.
    assert_eq!(worker.sent(), [1]);
    let first = worker.stream.replied(Reply { token: 1, status: 0, receipt: None }).unwrap();
    assert_eq!((first.waiting, first.held, first.result), (1, true, Ok(Receipt::default())));
    assert_eq!(worker.sent(), [2, 3]);
    worker.stream.replied(Reply { token: 2, status: 0, receipt: None }).unwrap();
    assert_eq!(worker.sent(), [4, 5]);
}

#[test]
fn a_restart_of_the_sidecar_is_survived_by_what_was_sent_and_by_what_was_not() {
    let mut worker = Worker::connected();
    worker.submit(1);
    worker.submit(2);
    worker.proxy.reachable.set(false);
    assert_eq!(worker.stream.closed(1, 0), []);
    worker.submit(3);
    assert_eq!(worker.tick_for(Duration::from_secs(3)), []);
    worker.proxy.reachable.set(true);
    worker.sent();
    worker.connect();
    // The sidecar had stored the first one, and nobody knew.
    let receipt = Receipt { pool: "default".to_owned(), ..Receipt::default() };
    let mut duplicate = receipt.clone();
    duplicate.set_outcome(Outcome::Duplicate);
    let first = worker.reply_with(1, 0, Some(duplicate)).unwrap();
    assert_eq!((first.held, first.result), (true, Ok(receipt)));
    worker.reply(2);
    worker.reply(3);
    assert_eq!(worker.sent(), [1, 2, 3]);
}

#[test]
fn a_redelivery_that_was_sent_once_is_a_duplicate() {
    let mut worker = Worker::connected();
    worker.submit(1);
    let mut receipt = Receipt::default();
    receipt.set_outcome(Outcome::Duplicate);
    let answered = worker.reply_with(1, 0, Some(receipt.clone())).unwrap();
    assert_eq!(answered.result, Ok(receipt));
}

#[test]
fn without_a_way_to_the_sidecar_each_is_unavailable_at_the_end_of_its_own_time() {
    let mut worker = Worker::new();
    worker.submit(1);
    worker.tick_for(Duration::from_secs(1));
    worker.submit(2);
    assert_eq!(worker.tick_for(Duration::from_millis(3_950)), []);
    assert_eq!(ends(&worker.tick()), [(1, Err(UNAVAILABLE))]);
    assert_eq!(worker.tick_for(Duration::from_millis(950)), []);
    assert_eq!(ends(&worker.tick()), [(2, Err(UNAVAILABLE))]);
    assert!(!worker.stream.is_waiting());
}

#[test]
fn time_begins_with_the_arrival() {
    let mut worker = Worker::new();
    worker.tick_for(Duration::from_secs(4));
    let arrived = Duration::from_secs(1);
    worker.stream.submit(JobEvent::default(), String::new(), arrived, 0, 1);
    assert_eq!(worker.tick_for(Duration::from_millis(1_950)), []);
    assert_eq!(ends(&worker.tick()), [(1, Err(UNAVAILABLE))]);
}

#[test]
fn no_more_are_held_than_the_limits_allow() {
    let mut worker = Worker::new();
    for job in 1..=LIMITS.count as u64 {
        assert!(worker.submit(job).is_some());
    }
    assert_eq!(worker.submit(0), None);
    worker.stream.cancel(1);
    assert!(worker.submit(0).is_some());

    let mut worker = Worker::new();
    let large = 25 * 1024 * 1024;
    assert!(worker.submit_large(1, large).is_some());
    assert!(worker.submit_large(2, large).is_some());
    assert_eq!(worker.submit_large(3, large), None);
    assert!(worker.submit(4).is_some());
}

#[test]
fn a_request_whose_client_has_gone_is_not_sent() {
    let mut worker = Worker::new();
    let first = worker.submit(1).unwrap();
    worker.submit(2);
    worker.stream.cancel(first.token);
    worker.proxy.reachable.set(true);
    worker.connect();
    assert_eq!(worker.sent(), [2]);
    let late = Reply { token: first.token, status: 0, receipt: None };
    assert_eq!(worker.stream.replied(late), None);
}

#[test]
fn nothing_is_opened_without_need() {
    let mut worker = Worker::new();
    worker.proxy.reachable.set(true);
    worker.tick_for(TIMEOUT);
    assert_eq!(worker.proxy.streams.get(), 0);
    let mut worker = Worker::connected();
    assert_eq!(worker.stream.closed(1, 0), []);
    worker.tick_for(TIMEOUT);
    assert_eq!(worker.proxy.streams.get(), 1);
}

#[test]
fn a_sidecar_that_hangs_for_a_while_is_waited_for() {
    let mut worker = Worker::connected();
    worker.submit(1);
    assert_eq!(worker.tick_for(Duration::from_secs(3)), []);
    worker.reply(1);
    assert_eq!(worker.proxy.cancelled.borrow().len(), 0);
}

#[test]
fn what_is_behind_a_reply_that_is_overdue_is_sent_again_on_another_stream() {
    let mut worker = Worker::connected();
    worker.submit(1);
    worker.tick_for(Duration::from_secs(3));
    worker.submit(2);
    let answered = worker.tick_for(Duration::from_secs(2));
    assert_eq!(ends(&answered), [(1, Err(DEADLINE))]);
    assert_eq!(*worker.proxy.cancelled.borrow(), [1]);
    worker.sent();
    worker.connect();
    assert_eq!(worker.sent(), [2]);
}

#[test]
fn a_stream_that_does_not_open_is_given_up() {
    let mut worker = Worker::new();
    worker.proxy.reachable.set(true);
    worker.submit(1);
    assert_eq!(worker.tick_for(Duration::from_millis(2_200)), []);
    assert_eq!(*worker.proxy.cancelled.borrow(), [1]);
    // Its late opening is not of interest.
    worker.stream.opened(1);
    assert_eq!(worker.stream.tick(worker.now), []);
    assert!(worker.sent().is_empty());
    worker.open(2);
    assert_eq!(worker.sent(), [1]);
}

#[test]
fn a_sidecar_that_is_busy_gets_it_later() {
    let mut worker = Worker::connected();
    worker.submit(1);
    assert_eq!(worker.reply_with(1, BUSY, None), None);
    worker.sent();
    worker.submit(2);
    worker.tick();
    assert!(worker.sent().is_empty());
    assert_eq!(worker.tick_for(Duration::from_millis(500)), []);
    assert_eq!(worker.sent(), [1]);
    // It still is.
    worker.stream.replied(Reply { token: 2, status: BUSY, receipt: None });
    let answered = refuse_all(&mut worker, BUSY);
    assert_eq!(ends(&answered)[0], (1, Err(BUSY)));
    assert_eq!(answered.len(), 2);
    assert_eq!(worker.proxy.streams.get(), 1);
}

/// Replies with this status to whatever is sent, for as long as a submission may take.
fn refuse_all(worker: &mut Worker, status: u32) -> Vec<Answered<u64>> {
    let mut answered = Vec::new();
    for _ in 0..100 {
        answered.extend(worker.tick());
        for stream in std::mem::take(&mut *worker.proxy.opened.borrow_mut()) {
            worker.stream.opened(stream);
        }
        for (_, sent) in std::mem::take(&mut *worker.proxy.sent.borrow_mut()) {
            let reply = Reply { token: sent.token, status, receipt: None };
            assert_eq!(worker.stream.replied(reply), None);
        }
    }
    answered
}

#[test]
fn a_sidecar_that_cannot_store_is_left_for_another_one() {
    let mut worker = Worker::connected();
    worker.submit(1);
    worker.submit(2);
    worker.submit(3);
    let wanted = worker.proxy.ticks_wanted.get();
    assert_eq!(worker.reply_with(1, UNAVAILABLE, None), None);
    // The proxy does not permit that a stream is ended while it reports its reply.
    assert_eq!(worker.proxy.cancelled.borrow().len(), 0);
    assert!(worker.proxy.ticks_wanted.get() > wanted);
    // It had stored this one before.
    worker.reply(2);
    assert_eq!(worker.tick(), []);
    assert_eq!(*worker.proxy.cancelled.borrow(), [1]);
    worker.sent();
    assert_eq!(worker.connect(), 2);
    assert_eq!(worker.sent(), [1]);
    // The first sidecar had stored it, and lost its store before it knew.
    let mut duplicate = Receipt::default();
    duplicate.set_outcome(Outcome::Duplicate);
    let token = Reply { token: 2, status: 0, receipt: Some(duplicate) };
    let answered = worker.stream.replied(token).unwrap();
    assert_eq!((answered.waiting, answered.result), (1, Ok(Receipt::default())));
    worker.reply(3);
    assert_eq!(worker.proxy.cancelled.borrow().len(), 1);
}

#[test]
fn if_no_sidecar_can_store_each_is_unavailable_at_the_end_of_its_time() {
    let mut worker = Worker::connected();
    worker.submit(1);
    let answered = refuse_all(&mut worker, UNAVAILABLE);
    assert_eq!(ends(&answered), [(1, Err(UNAVAILABLE))]);
    // Another stream for each attempt, and no more.
    assert!((5..=12).contains(&worker.proxy.streams.get()), "{}", worker.proxy.streams.get());
}

#[test]
fn an_event_that_the_sidecar_rejects_is_not_repeated() {
    let mut worker = Worker::connected();
    worker.submit(1);
    let answered = worker.reply_with(1, 3, None).unwrap();
    assert_eq!(ends(&[answered]), [(1, Err(3))]);
}

#[test]
fn another_release_is_reported_at_once() {
    let mut worker = Worker::new();
    worker.proxy.reachable.set(true);
    worker.submit(1);
    worker.submit(2);
    worker.tick();
    let answered = worker.stream.closed(1, OTHER_RELEASE);
    assert_eq!(ends(&answered), [(1, Err(OTHER_RELEASE)), (2, Err(OTHER_RELEASE))]);
}

#[test]
fn a_submission_that_ends_every_stream_is_given_up_and_the_others_go_on() {
    const POISON: u64 = 7;
    let mut worker = Worker::connected();
    for job in 1..=12 {
        worker.submit(job);
    }
    let mut stored = Vec::new();
    let mut failed = Vec::new();
    for _ in 0..100 {
        let sent = std::mem::take(&mut *worker.proxy.sent.borrow_mut());
        let job = |sent: &Submission| sent.event.as_ref().unwrap().job.as_ref().unwrap().id;
        // What is read together is lost together.
        if sent.iter().any(|(_, sent)| job(sent) == POISON) {
            let stream = worker.proxy.streams.get();
            failed.extend(ends(&worker.stream.closed(stream, 2)));
            if worker.stream.is_waiting() {
                worker.connect();
            }
            continue;
        }
        for (_, submission) in sent {
            let reply = Reply { token: submission.token, status: 0, receipt: None };
            stored.extend(worker.stream.replied(reply).map(|it| it.waiting));
        }
    }
    assert_eq!(failed, [(POISON, Err(UNAVAILABLE))]);
    assert_eq!(stored, [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]);
    assert!(worker.now < TIMEOUT);
}

#[test]
fn a_stream_that_ended_unnoticed_is_replaced() {
    let mut worker = Worker::connected();
    worker.proxy.broken.set(true);
    assert!(worker.submit(1).unwrap().held);
    worker.proxy.broken.set(false);
    worker.sent();
    worker.connect();
    assert_eq!(worker.sent(), [1]);
}

#[test]
fn events_of_an_earlier_stream_change_nothing() {
    let mut worker = Worker::connected();
    worker.stream.closed(1, 0);
    worker.submit(1);
    worker.connect();
    assert_eq!(worker.stream.closed(1, 0), []);
    worker.stream.opened(1);
    worker.reply(1);
    worker.submit(2);
    worker.reply(2);
    assert_eq!(worker.proxy.streams.get(), 2);
}

/// A steady load while the sidecar is killed, terminated and frozen at random, each time for up to
/// three seconds.
#[test]
fn no_outage_of_three_seconds_is_noticed() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut worker = Worker::new();
        let mut stored = HashSet::new();
        let (mut jobs, mut accepted) = (0, 0);
        let (mut down_until, mut frozen_until) = (Duration::ZERO, Duration::ZERO);
        for round in 0..500 {
            if round < 300 {
                for _ in 0..random.below(5) {
                    jobs += 1;
                    worker.submit(jobs).unwrap();
                }
            }
            let well_since = down_until.max(frozen_until) + Duration::from_secs(1);
            if round < 300 && random.below(40) == 0 && worker.now >= well_since {
                let until = worker.now + Duration::from_millis(random.below(3_000));
                if random.below(3) == 0 {
                    frozen_until = until;
                } else {
                    down_until = until;
                    // Some were stored, and their replies are lost.
                    for (_, sent) in std::mem::take(&mut *worker.proxy.sent.borrow_mut()) {
                        if random.below(2) == 0 {
                            stored.insert(sent.token);
                        }
                    }
                    let status = [0, 14, 2][random.below(3) as usize];
                    assert_eq!(worker.stream.closed(worker.proxy.streams.get(), status), []);
                }
            }
            worker.proxy.reachable.set(worker.now >= down_until);
            assert_eq!(worker.tick(), [], "seed {seed}");
            if worker.proxy.reachable.get() && worker.now >= frozen_until {
                accepted += serve(&mut worker, &mut stored, seed);
            }
        }
        assert_eq!((accepted, stored.len() as u64), (jobs, jobs), "seed {seed}");
    }
}

/// Stores and answers all that was sent. Returns how many were accepted.
fn serve(worker: &mut Worker, stored: &mut HashSet<u64>, seed: u64) -> u64 {
    for stream in std::mem::take(&mut *worker.proxy.opened.borrow_mut()) {
        worker.stream.opened(stream);
    }
    assert_eq!(worker.stream.tick(worker.now), [], "seed {seed}");
    let mut accepted = 0;
    loop {
        let sent = std::mem::take(&mut *worker.proxy.sent.borrow_mut());
        if sent.is_empty() {
            return accepted;
        }
        for (_, Submission { token, .. }) in sent {
            let fresh = stored.insert(token);
            let mut receipt = Receipt::default();
            receipt.set_outcome(if fresh { Outcome::Stored } else { Outcome::Duplicate });
            let reply = Reply { token, status: 0, receipt: Some(receipt) };
            if let Some(answered) = worker.stream.replied(reply) {
                let outcome = answered.result.unwrap().outcome();
                assert_eq!(outcome, Outcome::Stored, "seed {seed}");
                accepted += 1;
            }
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
