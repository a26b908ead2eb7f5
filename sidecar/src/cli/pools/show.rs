//! `edgerunner pools show`: everything about one pool.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{draining, ends, parked, version};
use crate::{
    api::status::StatusView,
    cli::output::{Table, Width, age, fields, parse, printable},
    control::{
        clock,
        snapshot::{FailureView, PoolView, RunnerView, WaitingView, on_server},
    },
};

/// The pool as the API returns it, with its part of the status.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PoolStatus {
    #[serde(flatten)]
    pool: PoolView,
    /// Those that are not gone.
    runners: Vec<RunnerView>,
    /// Jobs that wait for it.
    waiting: Vec<WaitingView>,
    failures: Vec<FailureView>,
}

pub(super) fn find(status: &Value, name: &str) -> Result<PoolStatus> {
    let StatusView { snapshot, .. } = parse(status.clone())?;
    let names: Vec<String> = snapshot.pools.iter().map(|pool| pool.name.clone()).collect();
    let Some(pool) = snapshot.pools.into_iter().find(|pool| pool.name == name) else {
        bail!(printable(format!("no pool {name}; the pools are {}", names.join(", "))));
    };
    // A failure of one lane names its target as well.
    let whole = format!("pool {name}");
    let lane = format!("pool {name} ");
    Ok(PoolStatus {
        pool,
        runners: snapshot.runners.into_iter().filter(|runner| runner.pool == name).collect(),
        waiting: snapshot
            .waiting
            .into_iter()
            .filter(|job| job.pool.as_deref() == Some(name))
            .collect(),
        failures: snapshot
            .failures
            .into_iter()
            .filter(|it| it.blocks == whole || it.blocks.starts_with(&lane))
            .collect(),
    })
}

pub(super) fn describe(of: &PoolStatus, width: Width) -> Result<String> {
    let PoolStatus { pool, runners, waiting, failures } = of;
    let now = clock::now().wall;
    let oldest = waiting.iter().map(|job| job.queued_ms).min();
    let mut text = fields([
        ("Name", pool.name.clone()),
        ("Labels", pool.labels.join(", ")),
        ("Max", pool.max.to_string()),
        ("Min idle", pool.min_idle.to_string()),
        ("Draining", draining(pool).to_owned()),
        ("Version", version(pool)),
        ("Version ends", ends(pool)),
        ("Queued", pool.queued.to_string()),
        ("Oldest", oldest.map(|at| age(at, now)).unwrap_or_default()),
        ("Launching", pool.provisioning.to_string()),
        ("Starting", pool.starting.to_string()),
        ("Idle", pool.idle.to_string()),
        ("Parked", parked(pool)),
        ("Busy", pool.busy.to_string()),
        ("Leaving", pool.leaving.to_string()),
    ]);
    for FailureView { blocks, message, .. } in failures {
        text += &printable(format!("Failing:       {blocks}: {message}"));
        text.push('\n');
    }
    let hosts: Vec<String> = runners.iter().map(|runner| runner.host.clone()).collect();
    let mut table =
        Table::new(["RUNNER", "PHASE", "NODE", "TARGET", "FOR", "REASON", "JOB ID"], &[1])
            .cut(&[(2, 12), (3, 16), (5, 16)])
            .optional(&[3, 2, 6])
            .if_any(2);
    for runner in runners {
        table.push([
            runner.name.clone(),
            runner.phase.clone(),
            runner.node.clone().unwrap_or_default(),
            on_server(&runner.target, &runner.host, &hosts),
            age(runner.since_ms, now),
            runner.why.clone().unwrap_or_default(),
            runner.job_id.map(|id| id.to_string()).unwrap_or_default(),
        ]);
    }
    if !runners.is_empty() {
        text += &format!("\n{}", table.within(width));
    }
    let hosts: Vec<String> = waiting.iter().map(|job| job.host.clone()).collect();
    let mut table = Table::new(["REPOSITORY", "LABELS", "WAITED", "DETAILS", "JOB ID"], &[])
        .cut(&[(0, 12), (1, 12), (3, 20)])
        .optional(&[1]);
    for job in waiting {
        table.push([
            on_server(&job.repository, &job.host, &hosts),
            job.labels.join(" "),
            age(job.queued_ms, now),
            job.message.clone(),
            job.job_id.to_string(),
        ]);
    }
    if !waiting.is_empty() {
        text += &format!("\n{}", table.within(width));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;
    use crate::{config::Config, control::snapshot::Snapshot};
    use edgerunner_scheduler::plan::State;

    fn status() -> Value {
        let state = State::new(Config::load(None, &|_| None).unwrap().planner_settings(), 1);
        let snapshot = Snapshot::new(&state, clock::now());
        let mut status = to_value(StatusView { attention: Vec::new(), snapshot }).unwrap();
        let runner = |name: &str, pool: &str| {
            json!({ "name": name, "pool": pool, "host": "github.com", "target": "org:acme",
                "phase": "busy", "since_ms": 1, "created_ms": 1, "registration_id": 5,
                "job_id": 57_012_345_678_u64, "why": null })
        };
        status["runners"] = json!([runner("edge-1", "default"), runner("edge-2", "gpu")]);
        let job = |id: u64, pool: &str| {
            json!({ "job_id": id, "run_attempt": 1, "host": "github.com",
                "repository": "acme/app", "labels": ["self-hosted"], "pool": pool,
                "queued_ms": clock::now().wall - 300_500, "delivery": "d", "reason": "pool_max",
                "message": "the pool is at its max of 10", "until_ms": null })
        };
        status["waiting"] = json!([job(7, "default"), job(8, "gpu")]);
        let failure = |blocks: &str, message: &str| {
            json!({ "blocks": blocks, "cause": "image", "message": message, "failures": 1,
                "since_ms": 1, "until_ms": 2 })
        };
        status["failures"] = json!([
            failure("pool default at org:acme", "no such image"),
            failure("pool default-2", "another")
        ]);
        status
    }

    #[test]
    fn a_pool_is_shown_with_its_own_runners_jobs_and_failures() {
        let pool = find(&status(), "default").unwrap();
        let text = describe(&pool, Width::FULL).unwrap();
        let text = anstream::adapter::strip_str(&text).to_string();
        for part in [
            "Name:          default\n",
            "Labels:        linux, self-hosted, x64\n",
            "Oldest:        5 min\n",
            "Failing:       pool default at org:acme: no such image\n",
            "edge-1  busy   org:acme",
            "57012345678\n",
            "the pool is at its max of 10  7\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for other in ["edge-2", "another", "  8\n", "Draining:", "NODE"] {
            assert!(!text.contains(other), "{other}: {text}");
        }
        let json = to_value(&pool).unwrap();
        assert_eq!(
            (&json["name"], &json["runners"][0]["name"]),
            (&"default".into(), &"edge-1".into())
        );
    }

    #[test]
    fn an_unknown_pool_is_answered_with_the_names_of_those_there_are() {
        let error = find(&status(), "gpus").unwrap_err().to_string();
        assert_eq!(error, "no pool gpus; the pools are default");
    }
}
