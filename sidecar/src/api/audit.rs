//! The audit log: who changed what, when, and from where.

use std::future::Future;

use axum::{
    Extension, Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};
use tracing::{error, info};
use utoipa::ToSchema;

use super::{Api, HISTORY_MAX, Problem, caller::Caller, check_limit, problem::ErrorBody};
use crate::{control::clock, store::AuditRecord};

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Change)]
pub(crate) struct AuditView {
    /// When it was requested, in milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
    /// The signed-in user, or `API token`.
    pub(crate) who: String,
    /// Their IP address, as far as it is known.
    pub(crate) address: String,
    /// `drain`, `resume`, `retry`, `remove`, `drain_node` or `resume_node`.
    pub(crate) action: String,
    /// The pool, runner or node; empty for all.
    pub(crate) target: String,
    /// `done`, or why it was refused.
    pub(crate) outcome: String,
}

impl From<AuditRecord> for AuditView {
    fn from(record: AuditRecord) -> Self {
        let AuditRecord { at, who, address, action, target, outcome } = record;
        Self { at_ms: at, who, address, action, target, outcome }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    limit: Option<u32>,
}

/// The changes that people made last, newest first
///
/// Changes are kept for 400 days, and the latest 100,000 of them.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    params((
        "limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
        description = "How many to return: 200 if left out"
    )),
    responses(
        (status = OK, body = [AuditView]),
        (status = BAD_REQUEST, description = "The query is malformed", body = ErrorBody),
    )
)]
pub(super) async fn audit(
    State(api): State<Api>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<Vec<AuditView>>, Problem> {
    let Query(AuditQuery { limit }) = query?;
    let limit = limit.unwrap_or(HISTORY_MAX);
    check_limit(limit)?;
    let records = api.store.audit(limit).await?;
    Ok(Json(records.into_iter().map(AuditView::from).collect()))
}

/// Who makes this request
#[utoipa::path(get, path = "/api/v1/caller", responses((status = OK, body = CallerView)))]
pub(super) async fn caller(Extension(caller): Extension<Caller>) -> Json<CallerView> {
    Json(CallerView { user: caller.user().map(str::to_owned), may_operate: caller.may_operate })
}

#[derive(Serialize, ToSchema)]
#[schema(as = Caller)]
pub(super) struct CallerView {
    /// `null` if the request did not come through sign-in.
    user: Option<String>,
    /// Whether they may make changes because of how they signed in. The API token permits them
    /// as well.
    may_operate: bool,
}

/// A change that somebody requests.
pub(super) struct Change {
    pub(super) action: &'static str,
    /// Empty for all.
    pub(super) target: String,
}

impl Api {
    /// Carries out a change and records it. It is carried out and recorded to its end even if the
    /// caller stops waiting.
    pub(super) async fn audited<T: Send + 'static>(
        &self,
        caller: Caller,
        Change { action, target }: Change,
        change: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let store = self.store.clone();
        let carried_out = tokio::spawn(async move {
            let (who, address, at) = (caller.who().to_owned(), caller.address, clock::now().wall);
            info!(who, address, action, target, "change requested");
            let result = change.await;
            let outcome = match &result {
                Ok(_) => "done".to_owned(),
                Err(problem) => problem.message.clone(),
            };
            let action = action.to_owned();
            let record = AuditRecord { at, who, address, action, target, outcome };
            // A full disk must not keep anybody from draining a pool: then the log has the record.
            if let Err(failure) = store.save_audit(record.clone()).await {
                let AuditRecord { who, address, action, target, outcome, .. } = record;
                error!(%failure, who, address, action, target, outcome,
                    "a change is missing in the audit log");
            }
            result
        });
        carried_out.await.unwrap_or_else(|_| Err(Problem::stopping()))
    }
}
