//! `edgerunner jobs | runners | status`: asks a running sidecar and shows its answer.

use anyhow::{Context as _, Result};
use clap::Args;
use serde::de::DeserializeOwned;
use tabled::{builder::Builder, settings::Style};

use crate::{
    client::get,
    clock,
    config::Config,
    control::Draining,
    model::UnixMs,
    snapshot::{BudgetView, Snapshot},
    store::{JobRecord, RunnerRecord},
};

#[derive(Args, Clone, Copy)]
pub struct Output {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub fn pools(config: &Config) -> String {
    let names: Vec<String> = config
        .pools
        .iter()
        .map(|pool| format!("{} ({})", pool.name, pool.labels.join(", ")))
        .collect();
    names.join("; ")
}

pub fn jobs(config: &Config, output: Output) -> Result<()> {
    let jobs = get(config, "/api/v1/jobs")?;
    if output.json {
        return print_json(&jobs);
    }
    let status: Snapshot = parse(get(config, "/api/v1/status")?)?;
    let jobs: Vec<JobRecord> = parse(jobs)?;
    let now = clock::now();
    let mut table = Builder::default();
    table.push_record(["JOB", "REPOSITORY", "STATE", "FOR", "RUNNER", "WHY"]);
    for waiting in &status.waiting {
        table.push_record([
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
        table.push_record([
            job.key.id.to_string(),
            job.repository,
            job.state.as_str().into(),
            age(since, now),
            job.runner_name,
            job.conclusion,
        ]);
    }
    print_table(table);
    Ok(())
}

pub fn runners(config: &Config, output: Output) -> Result<()> {
    let runners = get(config, "/api/v1/runners")?;
    if output.json {
        return print_json(&runners);
    }
    let runners: Vec<RunnerRecord> = parse(runners)?;
    let now = clock::now();
    let mut table = Builder::default();
    table.push_record(["RUNNER", "POOL", "TARGET", "PHASE", "LAUNCHED", "JOB", "WHY"]);
    for runner in runners {
        table.push_record([
            runner.name,
            runner.pool,
            runner.target,
            runner.phase,
            format!("{} ago", age(runner.created_at, now)),
            runner.job.map(|job| job.id.to_string()).unwrap_or_default(),
            runner.why.unwrap_or_default(),
        ]);
    }
    print_table(table);
    Ok(())
}

pub fn status(config: &Config, output: Output) -> Result<()> {
    let status = get(config, "/api/v1/status")?;
    if output.json {
        return print_json(&status);
    }
    let status: Snapshot = parse(status)?;
    let draining = Draining::of(&status);
    let mut table = Builder::default();
    table.push_record([
        "POOL",
        "LABELS",
        "QUEUED",
        "LAUNCHING",
        "STARTING",
        "IDLE",
        "MIN IDLE",
        "BUSY",
        "MAX",
    ]);
    for pool in status.pools {
        table.push_record([
            pool.name,
            pool.labels.join(","),
            pool.queued.to_string(),
            pool.provisioning.to_string(),
            pool.starting.to_string(),
            pool.idle.to_string(),
            pool.min_idle.to_string(),
            pool.busy.to_string(),
            pool.max.to_string(),
        ]);
    }
    print_table(table);
    if !status.budgets.is_empty() {
        print_table(budgets(&status.budgets));
    }
    if !status.recovered {
        println!("Docker has not answered yet: events are stored, nothing is launched.");
    }
    if draining.draining || !draining.pools.is_empty() {
        println!("{}", draining.describe());
    }
    for failure in status.failures {
        println!("Failing: {}: {}", failure.blocks, failure.message);
    }
    Ok(())
}

fn budgets(budgets: &[BudgetView]) -> Builder {
    let now = clock::now();
    let mut table = Builder::default();
    table.push_record([
        "CREDENTIAL",
        "ACCOUNT",
        "REQUESTS LEFT",
        "OF",
        "ANEW IN",
        "FOR MISSED WEBHOOKS",
    ]);
    for budget in budgets {
        let missed = budget.missed.as_ref().map(|missed| {
            let spent = format!("{} of {}", missed.spent, missed.allowed);
            match missed.waits_until_ms {
                Some(until) => format!("{spent}, used up for {}", age(now, until)),
                None => spent,
            }
        });
        table.push_record([
            budget.credential.clone(),
            budget.account.clone(),
            budget.remaining.to_string(),
            budget.limit.to_string(),
            age(now, budget.reset_ms),
            missed.unwrap_or_default(),
        ]);
    }
    table
}

fn parse<T: DeserializeOwned>(value: serde_json::Value) -> Result<T> {
    serde_json::from_value(value).context("the sidecar that answers is of another version")
}

fn print_json(value: &serde_json::Value) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

fn print_table(table: Builder) {
    println!("{}", table.build().with(Style::blank()));
}

fn age(since: UnixMs, now: UnixMs) -> String {
    let seconds = now.saturating_sub(since) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}
