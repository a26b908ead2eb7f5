//! Just-in-time runner configurations.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::{ApiError, DOCUMENTATION};
use super::runners::RunnerView;
use crate::app::App;
use crate::scope::Scope;
use crate::state::registrations::{NewRunner, RegisterError};

#[derive(Serialize)]
pub(super) struct Generated {
    runner: RunnerView,
    encoded_jit_config: String,
}

struct JitRequest {
    name: String,
    group_id: u64,
    labels: Vec<String>,
    work_folder: String,
}

pub(super) async fn generate(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    body: Bytes,
) -> Result<(StatusCode, Json<Generated>), ApiError> {
    let request = parse(&body)?;
    app.update(|state| {
        let (id, encoded_jit_config) = state.register(NewRunner {
            scope,
            name: request.name,
            group_id: request.group_id,
            labels: request.labels,
            ephemeral: true,
            work_folder: request.work_folder,
        })?;
        let runner = state.runners.get(&id).ok_or_else(ApiError::not_found)?;
        let generated = Generated { runner: RunnerView::from(runner), encoded_jit_config };
        Ok((StatusCode::CREATED, Json(generated)))
    })
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::NameTaken(_) => Self::runners(StatusCode::CONFLICT, error.to_string()),
            RegisterError::UnknownGroup(_) => Self::not_found(),
            RegisterError::Encoding(_) => {
                Self::runners(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

/// Parses without serde, because GitHub lists all missing fields in one error message.
fn parse(body: &Bytes) -> Result<JitRequest, ApiError> {
    let fields = object(body)?;
    let missing: Vec<&str> = ["name", "runner_group_id", "labels"]
        .into_iter()
        .filter(|field| !fields.contains_key(*field))
        .collect();
    match missing.as_slice() {
        [] => {}
        [one] => return Err(invalid(&format!("\"{one}\" wasn't supplied."))),
        several => {
            return Err(invalid(&format!("\"{}\" weren't supplied.", several.join("\", \""))));
        }
    }
    let Some(name) = fields.get("name").and_then(Value::as_str) else {
        return Err(wrong_type(&fields, "name", "a string"));
    };
    if name.is_empty() || name.len() > 64 {
        return Err(invalid("Runner name must be between 1 and 64 characters."));
    }
    let Some(group_id) = fields.get("runner_group_id").and_then(Value::as_u64) else {
        return Err(wrong_type(&fields, "runner_group_id", "an integer"));
    };
    let Some(labels) = fields.get("labels").and_then(Value::as_array) else {
        return Err(wrong_type(&fields, "labels", "an array"));
    };
    if labels.is_empty() || labels.len() > 100 {
        return Err(invalid("\"labels\" must have between 1 and 100 items."));
    }
    let Some(labels) = labels
        .iter()
        .map(|label| label.as_str().map(str::to_owned))
        .collect::<Option<Vec<String>>>()
    else {
        return Err(wrong_type(&fields, "labels", "an array of strings"));
    };
    let work_folder = match fields.get("work_folder") {
        None => "_work",
        Some(Value::String(folder)) => folder,
        Some(_) => return Err(wrong_type(&fields, "work_folder", "a string")),
    };
    Ok(JitRequest { name: name.to_owned(), group_id, labels, work_folder: work_folder.to_owned() })
}

fn object(body: &Bytes) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(body) {
        _ if body.is_empty() => Ok(Map::new()),
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "Body should be a JSON object",
            DOCUMENTATION,
        )),
        Err(_) => {
            Err(ApiError::new(StatusCode::BAD_REQUEST, "Problems parsing JSON", DOCUMENTATION))
        }
    }
}

fn wrong_type(fields: &Map<String, Value>, field: &str, wanted: &str) -> ApiError {
    let value = fields.get(field).unwrap_or(&Value::Null);
    invalid(&format!("For 'properties/{field}', {value} is not {wanted}."))
}

fn invalid(problem: &str) -> ApiError {
    ApiError::runners(StatusCode::UNPROCESSABLE_ENTITY, format!("Invalid request.\n\n{problem}"))
}
