//! Recorded states of the page, as the sidecar would send them.

use serde_json::{Map, Value, json};

use crate::recorded::NOW_MS;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const REPOSITORIES: [&str; 4] = ["acme/shop", "acme/payments", "acme/search", "acme/mobile-app"];
const NAMES: [&str; 6] = ["build", "unit tests", "lint", "integration", "docker image", "e2e"];
pub(crate) const SHOWN_JOB: u64 = 7_001;
pub(crate) const SHOWN_RUNNER: &str = "edgerunner-linux-large-0c4f";
pub(crate) const SHOWN_DEAD_RUNNER: &str = "edgerunner-linux-large-91ab";

/// Nothing has happened yet.
pub(crate) fn empty() -> Value {
    json!({
        "version": "1.0.0", "draining": false, "waiting": 0, "runners_live": 0,
        "pools": {
            "gpu": pool("gpu", &["linux", "x64", "gpu"], 4),
            "linux-large": pool("linux-large", &["linux", "x64", "large"], 14),
            "linux-small": pool("linux-small", &["linux", "x64", "small"], 26),
        },
        "jobs": {}, "reasons": {}, "runners": {}, "failed": {}, "nodes": {},
        "node_counts": { "ready": 0, "drained": 0, "too_old": 0, "down": 0 },
        "deliveries": {}, "sidecars": {}, "budgets": [], "spending": [], "attention": [],
        "egress": [], "queue_times": {},
    })
}

/// All is well: jobs run, and none waits.
pub(crate) fn quiet() -> Value {
    let mut state = empty();
    let now = NOW_MS;
    let mut jobs = Map::new();
    for index in 0..8 {
        insert(&mut jobs, running(SHOWN_JOB + index, now - (30 + 41 * index) * SECOND));
    }
    for index in 0..6 {
        insert(&mut jobs, completed(6_000 + index, now - (4 + 9 * index) * MINUTE));
    }
    state["jobs"] = Value::Object(jobs);
    state["runners"] = runners(8);
    state["runners_live"] = json!(9);
    state["pools"]["linux-large"]["busy"] = json!(8);
    state["pools"]["gpu"]["idle"] = json!(1);
    state["pools"]["gpu"]["runner_version"] =
        json!({ "version": "2.335.0", "ends_ms": now + 60 * 24 * HOUR });
    state["queue_times"] = queue_times();
    state["budgets"] = json!([{
        "credential": "github", "account": "acme", "limit": 5_000, "remaining": 4_312,
        "reset_ms": now + 22 * MINUTE, "missed": { "allowed": 1_000, "spent": 12 },
    }]);
    state["spending"] = json!([
        { "credential": "github", "purpose": "launches", "requests": 412, "refused": 0, "failed": 0 },
        { "credential": "github", "purpose": "removals", "requests": 38, "refused": 2, "failed": 0 },
    ]);
    state["deliveries"] = deliveries();
    state["machine"] = json!({
        "memory_mib": 65_536, "promised_memory_mib": 16_384, "promised_cpus": 8.0, "cpus": 16.0,
        "free_disk_mib": 180_224, "reserve_disk_mib": 10_240,
    });
    state
}

/// Something of each group of findings.
pub(crate) fn findings() -> Value {
    let mut state = many_jobs(60);
    state["attention"] = json!([
        {
            "group": "broken", "title": "Failing: pool gpu",
            "text": "pulling ghcr.io/acme/gpu-runner:12: manifest unknown (4 times in a row)",
            "advice": "Correct the image's name, or give its registry a login in [[registries]].",
            "command": "edgerunner doctor", "jobs": 12, "oldest_ms": NOW_MS - 14 * MINUTE,
            "since_ms": NOW_MS - 40 * SECOND, "until_ms": NOW_MS + 80 * SECOND,
        },
        {
            "group": "broken", "title": "1 runner died during a job",
            "text": format!("{SHOWN_DEAD_RUNNER}: killed for lack of memory"),
            "advice": "Read its log, and run the job again at GitHub.",
            "command": format!("edgerunner runners logs {SHOWN_DEAD_RUNNER}"), "jobs": 0,
            "since_ms": NOW_MS - 6 * MINUTE,
        },
        {
            "group": "blocked", "title": "3 jobs blocked",
            "text": "no pool has the label \"windows\" (closest: linux-small)",
            "advice": "Correct runs-on, or add the label to a pool's labels.",
            "command": "edgerunner pools", "jobs": 3, "oldest_ms": NOW_MS - 3 * HOUR,
        },
        {
            "group": "waiting", "title": "45 jobs waiting", "text": "the pool is at its max of 26",
            "advice": "Raise the pool's max, or wait.", "command": "edgerunner pools", "jobs": 45,
            "oldest_ms": NOW_MS - 9 * MINUTE,
        },
    ]);
    state["failed"] = json!({ SHOWN_DEAD_RUNNER: {
        "pool": "linux-large", "target": "repo:acme/shop", "created_ms": NOW_MS - 20 * MINUTE,
        "gone_ms": NOW_MS - 6 * MINUTE, "job": 6_000, "why": "killed for lack of memory",
    } });
    state
}

