//! Connections of jobs that a pool's `egress` does not permit.

use serde::{Deserialize, Serialize};

use edgerunner_scheduler::model::UnixMs;

/// A connection that was refused or, with `egress_mode = "observe"`, would have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Denial {
    pub pool: String,
    /// `None` if it cannot be found out.
    pub runner: Option<String>,
    /// What the job asked for, such as `example.com:443`.
    pub host: String,
    pub reason: DenialReason,
    /// It was permitted nevertheless.
    pub observed: bool,
    pub at: UnixMs,
}

/// Why a connection is not permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DenialReason {
    /// The pool's `egress` does not name the host, or not with this port.
    Host,
    /// The host has an address that is always closed.
    Address,
    /// What is sent is not TLS, or TLS for another host.
    ServerName,
    /// The request is none that a proxy accepts.
    Request,
}

impl DenialReason {
    pub(crate) const ALL: [Self; 4] = [Self::Host, Self::Address, Self::ServerName, Self::Request];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Address => "address",
            Self::ServerName => "server_name",
            Self::Request => "request",
        }
    }

    /// Whether `egress_mode = "observe"` permits the connection.
    pub(crate) fn may_be_observed(self) -> bool {
        match self {
            Self::Host | Self::ServerName => true,
            Self::Address | Self::Request => false,
        }
    }
}
