//! `edgerunner jobs show`: everything about one job.

use anyhow::Result;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use super::{details, ran, waited};
use crate::{
    api::views::{JobHistoryView, JobStateView},
    cli::output::{age, fields, parse},
    control::clock,
};
use edgerunner_scheduler::model::{JobState, UnixMs};

/// One block for each attempt.
pub(super) fn describe(attempts: &Value) -> Result<String> {
    let attempts: Vec<JobHistoryView> = parse(attempts.clone())?;
    let now = clock::now().wall;
    let blocks: Vec<String> = attempts.iter().map(|attempt| block(attempt, now)).collect();
    Ok(blocks.join("\n"))
}

fn block(
    JobHistoryView { job, pool, node, launched_ms, container_ms }: &JobHistoryView,
    now: UnixMs,
) -> String {
    let time = |at: Option<UnixMs>| at.map(|at| moment(at, now)).unwrap_or_default();
    let waits = matches!(job.state, JobStateView::Queued);
    let from_fork = job.from_fork.map(|it| if it { "yes" } else { "no" });
    let rows = [
        ("Name", job.name.clone()),
        ("Workflow", job.workflow_name.clone()),
        ("Repository", job.repository.clone()),
        ("Organization", job.organization.clone()),
        ("Enterprise", job.enterprise.clone()),
        ("Server", job.host.clone()),
        ("Branch", job.head_branch.clone()),
        ("Labels", job.labels.join(", ")),
        ("State", JobState::from(job.state).as_str().to_owned()),
        ("Waits because", if waits { details(job).to_owned() } else { String::new() }),
        ("Conclusion", job.conclusion.clone()),
        ("Pool", pool.clone().unwrap_or_default()),
        ("Runner", job.runner_name.clone()),
        ("Node", node.clone().unwrap_or_default()),
        ("Created", time(job.created_ms)),
        ("Queued", time(Some(job.queued_ms))),
        ("Launched", time(*launched_ms)),
        ("Container", time(*container_ms)),
        ("Started", time(job.started_ms)),
        ("Completed", time(job.completed_ms)),
        ("Waited", waited(job, now)),
        ("Ran", ran(job, now).unwrap_or_default()),
        ("ID", job.id.to_string()),
        ("Attempt", job.run_attempt.to_string()),
        ("Run", job.run_id.to_string()),
        ("Visibility", job.visibility.clone().unwrap_or_default()),
        ("From a fork", from_fork.unwrap_or_default().to_owned()),
        ("URL", job.html_url.clone()),
        ("Delivery", job.delivery.clone()),
    ];
    fields(rows)
}

/// `2026-01-31 23:59:59 UTC (5 min ago)`.
fn moment(at: UnixMs, now: UnixMs) -> String {
    let time = i64::try_from(at).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    let time = time.map(|time| time.to_zoned(TimeZone::UTC).strftime("%F %T UTC").to_string());
    format!("{} ({} ago)", time.unwrap_or_default(), age(at, now))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::job, *};

    #[test]
    fn a_job_is_shown_with_its_url_and_the_reason_in_full() {
        let text =
            describe(&json!([job(7, "queued", Some("the pool is at its max of 4"))])).unwrap();
        for part in [
            "Name:          build 7\n",
            "Workflow:      CI\n",
            "Organization:  acme\n",
            "Labels:        self-hosted\n",
            "Waits because: the pool is at its max of 4\n",
            "Pool:          default\n",
            "Queued:        1970-01-01 00:00:00 UTC (",
            "URL:           https://github.com/x\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for none in ["Runner:", "Node:", "Enterprise:", "Ran:"] {
            assert!(!text.contains(none), "{text}");
        }
    }

    #[test]
    fn a_job_that_ran_on_a_node_is_shown_with_it_and_how_long_it_waited_and_ran() {
        let mut done = job(7, "completed", None);
        (done["runner_name"], done["node"]) = ("edge-1".into(), "build-1".into());
        (done["started_ms"], done["completed_ms"]) = (5_001.into(), 305_001.into());
        let text = describe(&json!([done])).unwrap();
        assert!(text.contains("Runner:        edge-1\nNode:          build-1\n"), "{text}");
        assert!(text.contains("Waited:        5 s\nRan:           5 min\n"), "{text}");
    }
}
