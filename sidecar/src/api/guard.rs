//! The guard: rejects requests that a web page elsewhere makes through its visitor's browser,
//! claims of somebody else's name, and changes by those who may not make them.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{
    Api, Problem,
    caller::{Caller, Entrance, ROLE, USER},
};
use crate::telemetry::metrics;

/// Why a request is refused: the name of the reason in the metric, the status and the message.
type Refusal = (&'static str, StatusCode, &'static str);

/// A page of another site has two ways to reach us through a browser: its own requests, which
/// carry their `Origin`, and a host name it controls that resolves to our address (DNS
/// rebinding). Against the second, only names that are ours are accepted: of loopback on loopback,
/// and of `server.trusted_names`.
pub(super) async fn known_caller(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Response {
    match api.check_origin(request.headers()).and_then(|()| api.caller(&request)) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refuse(refusal),
    }
}

pub(super) async fn may_change(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.check_change(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refuse(refusal),
    }
}

fn refuse((reason, status, message): Refusal) -> Response {
    metrics::api_refused(reason);
    Problem::new(status, message).into_response()
}

impl Api {
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = text(headers, header::HOST).map(|host| host.ok()?.parse::<Authority>().ok());
        let name = host.as_ref().map(|host| host.as_ref().map(Authority::host));
        let is_trusted = |name: &str| {
            self.trusted_names.iter().any(|trusted| trusted.eq_ignore_ascii_case(name))
        };
        let is_known = match (self.entrance, name) {
            (Entrance::Direct(_), None) => true,
            (Entrance::SignIn, None) | (_, Some(None)) => false,
            (Entrance::SignIn, Some(Some(name))) => is_trusted(name),
            (Entrance::Direct(own), Some(Some(name))) => {
                let own = own.ip();
                !own.is_loopback()
                    || matches!(name, "localhost" | "127.0.0.1" | "[::1]")
                    || name == own.to_string()
                    || is_trusted(name)
            }
        };
        if !is_known {
            let message = "unknown host: use localhost or the IP address, or add this name to \
                           server.trusted_names";
            return Err(("host", StatusCode::MISDIRECTED_REQUEST, message));
        }
        let Some(origin) = text(headers, header::ORIGIN) else { return Ok(()) };
        let origin = origin.ok().and_then(|origin| origin.parse::<Uri>().ok());
        let from = origin.and_then(|origin| origin.into_parts().authority);
        if from.is_some() && from == host.flatten() {
            Ok(())
        } else {
            let message = "requests from pages of other sites are not allowed";
            Err(("origin", StatusCode::FORBIDDEN, message))
        }
    }

    fn caller(&self, request: &Request) -> Result<Caller, Refusal> {
        let headers = request.headers();
        match self.entrance {
            Entrance::Direct(_) if headers.contains_key(USER) || headers.contains_key(ROLE) => {
                let message = "only the Envoy that signs people in may say who a request is \
                               from, through server.sign_in_address";
                Err(("user", StatusCode::FORBIDDEN, message))
            }
            Entrance::Direct(_) => Ok(Caller::direct(request)),
            Entrance::SignIn => Caller::signed_in(headers).ok_or((
                "user",
                StatusCode::FORBIDDEN,
                "Envoy does not say who signed in: it must send one header x-edgerunner-user, as \
                 envoy/sign-in.yaml does",
            )),
        }
    }

    fn check_change(&self, request: &Request) -> Result<(), Refusal> {
        let headers = request.headers();
        if matches!(self.entrance, Entrance::Direct(_)) {
            let checked = self.authorization.check(headers);
            return checked.map_err(|(status, message)| ("token", status, message));
        }
        // Every browser sends it with a change, and a cookie alone proves no intention.
        if !headers.contains_key(header::ORIGIN) {
            let message = "a change must carry the header Origin, as browsers send it";
            return Err(("origin", StatusCode::FORBIDDEN, message));
        }
        match request.extensions().get::<Caller>() {
            Some(caller) if caller.may_operate => Ok(()),
            _ => {
                let message = "you may read, but not operate: ask for the group that \
                               envoy/sign-in.yaml gives the role `operate`";
                Err(("role", StatusCode::FORBIDDEN, message))
            }
        }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<Result<&str, header::ToStrError>> {
    headers.get(name).map(HeaderValue::to_str)
}
