//! Webhook deliveries: what is to be sent, and what became of it.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::scope::RepositoryName;

/// One event, before it is sent. Its GUID stays the same however often it is.
#[derive(Clone, Debug)]
pub(crate) struct Event {
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

/// One attempt at delivering an event.
#[derive(Clone, Debug, Serialize)]
pub struct Delivery {
    pub id: u64,
    pub guid: String,
    /// 1 for the first attempt at this GUID.
    pub attempt: u32,
    pub redelivery: bool,
    pub event: String,
    pub action: Option<String>,
    pub repository: RepositoryName,
    pub job_id: Option<u64>,
    pub delivered_at: DateTime<Utc>,
    /// In seconds.
    pub duration: f64,
    pub status: String,
    pub status_code: u16,
    pub request_headers: BTreeMap<String, String>,
    pub response_headers: BTreeMap<String, String>,
    pub response_body: Option<String>,
    #[serde(skip)]
    pub(crate) source: Event,
}

impl Delivery {
    pub fn payload(&self) -> &Bytes {
        &self.source.payload
    }

    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.status_code)
    }
}

/// One job's deliveries go out one after the other.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub queue: VecDeque<Outgoing>,
    /// Held back by [`crate::Mishap::Reordered`] until something passes it.
    pub held: VecDeque<Outgoing>,
    pub sending: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub event: Event,
    pub lost: bool,
    pub redelivery: bool,
}
