//! The caller: who makes a request, and whether they may change something.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, Request},
    http::{HeaderMap, HeaderName, HeaderValue},
};

/// Set by the Envoy that signs people in.
pub(super) const USER: HeaderName = HeaderName::from_static("x-edgerunner-user");
/// Set by the same Envoy, to the name of the RBAC policy that permits the request.
pub(super) const ROLE: HeaderName = HeaderName::from_static("x-edgerunner-role");
/// The role that may make changes.
const OPERATE: &str = "operate";
/// Of a user's name: longer ones are not names.
const USER_BYTES_MAX: usize = 256;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Who whoever knows `server.api_token` is in the audit log.
const TOKEN_HOLDER: &str = "API token";

/// Where requests come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entrance {
    /// `server.http_address`, for everyone who can reach it.
    Direct(SocketAddr),
    /// `server.sign_in_address`, for an Envoy that signs people in.
    SignIn,
}

#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The name of a person who signed in.
    user: Option<String>,
    pub(super) may_operate: bool,
    /// IP address; empty if it is not known.
    pub(super) address: String,
}

impl Caller {
    /// Whoever sends a request to `server.http_address`. The token shows what they may do.
    pub(super) fn direct(request: &Request) -> Self {
        let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let address = address.map(|ConnectInfo(address)| address.ip().to_string());
        Self { user: None, may_operate: false, address: address.unwrap_or_default() }
    }

    /// Whom Envoy has signed in; `None` if it does not say.
    pub(super) fn signed_in(headers: &HeaderMap) -> Option<Self> {
        let user = only(headers, &USER)?.trim();
        if user.is_empty() || user.len() > USER_BYTES_MAX {
            return None;
        }
        // Envoy appends the address that it sees: those before it are the client's own words.
        let address = headers.get_all(FORWARDED_FOR).iter().next_back();
        let address = address.and_then(|value| value.to_str().ok()?.rsplit(',').next());
        Some(Self {
            user: Some(user.to_owned()),
            may_operate: only(headers, &ROLE) == Some(OPERATE),
            address: address.unwrap_or_default().trim().to_owned(),
        })
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The name in the audit log.
    pub(super) fn who(&self) -> &str {
        self.user().unwrap_or(TOKEN_HOLDER)
    }
}

/// The value of a header, if there is one of it and it is text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none());
    value.and_then(|value: &HeaderValue| std::str::from_utf8(value.as_bytes()).ok())
}
