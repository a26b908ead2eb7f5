//! A runner's registration and its session, and the tokens that register runners.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::keys::RsaParams;
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
    /// The job it was offered.
    #[serde(skip)]
    pub(crate) offered_job_id: Option<u64>,
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
    pub key: &'static RsaParams,
}

/// A token of a runner or of its job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunnerToken {
    pub runner: u64,
    pub expires_at: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub id: String,
    pub last_seen: Instant,
    /// The number of this session's requests that are held open. It cannot expire while there
    /// are any.
    pub held: u32,
    pub job_acknowledged: bool,
    pub cancellation_sent: bool,
    /// Whether the runner asks for messages while it runs its job, as the open-source runner does.
    pub polls_while_busy: bool,
    /// How long the runner may be silent while it runs its job.
    locked_until: Option<Instant>,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            last_seen: Instant::now(),
            held: 0,
            job_acknowledged: false,
            cancellation_sent: false,
            polls_while_busy: false,
            locked_until: None,
        }
    }

    pub(crate) fn expires_at(&self, after: Duration) -> Option<Instant> {
        let silent = self.last_seen + after;
        let at = match self.locked_until {
            Some(locked_until) if !self.polls_while_busy => silent.max(locked_until),
            _ => silent,
        };
        (self.held == 0).then_some(at)
    }

    pub(crate) fn lock_job(&mut self, lock: Duration) {
        self.locked_until = Some(Instant::now() + lock);
    }

    /// The runner has no job any more.
    pub(crate) fn end_job(&mut self) {
        self.job_acknowledged = false;
        self.cancellation_sent = false;
        self.polls_while_busy = false;
        self.locked_until = None;
        self.last_seen = Instant::now();
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
