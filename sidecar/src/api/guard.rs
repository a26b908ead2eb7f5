//! Who may read and who may change something.

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{Api, Problem};

/// A web page elsewhere must not read this through its visitor's browser by giving our
/// address a name of its own (DNS rebinding), so on loopback only loopback's names count.
pub(super) async fn known_host(State(api): State<Api>, request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
    let known = !api.address.ip().is_loopback()
        || matches!(host, None | Some("localhost" | "127.0.0.1" | "[::1]"))
        || host == Some(&api.address.ip().to_string());
    if known {
        next.run(request).await
    } else {
        Problem {
            status: StatusCode::MISDIRECTED_REQUEST,
            message: "unknown host: use localhost or the address itself".into(),
        }
        .into_response()
    }
}

pub(super) async fn authorized(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.authorization.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, message)) => Problem { status, message: message.into() }.into_response(),
    }
}
