//! A worker's stream to the sidecar, over which it submits events. A call for each event would
//! cost Envoy more than the rest of the delivery; on a stream it is one message each way.
//!
//! Deliveries that cannot be sent are held, and sent in order of arrival once there is a stream:
//! GitHub does not repeat a delivery that was answered with 503. An event may be sent twice,
//! since the sidecar stores each delivery id once.

use std::time::Duration;

use edgerunner_proto::v1::{JobEvent, Outcome, Receipt, Reply, Submission};
use prost::Message as _;

use crate::{
    delivery::{
        GRPC_DEADLINE_EXCEEDED, GRPC_FAILED_PRECONDITION, GRPC_NOT_FOUND, GRPC_OK,
        GRPC_PERMISSION_DENIED, GRPC_RESOURCE_EXHAUSTED, GRPC_UNAUTHENTICATED, GRPC_UNAVAILABLE,
        GRPC_UNIMPLEMENTED,
    },
    unanswered::{Entry, Limits, Unanswered},
};

/// Time between attempts to open a stream.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Time before the next submission to a sidecar that cannot take any, or to another one if the last
/// two could not.
const BUSY_DELAY: Duration = Duration::from_millis(500);
/// A stream that is not open by then is given up: its connection may be dead.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// A submission that has ended this many streams, each with nothing else on it, is sent once
/// more, and then no longer: it must not keep the others from the sidecar.
const FAILURES_MAX: u8 = 1;

/// Of one worker. Further deliveries are answered 503 at once.
pub const LIMITS: Limits = Limits { count: 1_024, bytes: 64 * 1024 * 1024 };

/// What the stream needs from the proxy.
pub trait Host {
    /// Opens a stream, which may take a while. `None` if there is no way to the sidecar.
    fn open(&self) -> Option<u32>;
    /// `false` if the stream has ended.
    fn send(&self, stream: u32, message: &[u8]) -> bool;
    fn cancel(&self, stream: u32);
    /// Asks for a tick as soon as possible.
    fn tick_soon(&self);
}

/// `T` is whatever waits for a reply.
pub struct SubmitStream<H, T> {
    host: H,
    state: State,
    /// For a delivery, from its arrival to its answer.
    timeout: Duration,
    now: Duration,
    unanswered: Unanswered<T>,
    /// Submissions that may be in flight. One at first, twice as many with each reply, so that a
    /// submission that ends streams is found.
    window: usize,
    paused_until: Duration,
    /// The sidecar of the open stream cannot store events: the next tick ends the stream, so that
    /// Envoy may open one to another sidecar.
    leaving: bool,
    /// There was no other reply since a sidecar was left: perhaps there is no better one.
    left: bool,
}

#[derive(Clone, Copy)]
enum State {
    Closed { reopen_at: Duration },
    Opening { stream: u32, since: Duration },
    Open { stream: u32 },
}

/// A delivery that was taken, until there is a reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Submitted {
    pub token: u64,
    /// It could not be sent at once.
    pub held: bool,
}

/// The end of a submission.
#[derive(Debug, PartialEq)]
pub struct Answered<T> {
    pub waiting: T,
    /// It could not be sent at once, or had to be sent again.
    pub held: bool,
    /// The sidecar's receipt, or a gRPC status other than OK.
    pub result: Result<Receipt, u32>,
}

impl<H: Host, T> SubmitStream<H, T> {
    pub fn new(host: H, timeout: Duration) -> Self {
        Self {
            host,
            state: State::Closed { reopen_at: Duration::ZERO },
            timeout,
            now: Duration::ZERO,
            unanswered: Unanswered::new(LIMITS),
            window: 1,
            paused_until: Duration::ZERO,
            leaving: false,
            left: false,
        }
    }

    /// Time since the start, as of the last tick.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Whether something waits that only a tick can send.
    pub fn is_waiting(&self) -> bool {
        self.unanswered.has_unsent()
    }

    /// `None` if too many are waiting. `waiting` is returned with the reply, or when there will
    /// be none. `arrived` is when its time began, and `body_bytes` what the proxy keeps in memory
    /// for it.
    pub fn submit(
        &mut self,
        event: JobEvent,
        traceparent: String,
        arrived: Duration,
        body_bytes: u64,
        waiting: T,
    ) -> Option<Submitted> {
        let deadline = arrived.saturating_add(self.timeout);
        let message = |token| Submission { token, event: Some(event), traceparent }.encode_to_vec();
        let added = self.unanswered.add(waiting, deadline, GRPC_UNAVAILABLE, body_bytes, message);
        let token = added?;
        self.flush();
        let held = self.unanswered.hold(token);
        if let State::Closed { .. } = self.state {
            self.host.tick_soon();
        }
        Some(Submitted { token, held })
    }

    /// Forgets a submission whose client has disconnected.
    pub fn cancel(&mut self, token: u64) {
        self.unanswered.take(token);
    }

