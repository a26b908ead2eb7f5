//! `edgerunner jobs`.

use anyhow::Result;
use serde_json::Value;

use super::{
    client::get,
    output::{Output, Table, age, parse},
};
use crate::{
    api::views::JobView,
    config::Config,
    control::{
        clock,
        snapshot::{Snapshot, on_server},
    },
};
use edgerunner_scheduler::model::JobState;

pub(super) fn show(config: &Config, output: Output) -> Result<()> {
    output.show(|| get(config, "/api/v1/jobs"), |jobs| table(config, jobs))
}

fn table(config: &Config, jobs: &Value) -> Result<String> {
    let status: Snapshot = parse(get(config, "/api/v1/status")?)?;
    let jobs: Vec<JobView> = parse(jobs.clone())?;
    let now = clock::now().wall;
    let mut table = Table::new(["JOB", "REPOSITORY", "STATE", "AGE", "RUNNER", "DETAILS"], &[2, 5]);
    for waiting in &status.waiting {
        table.push([
            waiting.job_id.to_string(),
            on_server(&waiting.repository, &waiting.host, &status.hosts),
            "queued".into(),
            age(waiting.queued_ms, now),
            String::new(),
            waiting.message.clone(),
        ]);
    }
    for job in jobs {
        if status.waiting.iter().any(|it| (it.job_id, &it.host) == (job.id, &job.host)) {
            continue;
        }
        let since = job.completed_ms.or(job.started_ms).unwrap_or(job.queued_ms);
        table.push([
            job.id.to_string(),
            on_server(&job.repository, &job.host, &status.hosts),
            JobState::from(job.state).as_str().into(),
            age(since, now),
            job.runner_name,
            job.conclusion,
        ]);
    }
    Ok(table.fitted())
}
