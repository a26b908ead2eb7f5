//! Checks for jobs that no pool runs, and what the running sidecar says of room.

use anyhow::Result;
use serde_json::Value;

use super::report::Report;
use crate::{
    cli::output::{parse, printable},
    control::snapshot::{MachineView, Snapshot},
};
use edgerunner_scheduler::plan::Waiting;

const JOBS: &str = "waiting jobs";
const ROOM: &str = "room now";

/// `status`: of the sidecar, if it is ready.
pub(super) fn check(status: Option<&Result<Value>>, report: &mut Report) {
    let snapshot = match status {
        None => return report.skipped(JOBS, "the sidecar knows them once it is ready"),
        Some(Err(error)) => return report.skipped(JOBS, format!("{error:#}")),
        Some(Ok(status)) => parse::<Snapshot>(status.clone()),
    };
    match snapshot {
        Ok(snapshot) => {
            check_jobs(&snapshot, report);
            if let Some(machine) = &snapshot.machine {
                check_room(machine, report);
            }
        }
        Err(error) => report.failed(JOBS, format!("{error:#}")),
    }
}

fn check_jobs(snapshot: &Snapshot, report: &mut Report) {
    let unmatched = snapshot.unmatched.iter().filter(|it| it.reason != Waiting::NOT_SELF_HOSTED);
    let mut found = 0;
    for set in unmatched {
        found += set.jobs;
        let jobs = if set.jobs == 1 { "1 job".to_owned() } else { format!("{} jobs", set.jobs) };
        let labels = match &set.labels[..] {
            [] => "without labels".to_owned(),
            labels => format!("for {}", labels.join(", ")),
        };
        let what = format!(
            "{jobs} {labels}, such as of {}, will not run: {}. Correct runs-on, or the pools",
            set.repository, set.message
        );
        report.warning(JOBS, printable(what));
    }
    if found == 0 {
        let waiting = snapshot.waiting.len();
        report.ok(JOBS, format!("{waiting}, and a pool serves each of them"));
    }
}

fn check_room(machine: &MachineView, report: &mut Report) {
    if let Some((free, reserve)) = machine.free_disk_mib.zip(machine.reserve_disk_mib)
        && machine.disk_is_short()
    {
        let what = format!(
            "{free} MiB of disk are free, and nothing is launched below {reserve} MiB: remove \
             something from the disk of Docker's directory, or lower docker.reserve_disk_mib"
        );
        return report.failed(ROOM, what);
    }
    let memory = machine
        .memory_mib
        .map(|all| format!("{} of {all} MiB of memory", machine.promised_memory_mib));
    let cpus = machine.cpus.map(|all| format!("{} of {all} CPUs", machine.promised_cpus));
    let parts: Vec<String> = memory.into_iter().chain(cpus).collect();
    if !parts.is_empty() {
        report.ok(ROOM, format!("runners may use {}", parts.join(" and ")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(snapshot: Snapshot) -> Vec<Value> {
        let mut report = Report::default();
        let status = Ok(serde_json::to_value(snapshot).unwrap());
        check(Some(&status), &mut report);
        report.to_json().as_array().unwrap().clone()
    }

    #[test]
    fn jobs_that_no_pool_runs_are_warnings_and_those_for_other_runners_are_not() {
        let set = |reason: &str| {
            let set = json!({
                "labels": ["self-hosted", "gpu"], "reason": reason, "jobs": 2, "queued_ms": 1,
                "message": "no pool has the label \"gpu\"", "repository": "acme/app",
            });
            serde_json::from_value(set).unwrap()
        };
        let with = |reason| Snapshot { unmatched: vec![set(reason)], ..Snapshot::unknown() };
        let warned = found(with("no_pool_has_labels"));
        assert_eq!(warned[0]["outcome"], "warning");
        let message = warned[0]["message"].as_str().unwrap();
        assert!(
            message.starts_with("2 jobs for self-hosted, gpu, such as of acme/app"),
            "{message}"
        );
        assert_eq!(found(with(Waiting::NOT_SELF_HOSTED))[0]["outcome"], "ok");
        assert_eq!(found(Snapshot::unknown())[0]["outcome"], "ok");
    }

    #[test]
    fn a_full_disk_is_a_failure_and_what_is_promised_is_shown() {
        let with = |free| {
            let machine = MachineView {
                memory_mib: Some(4_096),
                promised_memory_mib: 1_024,
                cpus: None,
                promised_cpus: 0.0,
                free_disk_mib: Some(free),
                reserve_disk_mib: Some(1_024),
            };
            found(Snapshot { machine: Some(machine), ..Snapshot::unknown() }).remove(1)
        };
        assert_eq!(with(1_023)["outcome"], "failed");
        let room = with(1_024);
        assert_eq!(room["message"], "runners may use 1024 of 4096 MiB of memory");
    }
}
