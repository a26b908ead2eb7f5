//! `edgerunner jobs`.

use anyhow::Result;
use serde_json::Value;

use super::{
    client::get,
    output::{Output, Table, age, parse},
};
use crate::{config::Config, control::clock, control::snapshot::Snapshot, store::JobRecord};

pub(super) fn show(config: &Config, output: Output) -> Result<()> {
    output.show(|| get(config, "/api/v1/jobs"), |jobs| table(config, jobs))
}

fn table(config: &Config, jobs: &Value) -> Result<String> {
    let status: Snapshot = parse(get(config, "/api/v1/status")?)?;
    let jobs: Vec<JobRecord> = parse(jobs.clone())?;
    let now = clock::now();
    let mut table = Table::new(["JOB", "REPOSITORY", "STATE", "AGE", "RUNNER", "DETAILS"], &[2, 5]);
    for waiting in &status.waiting {
        table.push([
            waiting.job_id.to_string(),
            waiting.repository.clone(),
            "queued".into(),
            age(waiting.queued_ms, now),
            String::new(),
            waiting.message.clone(),
        ]);
    }
    for job in jobs {
        if status.waiting.iter().any(|waiting| waiting.job_id == job.key.id) {
            continue;
        }
        let since = job.completed_at.or(job.started_at).unwrap_or(job.queued_at);
        table.push([
            job.key.id.to_string(),
            job.repository,
            job.state.as_str().into(),
            age(since, now),
            job.runner_name,
            job.conclusion,
        ]);
    }
    Ok(table.fitted())
}
