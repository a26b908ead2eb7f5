//! A runner's registration and its session, and the tokens that register runners.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::scope::Scope;

/// A registered runner.
#[derive(Clone, Debug, Serialize)]
pub struct Runner {
    pub id: u64,
    pub name: String,
    pub scope: Scope,
    pub group_id: u64,
    pub group_name: String,
    /// Lower case.
    pub labels: Vec<String>,
    pub ephemeral: bool,
    /// `unknown` until the runner first connects.
    pub os: String,
    pub version: Option<String>,
    /// The job it is running.
    pub job_id: Option<u64>,
    #[serde(skip)]
    pub(crate) credentials: Credentials,
    #[serde(serialize_with = "online")]
    #[serde(rename = "online")]
    pub(crate) session: Option<Session>,
}

fn online<S: serde::Serializer>(session: &Option<Session>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bool(session.is_some())
}

impl Runner {
    pub fn online(&self) -> bool {
        self.session.is_some()
    }

    pub fn busy(&self) -> bool {
        self.job_id.is_some()
    }

    pub(crate) fn has_labels(&self, labels: &[String]) -> bool {
        labels.iter().all(|label| self.labels.iter().any(|own| own.eq_ignore_ascii_case(label)))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub client_id: String,
    pub secret: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub id: String,
    pub last_seen: Instant,
    /// The number of this session's requests that are held open. It cannot expire while there
    /// are any.
    pub held: u32,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self { id: uuid::Uuid::new_v4().to_string(), last_seen: Instant::now(), held: 0 }
    }

    pub(crate) fn expires_at(&self, after: Duration) -> Option<Instant> {
        (self.held == 0).then(|| self.last_seen + after)
    }
}

/// A registration or removal token, valid for one hour.
#[derive(Clone, Debug)]
pub(crate) struct RegistrationToken {
    pub token: String,
    pub scope: Scope,
    pub purpose: TokenPurpose,
    pub expires_at: Timestamp,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TokenPurpose {
    Register,
    Remove,
}
