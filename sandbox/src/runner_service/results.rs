//! The results service: takes the logs of steps, and ignores what else runners report.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::auth::AuthenticatedRunner;
use super::results_url;
use crate::app::App;

/// The kind of blobs that become the job's log.
pub(crate) const STEP_LOGS: &str = "step-logs";
const SIZE_MAX: &str = "1073741824";

/// The methods of the Twirp services `Receiver` and `WorkflowStepUpdateService`.
pub(super) async fn call(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
    Path((_, method)): Path<(String, String)>,
) -> Result<Json<Value>, StatusCode> {
    let (base, job) = app.read(|state| {
        let job = state.runners.get(&id).and_then(|runner| runner.job_id);
        (results_url(&state.urls), job)
    });
    // The URL has a query, because runners append to it.
    let signed = |name: &str, kind: &str| {
        let job = job.ok_or(StatusCode::NOT_FOUND)?;
        Ok(Json(json!({
            name: format!("{base}blobs/{kind}/{job}?sig=sandbox"),
            "soft_size_limit": SIZE_MAX,
            "blob_storage_type": "BLOB_STORAGE_TYPE_AZURE",
        })))
    };
    match method.as_str() {
        "GetStepLogsSignedBlobURL" => signed("logs_url", STEP_LOGS),
        "GetJobLogsSignedBlobURL" => signed("logs_url", "job-logs"),
        "GetJobDiagLogsSignedBlobURL" => signed("diag_logs_url", "diagnostic-logs"),
        "GetStepSummarySignedBlobURL" => signed("summary_url", "step-summaries"),
        "CreateStepLogsMetadata"
        | "CreateJobLogsMetadata"
        | "CreateStepSummaryMetadata"
        | "WorkflowStepsUpdate" => Ok(Json(json!({ "ok": true }))),
        _ => Err(StatusCode::NOT_FOUND),
    }
}

/// Takes a blob or a piece of one.
pub(super) async fn upload(
    Shared(app): Shared<Arc<App>>,
    Path((kind, job)): Path<(String, u64)>,
    body: Bytes,
) -> StatusCode {
    if kind == STEP_LOGS {
        let text = String::from_utf8_lossy(&body);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        app.update(|state| {
            if let Some(job) = state.jobs.get_mut(&job) {
                job.log.extend(lines);
            }
        });
    }
    StatusCode::CREATED
}
