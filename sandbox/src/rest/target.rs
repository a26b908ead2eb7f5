//! The repository or organization that a request names: redirects to one that was renamed, and
//! rejections by one that is archived, hidden or blocked.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::error::{ApiError, DOCUMENTATION};
use super::identity::Identity;
use crate::app::App;
use crate::payload::CREATED_AT;
use crate::repository::Access;
use crate::scope::RepositoryName;
use crate::state::State;

const REDIRECTS: &str = "https://docs.github.com/v3/#http-redirects";
const ENTERPRISE_SERVER: &str = "/api/v3";

/// The response to a request that must not reach the repository it names.
pub(super) fn reject(
    app: &Arc<App>,
    identity: Identity,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<Response> {
    let (base, path) = match uri.path().strip_prefix(ENTERPRISE_SERVER) {
        Some(path) => (ENTERPRISE_SERVER, path),
        None => ("", uri.path()),
    };
    let mut parts = path.trim_start_matches('/').splitn(4, '/');
    let (kind, first, second) = (parts.next()?, parts.next()?, parts.next());
    let rest = parts.next();
    app.read(|state| match (kind, second) {
        ("orgs", _) => (!may_see(state, identity, first)).then(not_found),
        ("repos", Some(name)) => {
            let decoded = |part| percent_decode_str(part).decode_utf8_lossy().into_owned();
            let name = RepositoryName { owner: decoded(first), name: decoded(name) };
            if let Some(moved) = state.moved_repository(&name) {
                if !may_see(state, identity, &moved.name.owner) {
                    return Some(not_found());
                }
                let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
                let origin = host.map_or_else(
                    || state.urls.origin().to_owned(),
                    |host| format!("http://{host}"),
                );
                let rest = rest.map(|rest| format!("/{rest}")).unwrap_or_default();
                let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                let id = moved.id;
                return Some(redirect(
                    method,
                    &format!("{origin}{base}/repositories/{id}{rest}{query}"),
                ));
            }
            check(state, identity, method, &name)
        }
        ("repositories", _) => {
            let name = first.parse().ok().and_then(|id| state.repository_name(id))?;
            check(state, identity, method, &name)
        }
        _ => None,
    })
}

/// The token of an installation is good for its owner alone.
fn may_see(state: &State, identity: Identity, owner: &str) -> bool {
    match identity {
        Identity::Installation(id) => state.installation_id(owner) == id,
        Identity::Anonymous | Identity::Token | Identity::App => true,
    }
}

fn check(
    state: &State,
    identity: Identity,
    method: &Method,
    name: &RepositoryName,
) -> Option<Response> {
    if !may_see(state, identity, &name.owner) {
        return Some(not_found());
    }
    match state.repository(name).access {
        Access::Open => None,
        Access::Archived if *method == Method::GET => None,
        Access::Archived => Some(
            ApiError::new(
                StatusCode::FORBIDDEN,
                "Repository was archived so is read-only.",
                DOCUMENTATION,
            )
            .into_response(),
        ),
        Access::Hidden | Access::Deleted => Some(not_found()),
        Access::Blocked => {
            let block = json!({
                "reason": "tos", "created_at": CREATED_AT, "html_url": "https://github.com/tos",
            });
            let body = json!({ "message": "Repository access blocked", "block": block });
            Some((StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, Json(body)).into_response())
        }
    }
}

fn not_found() -> Response {
    ApiError::not_found().into_response()
}

/// A client may repeat a GET with 301; 307 makes it keep another method and the body.
fn redirect(method: &Method, url: &str) -> Response {
    let status = match *method {
        Method::GET => StatusCode::MOVED_PERMANENTLY,
        _ => StatusCode::TEMPORARY_REDIRECT,
    };
    let body = json!({
        "message": "Moved Permanently", "url": url, "documentation_url": REDIRECTS,
    });
    (status, [(header::LOCATION, url)], Json(body)).into_response()
}
