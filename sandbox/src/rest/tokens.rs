//! Registration and removal tokens for runners.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::Serialize;

use crate::app::App;
use crate::payload::WholeSeconds;
use crate::registration::TokenPurpose;
use crate::scope::Scope;

#[derive(Serialize)]
pub(super) struct TokenView {
    token: String,
    expires_at: WholeSeconds,
}

type Created = (StatusCode, Json<TokenView>);

pub(super) async fn registration(Shared(app): Shared<Arc<App>>, scope: Scope) -> Created {
    issue(&app, scope, TokenPurpose::Register)
}

pub(super) async fn removal(Shared(app): Shared<Arc<App>>, scope: Scope) -> Created {
    issue(&app, scope, TokenPurpose::Remove)
}

fn issue(app: &Arc<App>, scope: Scope, purpose: TokenPurpose) -> Created {
    let token = app.update(|state| state.issue_token(scope, purpose));
    let view = TokenView { token: token.token, expires_at: WholeSeconds(token.expires_at) };
    (StatusCode::CREATED, Json(view))
}
