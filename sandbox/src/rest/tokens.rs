use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::Serialize;

use crate::app::App;
use crate::payload::Timestamp;
use crate::registration::TokenPurpose;
use crate::scope::Scope;

#[derive(Serialize)]
pub(super) struct TokenView {
    token: String,
    expires_at: Timestamp,
}

type Answer = (StatusCode, Json<TokenView>);

pub(super) async fn registration(Shared(app): Shared<Arc<App>>, scope: Scope) -> Answer {
    issue(&app, scope, TokenPurpose::Register)
}

pub(super) async fn removal(Shared(app): Shared<Arc<App>>, scope: Scope) -> Answer {
    issue(&app, scope, TokenPurpose::Remove)
}

fn issue(app: &Arc<App>, scope: Scope, purpose: TokenPurpose) -> Answer {
    let token = app.update(|state| state.issue_token(scope, purpose));
    let view = TokenView { token: token.token, expires_at: Timestamp(token.expires_at) };
    (StatusCode::CREATED, Json(view))
}
