//! The Docker Engines that runners run on: used directly, in turns, and watched.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::EventMessage;
use edgerunner_testkit::containers::events;
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, SelectAll, select_all};
use jiff::Timestamp;

pub(crate) struct Engines {
    all: Vec<Docker>,
    next: AtomicUsize,
}

pub(crate) type Events = SelectAll<BoxStream<'static, Result<EventMessage, Error>>>;

impl Engines {
    pub(crate) fn new(all: Vec<Docker>) -> Self {
        Self { all, next: AtomicUsize::new(0) }
    }

    /// The one whose turn it is.
    pub(crate) fn next(&self) -> &Docker {
        &self.all[self.next.fetch_add(1, Ordering::Relaxed) % self.all.len()]
    }

    /// Events of containers with this label, on all of them.
    pub(crate) fn events(&self, label: &str) -> Result<Events> {
        let all = self.all.iter().map(|docker| Ok(events(docker, label)?.boxed()));
        Ok(select_all(all.collect::<Result<Vec<_>>>()?))
    }
}

/// When the next such event was, and the name of its container.
pub(crate) async fn next_event(events: &mut Events, action: &str) -> Result<(Timestamp, String)> {
    loop {
        let event = events.next().await.context("Docker closed the stream of events")??;
        if event.action.as_deref() == Some(action) {
            let nanoseconds = event.time_nano.context("an event of Docker without a time")?;
            let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
            let name = attributes.get("name").cloned().unwrap_or_default();
            return Ok((Timestamp::from_nanosecond(nanoseconds.into())?, name));
        }
    }
}

pub(crate) fn milliseconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1_000.0
}
