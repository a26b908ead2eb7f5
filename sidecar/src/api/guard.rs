//! The guard: rejects requests that a web page elsewhere makes through its visitor's browser,
//! and changes without the token.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{Api, Problem};

/// A page of another site has two ways to reach us through a browser: its own requests, which
/// carry their `Origin`, and a host name it controls that resolves to our address (DNS
/// rebinding). Against the second, only loopback's own names are accepted on loopback.
pub(super) async fn same_origin(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.check_origin(request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, message)) => Problem::new(status, message).into_response(),
    }
}

impl Api {
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let text = |name: HeaderName| headers.get(name).map(HeaderValue::to_str);
        let host = text(header::HOST).map(|host| host.ok()?.parse::<Authority>().ok());
        let own = self.address.ip();
        let known = match &host {
            None => true,
            Some(host) => {
                let name = host.as_ref().map(Authority::host);
                matches!(name, Some("localhost" | "127.0.0.1" | "[::1]"))
                    || name == Some(&own.to_string())
            }
        };
        if own.is_loopback() && !known {
            let message = "unknown host: use localhost or the IP address";
            return Err((StatusCode::MISDIRECTED_REQUEST, message));
        }
        let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
        let origin = origin.ok().and_then(|origin| origin.parse::<Uri>().ok());
        let from = origin.and_then(|origin| origin.into_parts().authority);
        if from.is_some() && from == host.flatten() {
            Ok(())
        } else {
            Err((StatusCode::FORBIDDEN, "requests from pages of other sites are not allowed"))
        }
    }
}

pub(super) async fn authorized(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.authorization.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, message)) => Problem::new(status, message).into_response(),
    }
}