/// So many jobs wait, with others that run.
pub(crate) fn many_jobs(waiting: u64) -> Value {
    let mut state = quiet();
    let jobs = state["jobs"].as_object_mut().expect("an object");
    for index in 0..waiting {
        insert(jobs, queued(10_000 + index, NOW_MS - 9 * MINUTE + index * 500));
    }
    state["waiting"] = json!(waiting);
    state["oldest_waiting_ms"] = json!(NOW_MS - 9 * MINUTE);
    state["reasons"] = json!({
        "pool_max.1": "the pool is at its max of 26",
        "back_off.1": "paused after an error: manifest unknown; retrying in 80 s",
    });
    state["pools"]["linux-small"]["queued"] = json!(waiting);
    state["attention"] = json!([{
        "group": "waiting", "title": format!("{waiting} jobs waiting"),
        "text": "the pool is at its max of 26", "advice": "Raise the pool's max, or wait.",
        "jobs": waiting, "oldest_ms": NOW_MS - 9 * MINUTE,
    }]);
    state
}

/// With nodes, several sidecars and refused connections.
pub(crate) fn swarm() -> Value {
    let mut state = quiet();
    let node = |name: &str, condition: &str, engine: &str, runners: u64| {
        json!({
            "name": name, "state": if condition == "down" { "down" } else { "ready" },
            "condition": condition, "role": if name == "build-1" { "leader" } else { "worker" },
            "engine": engine, "cpus": 8.0, "memory_mib": 16_384, "reserved_cpus": runners as f64,
            "reserved_memory_mib": runners * 2_048, "runners": runners,
        })
    };
    let mut down = node("build-3", "down", "26.1.5", 0);
    down["message"] = json!("heartbeat failure");
    state["nodes"] = json!({
        "a": node("build-1", "ready", "26.1.5", 5), "b": node("build-2", "ready", "28.5.2", 3), "c": down,
        "d": node("build-4", "drained", "26.1.5", 0),
    });
    state["node_counts"] = json!({ "ready": 2, "drained": 1, "too_old": 0, "down": 1 });
    for (index, (_, runner)) in
        state["runners"].as_object_mut().expect("one").iter_mut().enumerate()
    {
        runner["node"] = json!(format!("build-{}", index % 2 + 1));
    }
    let sidecar = |name: &str, state: &str, version: &str| {
        json!({
            "id": name, "name": name, "version": version, "state": state,
            "started_ms": NOW_MS - 30 * HOUR, "seen_ms": NOW_MS - SECOND, "queued_writes": 0,
        })
    };
    state["sidecars"] = json!({
        "edge-1": sidecar("edge-1", "plans", "1.0.0"), "edge-2": sidecar("edge-2", "accepts", "1.0.0"),
    });
    state["sidecars"]["edge-1"]["term"] = json!(7);
    state["sidecars"]["edge-1"]["since_ms"] = json!(NOW_MS - 26 * HOUR);
    let denial = |host: &str, reason: &str, observed: bool| {
        json!({
            "pool": "linux-small", "host": host, "reason": reason, "observed": observed,
            "connections": 3, "first_ms": NOW_MS - HOUR, "last_ms": NOW_MS - 3 * MINUTE,
            "runner": SHOWN_RUNNER, "job_id": SHOWN_JOB, "repository": "acme/shop",
        })
    };
    state["egress"] = json!([
        denial("registry.npmjs.org:443", "host", false),
        denial("169.254.169.254:80", "address", true),
    ]);
    state
}

