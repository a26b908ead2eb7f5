//! The page of a job, where its `html_url` leads.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use minijinja::{Environment, context};
use serde::Serialize;

use crate::app::App;
use crate::job::{Conclusion, Job};
use crate::payload::WholeSeconds;
use crate::scope::RepositoryName;

/// The suffix has the template escape the values.
const NAME: &str = "job_page.html";
const TEMPLATE: &str = include_str!("job_page.html");

#[derive(Serialize)]
struct JobPage<'a> {
    id: u64,
    name: &'a str,
    repository: String,
    labels: &'a [String],
    status: &'static str,
    conclusion: Option<&'static str>,
    runner: Option<&'a str>,
    queued_at: WholeSeconds,
    started_at: Option<WholeSeconds>,
    completed_at: Option<WholeSeconds>,
}

pub(crate) fn router() -> Router<Arc<App>> {
    Router::new().route("/{owner}/{name}/actions/runs/{run}/job/{job}", get(show))
}

async fn show(
    Shared(app): Shared<Arc<App>>,
    Path((owner, name, run, job)): Path<(String, String, String, String)>,
) -> Response {
    let page = app.read(|state| {
        let repository = state.current_name(&RepositoryName { owner, name });
        let job = state.jobs.get(&job.parse().ok()?)?;
        let found = job.repository == repository && job.run_id.to_string() == run;
        found.then(|| render(Some(&JobPage::new(job))))
    });
    match page {
        Some(page) => page.into_response(),
        None => (StatusCode::NOT_FOUND, render(None)).into_response(),
    }
}

impl<'a> JobPage<'a> {
    fn new(job: &'a Job) -> Self {
        Self {
            id: job.id,
            name: &job.name,
            repository: job.repository.to_string(),
            labels: &job.labels,
            status: job.status.as_str(),
            conclusion: job.conclusion.map(Conclusion::as_str),
            runner: job.runner.as_ref().map(|runner| &*runner.runner_name),
            queued_at: WholeSeconds(job.created_at),
            started_at: job.runner.is_some().then_some(WholeSeconds(job.started_at)),
            completed_at: job.completed_at.map(WholeSeconds),
        }
    }
}

/// `None`: there is no such job.
fn render(job: Option<&JobPage<'_>>) -> Result<Html<String>, StatusCode> {
    let page = Environment::new().render_named_str(NAME, TEMPLATE, context! { job });
    page.map(Html).map_err(|error| {
        tracing::error!(%error, "cannot render the page of a job");
        StatusCode::INTERNAL_SERVER_ERROR
    })
}
