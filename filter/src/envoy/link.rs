//! A worker's stream to the sidecar. A call for each event costs Envoy more than
//! all the rest of a delivery; over one long call it is a message each way.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use edgerunner_proto::{
    CONTRACT, CONTRACT_METADATA,
    v1::{JobEvent, Submission},
};
use prost::Message as _;
use proxy_wasm::hostcalls;

use super::exchange::Exchange;
use crate::{config::Sidecar, in_flight::InFlight};

pub(super) const SERVICE: &str = "edgerunner.v1.Intake";
pub(super) const METHOD: &str = "Submit";
const STREAM_METHOD: &str = "SubmitStream";

/// How often late replies are looked for, and a stream is opened if there is none.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// A sidecar that is away or does not know the method is not asked at every tick.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Deliveries of one worker, each with its body in memory. Beyond it: 503.
const IN_FLIGHT_MAX: usize = 1_024;

pub(super) struct Link {
    /// Streams belong to the root context; those of a request would end with it.
    root_context: u32,
    grpc_service: String,
    stream: Cell<Stream>,
    /// Whether an event had to go by a call of its own: a worker without deliveries, and
    /// the thread that only checks the configuration, hold no stream open.
    wanted: Cell<bool>,
    /// Time in ticks: the host's clock may be set back.
    now: Cell<Duration>,
    in_flight: RefCell<InFlight<Rc<RefCell<Exchange>>>>,
}

#[derive(Clone, Copy)]
enum Stream {
    None { open_at: Duration },
    Opening(u32),
    Open(u32),
}

pub(super) enum Sent {
    Yes(u64),
    TooMany,
    NotOpen(Box<JobEvent>),
}

impl Link {
    pub(super) fn new(root_context: u32, sidecar: &Sidecar) -> Self {
        Self {
            root_context,
            grpc_service: sidecar.grpc_service.clone(),
            stream: Cell::new(Stream::None { open_at: Duration::ZERO }),
            wanted: Cell::new(false),
            now: Cell::new(Duration::ZERO),
            in_flight: RefCell::new(InFlight::new(IN_FLIGHT_MAX, sidecar.timeout)),
        }
    }

    /// Leaves the effective context where it happens to be.
    pub(super) fn send(
        &self,
        event: JobEvent,
        traceparent: String,
        exchange: impl FnOnce() -> Rc<RefCell<Exchange>>,
    ) -> Sent {
        let Stream::Open(stream) = self.stream.get() else {
            self.wanted.set(true);
            return Sent::NotOpen(Box::new(event));
        };
        let Some(token) = self.in_flight.borrow_mut().add(exchange(), self.now.get()) else {
            return Sent::TooMany;
        };
        let mut submission = Submission { token, event: Some(event), traceparent };
        let sent = hostcalls::set_effective_context(self.root_context).and_then(|()| {
            hostcalls::send_grpc_stream_message(stream, Some(&submission.encode_to_vec()), false)
        });
        if sent.is_ok() {
            return Sent::Yes(token);
        }
        self.replied(token);
        Sent::NotOpen(Box::new(submission.event.take().unwrap_or_default()))
    }

    pub(super) fn replied(&self, token: u64) -> Option<Rc<RefCell<Exchange>>> {
        self.in_flight.borrow_mut().take(token)
    }

    /// Returns what waits for a reply in vain. In the root context only.
    pub(super) fn tick(&self) -> Vec<Rc<RefCell<Exchange>>> {
        let now = self.now.get().saturating_add(TICK);
        self.now.set(now);
        let mut late = Vec::new();
        if self.in_flight.borrow().is_late(now) {
            // Whatever holds up one reply holds up those behind it.
            if let Stream::Opening(stream) | Stream::Open(stream) = self.stream.get() {
                let _ = hostcalls::cancel_grpc_stream(stream);
            }
            self.ended();
            late = self.in_flight.borrow_mut().take_all();
        }
        if let Stream::None { open_at } = self.stream.get()
            && open_at <= now
            && self.wanted.take()
        {
            self.open();
        }
        late
    }

    fn open(&self) {
        let stream = hostcalls::open_grpc_stream(
            &self.grpc_service,
            SERVICE,
            STREAM_METHOD,
            vec![(CONTRACT_METADATA, CONTRACT.as_bytes())],
        );
        match stream {
            Ok(stream) => self.stream.set(Stream::Opening(stream)),
            Err(_) => self.ended(),
        }
    }

    pub(super) fn opened(&self, stream: u32) {
        if matches!(self.stream.get(), Stream::Opening(opening) if opening == stream) {
            self.stream.set(Stream::Open(stream));
        }
    }

    /// Returns what will have no reply any more.
    pub(super) fn closed(&self, stream: u32) -> Vec<Rc<RefCell<Exchange>>> {
        match self.stream.get() {
            Stream::Opening(known) | Stream::Open(known) if known == stream => {
                self.ended();
                self.in_flight.borrow_mut().take_all()
            }
            _ => Vec::new(),
        }
    }

    fn ended(&self) {
        let open_at = self.now.get().saturating_add(OPEN_AGAIN_AFTER);
        self.stream.set(Stream::None { open_at });
    }
}