/// Everything about `SHOWN_JOB`, as the page asks for it.
pub(crate) fn job() -> Value {
    let at = NOW_MS - 4 * MINUTE;
    let delivery = |id: &str, state: &str, received_ms: u64| json!({ "id": id, "state": state, "received_ms": received_ms, "hook": "default" });
    let other = |id: u64, name: &str, state: &str, conclusion: &str| json!({ "id": id, "run_attempt": 1, "name": name, "state": state, "conclusion": conclusion });
    json!({
        "id": SHOWN_JOB, "run_attempt": 2, "host": "github.com", "state": "completed", "run_id": 555,
        "repository": "acme/shop", "name": "integration (postgres)", "workflow_name": "CI",
        "head_branch": "main", "html_url": "https://github.com/acme/shop/actions/runs/555/job/7001",
        "labels": ["self-hosted", "linux", "large"], "conclusion": "failure",
        "runner_name": SHOWN_DEAD_RUNNER, "delivery": "0c1d7b9e-0000-11ef-8c1f-5d2f4a6b7c8d",
        "created_ms": at, "queued_ms": at + 350, "started_ms": at + 14_200,
        "completed_ms": at + 194_000, "pool": "linux-large", "node": "build-2",
        "launched_ms": at + 390, "container_ms": at + 3_100,
        "runner": dead_runner(),
        "attempts": [other(SHOWN_JOB, "", "completed", "failure"), {
            "id": 7_001, "run_attempt": 1, "name": "", "state": "completed", "conclusion": "cancelled",
        }],
        "deliveries": [
            delivery("0c1d7b9e-0000-11ef-8c1f-5d2f4a6b7c8d", "queued", at + 350),
            delivery("15ad2f70-0000-11ef-9a3e-1f0c7d9e2b4a", "in_progress", at + 14_200),
            delivery("7f4be6d2-0000-11ef-8d55-0b6e3c1a9f87", "completed", at + 194_000),
        ],
        "run": [other(7_002, "build", "completed", "success"), other(7_003, "lint", "in_progress", "")],
    })
}

/// The runner of that job.
pub(crate) fn dead_runner() -> Value {
    let at = NOW_MS - 4 * MINUTE;
    json!({
        "name": SHOWN_DEAD_RUNNER, "pool": "linux-large", "node": "build-2", "host": "github.com",
        "target": "repo:acme/shop", "phase": "gone", "created_ms": at + 390,
        "started_ms": at + 3_100, "online_ms": at + 11_000, "credential": "github-app",
        "job": { "id": SHOWN_JOB, "run_attempt": 2 }, "why": "killed for lack of memory",
        "end": "out_of_memory", "failed": true, "memory_peak_bytes": 2_147_483_648_u64,
        "cpu_peak_millis": 3_900, "gone_ms": at + 195_000,
        "log": "√ Connected to GitHub\n\nCurrent runner version: '2.335.0'\n\
            2026-01-30 09:56:14Z: Listening for Jobs\n\
            2026-01-30 09:56:20Z: Running job: integration (postgres)\n\
            Killed: out of memory\n",
    })
}

/// Of the report.
pub(crate) fn report() -> Value {
    let group = |name: &str, jobs: u64, ran_ms: u64| {
        json!({
            "host": "github.com", "name": name, "jobs": jobs, "ran_ms": ran_ms, "failed": jobs / 9,
            "waited_median_ms": 4_200, "waited_p95_ms": 61_000, "out_of_memory": 1,
            "memory_peak_bytes": 3_221_225_472_u64, "cpu_peak_millis": 3_700,
        })
    };
    let groups = REPOSITORIES
        .iter()
        .zip([9_u64, 6, 4, 1])
        .map(|(name, n)| group(name, n * 90, n * 40 * HOUR));
    json!({
        "groups": groups.collect::<Vec<_>>(), "total": { "jobs": 1_800, "ran_ms": 800 * HOUR, "failed": 200 },
        "left_out": { "never_started": 14, "on_other_runners": 0, "without_times": 0 }, "more": false,
    })
}

