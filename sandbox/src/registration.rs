use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::scope::Scope;

/// A runner's registration.
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
    /// The job it works on.
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

    pub(crate) fn serves(&self, labels: &[String]) -> bool {
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
    /// Requests of this session now held open; it cannot lapse meanwhile.
    pub held: u32,
}

/// A registration or removal token, good for one hour.
#[derive(Clone, Debug)]
pub(crate) struct RegistrationToken {
    pub token: String,
    pub scope: Scope,
    pub purpose: TokenPurpose,
    pub expires_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TokenPurpose {
    Register,
    Remove,
}
