//! Who may read and who may change something.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{Api, Problem};

/// A web page elsewhere must not use this through its visitor's browser: neither by its own
/// requests, which tell their origin, nor by giving our address a name of its own (DNS
/// rebinding), for which on loopback only loopback's names count.
pub(super) async fn known_caller(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.stranger(request.headers()) {
        None => next.run(request).await,
        Some((status, message)) => Problem::new(status, message).into_response(),
    }
}

impl Api {
    fn stranger(&self, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
        let told = |name: HeaderName| headers.get(name).map(HeaderValue::to_str);
        let host = told(header::HOST).map(|host| host.ok()?.parse::<Authority>().ok());
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
            let message = "unknown host: use localhost or the address itself";
            return Some((StatusCode::MISDIRECTED_REQUEST, message));
        }
        let origin = told(header::ORIGIN)?.ok().and_then(|origin| origin.parse::<Uri>().ok());
        let from = origin.and_then(|origin| origin.into_parts().authority);
        let same = from.is_some() && from == host.flatten();
        (!same).then_some((StatusCode::FORBIDDEN, "pages of other sites may not use this"))
    }
}

pub(super) async fn authorized(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.authorization.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, message)) => Problem::new(status, message).into_response(),
    }
}
