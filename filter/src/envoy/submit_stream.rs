//! A worker's stream to the sidecar, over which it submits events. A call for each event
//! would cost Envoy more than the rest of the delivery; on a stream it is one message each way.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use edgerunner_proto::v1::{JobEvent, Submission};
use prost::Message as _;
use proxy_wasm::hostcalls;

use super::intake;
use crate::{config::Sidecar, in_flight::InFlight};

const METHOD: &str = "SubmitStream";

/// A sidecar that is unreachable, or does not know the method, is not called at every tick.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// Submissions of one worker without a reply, each with its request's body in memory. Further
/// deliveries are answered 503.
const IN_FLIGHT_MAX: usize = 1_024;

/// `T` is whatever waits for a reply.
pub(super) struct SubmitStream<T> {
    /// Owns the streams: those of a request's context would end with the request.
    root_context: u32,
    grpc_service: String,
    state: Cell<State>,
    /// Whether an event found no open stream. Without events no stream is opened: workers may
    /// have no deliveries, and one thread only validates the configuration.
    wanted: Cell<bool>,
    /// Time since the start, counted in ticks: the host's clock may be set back.
    now: Cell<Duration>,
    in_flight: RefCell<InFlight<T>>,
}

#[derive(Clone, Copy)]
enum State {
    Closed { reopen_at: Duration },
    Opening(u32),
    Open(u32),
}

pub(super) enum Sent {
    /// With the token of the submission.
    Yes(u64),
    TooManyWaiting,
    NotOpen(Box<JobEvent>),
}

impl<T> SubmitStream<T> {
    pub(super) fn new(root_context: u32, sidecar: &Sidecar) -> Self {
        Self {
            root_context,
            grpc_service: sidecar.grpc_service.clone(),
            state: Cell::new(State::Closed { reopen_at: Duration::ZERO }),
            wanted: Cell::new(false),
            now: Cell::new(Duration::ZERO),
            in_flight: RefCell::new(InFlight::new(IN_FLIGHT_MAX, sidecar.timeout)),
        }
    }

    /// `waiting` is returned with the reply, or when there will be none. May change the
    /// effective context.
    pub(super) fn send(&self, event: JobEvent, traceparent: String, waiting: T) -> Sent {
        let State::Open(stream) = self.state.get() else {
            self.wanted.set(true);
            return Sent::NotOpen(Box::new(event));
        };
        let Some(token) = self.in_flight.borrow_mut().add(waiting, self.now.get()) else {
            return Sent::TooManyWaiting;
        };
        let mut submission = Submission { token, event: Some(event), traceparent };
        let sent = hostcalls::set_effective_context(self.root_context).and_then(|()| {
            hostcalls::send_grpc_stream_message(stream, Some(&submission.encode_to_vec()), false)
        });
        if sent.is_ok() {
            return Sent::Yes(token);
        }
        self.take(token);
        Sent::NotOpen(Box::new(submission.event.take().unwrap_or_default()))
    }

    /// Removes what waits for the reply with this token.
    pub(super) fn take(&self, token: u64) -> Option<T> {
        self.in_flight.borrow_mut().take(token)
    }

    /// Returns everything that has timed out. To be called in the root context.
    pub(super) fn tick(&self, elapsed: Duration) -> Vec<T> {
        let now = self.now.get().saturating_add(elapsed);
        self.now.set(now);
        let mut overdue = Vec::new();
        if self.in_flight.borrow().is_overdue(now) {
            // Whatever delays one reply also delays those behind it.
            if let State::Opening(stream) | State::Open(stream) = self.state.get() {
                let _ = hostcalls::cancel_grpc_stream(stream);
            }
            self.set_closed();
            overdue = self.in_flight.borrow_mut().take_all();
        }
        if let State::Closed { reopen_at } = self.state.get()
            && reopen_at <= now
            && self.wanted.take()
        {
            self.open();
        }
        overdue
    }

    fn open(&self) {
        match intake::open_stream(&self.grpc_service, METHOD) {
            Ok(stream) => self.state.set(State::Opening(stream)),
            Err(_) => self.set_closed(),
        }
    }

    /// Envoy has opened the stream.
    pub(super) fn opened(&self, stream: u32) {
        if matches!(self.state.get(), State::Opening(opening) if opening == stream) {
            self.state.set(State::Open(stream));
        }
    }

    /// The stream has ended. Returns everything that will get no reply.
    pub(super) fn closed(&self, stream: u32) -> Vec<T> {
        match self.state.get() {
            State::Opening(known) | State::Open(known) if known == stream => {
                self.set_closed();
                self.in_flight.borrow_mut().take_all()
            }
            _ => Vec::new(),
        }
    }

    fn set_closed(&self) {
        let reopen_at = self.now.get().saturating_add(RECONNECT_DELAY);
        self.state.set(State::Closed { reopen_at });
    }
}
