//! Webhook deliveries: events, the queues they wait in, and the record of each attempt.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use crate::scope::RepositoryName;

/// A webhook event. Every attempt to deliver it sends the same GUID.
#[derive(Clone, Debug)]
pub(crate) struct WebhookEvent {
    pub guid: String,
    pub name: &'static str,
    pub action: Option<&'static str>,
    pub repository: RepositoryName,
    pub repository_id: u64,
    pub installation_id: Option<u64>,
    pub job_id: Option<u64>,
    pub hook_id: u64,
    pub target_type: &'static str,
    pub target_id: u64,
    pub payload: Bytes,
}

/// The record of one attempt to deliver an event.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryRecord {
    pub id: u64,
    pub guid: String,
    /// 1 for the first attempt with this GUID.
    pub attempt: u32,
    pub redelivery: bool,
    pub event: String,
    pub action: Option<String>,
    pub repository: RepositoryName,
    pub job_id: Option<u64>,
    pub delivered_at: Timestamp,
    /// In seconds.
    pub duration: f64,
    /// `OK`, or why the attempt failed.
    pub status: String,
    /// The response's status, 504 after a timeout, 502 after any other failure.
    pub status_code: u16,
    pub request_headers: BTreeMap<String, String>,
    pub response_headers: BTreeMap<String, String>,
    pub response_body: Option<String>,
    #[serde(skip)]
    pub(crate) source: WebhookEvent,
}

impl DeliveryRecord {
    pub fn payload(&self) -> &Bytes {
        &self.source.payload
    }

    /// Whether the response was a 2xx.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status_code)
    }
}

/// An attempt that has not been made yet.
#[derive(Clone, Debug)]
pub(crate) struct PendingDelivery {
    pub event: WebhookEvent,
    /// Recorded as failed without being sent.
    pub lost: bool,
    pub redelivery: bool,
}

/// Deliveries that are sent one after the other, such as those of one job.
#[derive(Debug, Default)]
pub(crate) struct DeliveryQueue {
    pub pending: VecDeque<PendingDelivery>,
    /// Held back until a later delivery of this queue is pending, so that they are sent after it.
    pub held: VecDeque<PendingDelivery>,
    pub sending: bool,
}

impl DeliveryQueue {
    /// Whether a delivery is being sent, or will be at once.
    pub(crate) fn is_busy(&self) -> bool {
        self.sending || !self.pending.is_empty()
    }

    pub(crate) fn release_held(&mut self) {
        self.pending.append(&mut self.held);
    }
}

/// Work on a queue, which starts once the state's lock is released.
#[derive(Debug)]
pub(crate) struct QueueTask {
    pub queue: u64,
    pub delay: Duration,
    /// Release what is held, even though no later delivery is pending.
    pub release_held: bool,
}