fn pool(name: &str, labels: &[&str], max: u64) -> Value {
    json!({
        "name": name, "labels": labels, "queued": 0, "provisioning": 0, "starting": 0, "idle": 0,
        "busy": 0, "leaving": 0, "min_idle": 0, "parking": 0, "parked": 0, "parked_not_started": 0,
        "parked_wanted": 0, "max": max, "draining": false, "all_draining": false,
    })
}

fn insert(jobs: &mut Map<String, Value>, job: Value) {
    jobs.insert(format!("{}.1.github.com", job["id"]), job);
}

fn job_row(id: u64, state: &str, queued_ms: u64) -> Value {
    let index = usize::try_from(id).expect("a small number");
    let size = ["small", "large", "small"][index % 3];
    json!({
        "id": id, "state": state, "repository": REPOSITORIES[index / 3 % 4],
        "name": NAMES[index % 6], "workflow": if index.is_multiple_of(5) { "Nightly" } else { "CI" },
        "labels": format!("self-hosted, linux, {size}"), "pool": format!("linux-{size}"),
        "url": format!("https://github.com/acme/shop/actions/runs/{}/job/{id}", id / 4),
        "created_ms": queued_ms - 350, "queued_ms": queued_ms,
    })
}

fn queued(id: u64, queued_ms: u64) -> Value {
    let mut job = job_row(id, "queued", queued_ms);
    job["reason"] = json!(if id.is_multiple_of(5) { "back_off.1" } else { "pool_max.1" });
    job
}

fn running(id: u64, queued_ms: u64) -> Value {
    let mut job = job_row(id, "in_progress", queued_ms);
    job["runner"] = json!(format!("edgerunner-linux-large-{:04x}", id % 7_001 + 3_151));
    job["launched_ms"] = json!(queued_ms + 40);
    job["container_ms"] = json!(queued_ms + 2 * SECOND);
    job["started_ms"] = json!(queued_ms + 9 * SECOND);
    job
}

fn completed(id: u64, queued_ms: u64) -> Value {
    let mut job = running(id, queued_ms);
    job["state"] = json!("completed");
    job["conclusion"] = json!(if id.is_multiple_of(3) { "failure" } else { "success" });
    job["completed_ms"] = json!(queued_ms + 100 * SECOND);
    job
}

fn runners(busy: u64) -> Value {
    let mut runners = Map::new();
    for index in 0..busy {
        let name = format!("edgerunner-linux-large-{:04x}", index + 3_151);
        let at = NOW_MS - (30 + 41 * index) * SECOND;
        let row = json!({
            "pool": "linux-large", "target": "repo:acme/shop", "phase": "busy", "created_ms": at,
            "since_ms": at + 9 * SECOND, "job": SHOWN_JOB + index,
        });
        runners.insert(name, row);
    }
    let idle = json!({
        "pool": "gpu", "target": "org:acme", "phase": "idle", "created_ms": NOW_MS - 26 * HOUR,
        "since_ms": NOW_MS - 2 * HOUR,
    });
    runners.insert("edgerunner-gpu-77d0".into(), idle);
    Value::Object(runners)
}

fn queue_times() -> Value {
    const STEP: u64 = 5 * MINUTE;
    let step = |index: u64| {
        let median_ms = 4 * SECOND + index * 37 % 11 * SECOND;
        let times =
            json!({ "jobs": 3 + index % 5, "median_ms": median_ms, "longest_ms": 3 * median_ms });
        ((NOW_MS / STEP * STEP - index * STEP).to_string(), times)
    };
    Value::Object((0..60).map(step).collect())
}

fn deliveries() -> Value {
    let delivery = |index: u64| {
        let state = match index % 3 {
            0 => "queued",
            1 => "in_progress",
            _ => "completed",
        };
        let row = json!({
            "received_ms": NOW_MS - index * 17 * SECOND, "state": state,
            "job": SHOWN_JOB + index % 8, "attempt": 1, "repository": "acme/shop", "name": "build",
            "hook": "default", "stale": index == 4,
        });
        (format!("{:08x}-0000-11ef-8c1f-5d2f4a6b7c8d", 202_511_872 + index * 7_919), row)
    };
    Value::Object((0..9).map(delivery).collect())
}