    /// To be called regularly with the time since the start. Returns what has timed out.
    pub fn tick(&mut self, now: Duration) -> Vec<Answered<T>> {
        self.now = now;
        let overdue = self.unanswered.take_overdue(now);
        match self.state {
            // Whatever delays one reply also delays those behind it.
            State::Open { stream } if self.leaving || overdue.iter().any(|entry| entry.sent) => {
                self.abandon(stream);
            }
            State::Opening { stream, since } if since.saturating_add(OPEN_TIMEOUT) <= now => {
                self.abandon(stream);
            }
            _ => {}
        }
        if let State::Closed { reopen_at } = self.state
            && reopen_at <= now
            && !self.unanswered.is_empty()
        {
            self.state = match self.host.open() {
                Some(stream) => State::Opening { stream, since: now },
                None => self.closed_now(),
            };
        }
        self.flush();
        let status =
            |entry: &Entry<T>| if entry.sent { GRPC_DEADLINE_EXCEEDED } else { entry.status };
        overdue.into_iter().map(|entry| failed(status(&entry), entry)).collect()
    }

    /// The proxy has opened the stream. It says so of a stream that is about to fail as well, and
    /// sending would then call the filter again before this call returns. So the next tick sends.
    pub fn opened(&mut self, stream: u32) {
        if matches!(self.state, State::Opening { stream: opening, .. } if opening == stream) {
            self.state = State::Open { stream };
            self.leaving = false;
            self.window = 1;
            self.host.tick_soon();
        }
    }

    /// `None` if nobody waits for this reply, or if the submission is to be repeated.
    pub fn replied(&mut self, reply: Reply) -> Option<Answered<T>> {
        let Reply { token, status, receipt } = reply;
        if matches!(status, GRPC_RESOURCE_EXHAUSTED | GRPC_UNAVAILABLE) {
            // If its store was lost in the middle of a commit, it may have stored the event.
            let maybe_stored = status == GRPC_UNAVAILABLE;
            if self.unanswered.requeue(token, status, maybe_stored) {
                self.window = 1;
                if !maybe_stored {
                    self.pause(BUSY_DELAY);
                } else if !self.leaving {
                    self.pause(if self.left { BUSY_DELAY } else { RETRY_DELAY });
                    self.leaving = true;
                    self.left = true;
                    self.host.tick_soon();
                }
            }
            return None;
        }
        self.left = false;
        let entry = self.unanswered.take(token);
        self.window = self.window.saturating_mul(2);
        self.flush();
        let entry = entry?;
        if status != GRPC_OK {
            return Some(failed(status, entry));
        }
        let mut receipt = receipt.unwrap_or_default();
        if entry.resent {
            // What was stored before is most likely its own earlier submission.
            receipt.set_outcome(Outcome::Stored);
        }
        Some(Answered { waiting: entry.waiting, held: entry.held, result: Ok(receipt) })
    }

    /// The stream has ended. Returns everything that is not worth another attempt.
    pub fn closed(&mut self, stream: u32, status: u32) -> Vec<Answered<T>> {
        match self.state {
            State::Opening { stream: known, .. } | State::Open { stream: known }
                if known == stream => {}
            _ => return Vec::new(),
        }
        self.state = self.closed_now();
        if is_permanent(status) {
            let all = self.unanswered.take_all();
            return all.into_iter().map(|entry| failed(status, entry)).collect();
        }
        let culprit = self.unanswered.requeue_sent(Some(FAILURES_MAX));
        let culprit = culprit.and_then(|token| self.unanswered.take(token));
        culprit.map(|entry| failed(GRPC_UNAVAILABLE, entry)).into_iter().collect()
    }

    /// Sends what is held, as far as the window allows.
    fn flush(&mut self) {
        let State::Open { stream } = self.state else {
            return;
        };
        if self.now < self.paused_until {
            return;
        }
        let mut ended = false;
        while self.unanswered.in_flight() < self.window
            && self.unanswered.send_next(|message| {
                let sent = self.host.send(stream, message);
                ended = !sent;
                sent
            })
        {}
        if ended {
            self.abandon(stream);
        }
    }

    fn pause(&mut self, time: Duration) {
        self.paused_until = self.now.saturating_add(time);
    }

    /// Ends a stream that is of no use any more.
    fn abandon(&mut self, stream: u32) {
        self.host.cancel(stream);
        self.state = self.closed_now();
        self.unanswered.requeue_sent(None);
    }

    fn closed_now(&self) -> State {
        State::Closed { reopen_at: self.now.saturating_add(RETRY_DELAY) }
    }
}

/// Whether another stream would end in the same way.
fn is_permanent(status: u32) -> bool {
    matches!(
        status,
        GRPC_NOT_FOUND
            | GRPC_PERMISSION_DENIED
            | GRPC_FAILED_PRECONDITION
            | GRPC_UNIMPLEMENTED
            | GRPC_UNAUTHENTICATED
    )
}

fn failed<T>(status: u32, entry: Entry<T>) -> Answered<T> {
    Answered { waiting: entry.waiting, held: entry.held, result: Err(status) }
}
