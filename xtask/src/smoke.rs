//! Follows the sandbox's jobs, and prints each event.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;
use bollard::models::ContainerSummaryStateEnum;
use edgerunner_testkit::Deployment;
use edgerunner_testkit::sandbox::Delivery;
use serde_json::Value;

pub(crate) struct Smoke {
    clock: Instant,
    /// Events, with the id of their delivery, or 0.
    printed: BTreeSet<(u64, String)>,
    /// Names of containers that were seen running and are not gone.
    running: BTreeSet<String>,
    ran: bool,
    completed: bool,
}

impl Smoke {
    pub(crate) fn new() -> Self {
        Self {
            clock: Instant::now(),
            printed: BTreeSet::new(),
            running: BTreeSet::new(),
            ran: false,
            completed: false,
        }
    }

    /// Whether all jobs are completed, and their containers have run and are gone.
    pub(crate) fn done(&self) -> bool {
        self.completed && self.ran && self.running.is_empty()
    }

    /// Polls once and prints new events.
    pub(crate) async fn poll(&mut self, deployment: &Deployment) -> Result<()> {
        // Jobs come before their deliveries, and these before the containers.
        let jobs = deployment.sandbox().jobs().await?;
        let deliveries = deployment.sandbox().deliveries().await?;
        let containers = deployment.containers.list().await?;

        for job in &jobs {
            let repository = job.repository.as_str().unwrap_or_default();
            let labels = job.labels.join(", ");
            let line = format!("{} of {repository} is queued, labels: {labels}", job.id);
            if self.done() && !self.printed.contains(&(0, line.clone())) {
                // Times count from the first job after a pause.
                self.clock = Instant::now();
            }
            self.print_once("job", 0, line);
        }
        self.completed = !jobs.is_empty() && jobs.iter().all(|job| job.status == "completed");
        // The delivery of a job that is not listed yet is printed after the next poll.
        let (announcing, others): (Vec<_>, Vec<_>) = deliveries
            .iter()
            .filter(|delivery| delivery.job_id.is_none_or(|id| jobs.iter().any(|it| it.id == id)))
            .partition(|delivery| delivery.action.as_deref() == Some("queued"));
        for delivery in announcing {
            self.print_once("webhook", delivery.id, outcome(delivery));
        }
        let mut present = BTreeSet::new();
        for container in containers {
            let name = container.names.unwrap_or_default().join(" ");
            let name = name.trim_start_matches('/').to_owned();
            if container.state == Some(ContainerSummaryStateEnum::RUNNING) {
                self.print_once("container", 0, format!("{name} is running"));
                self.running.insert(name.clone());
                self.ran = true;
            }
            present.insert(name);
        }
        for job in jobs.iter().filter(|job| job.status != "queued") {
            let conclusion = job.conclusion.as_ref().map(|it| format!(": {it}"));
            let status = job.status.replace('_', " ");
            let line = format!("{} is {status}{}", job.id, conclusion.unwrap_or_default());
            self.print_once("job", 0, line);
        }
        for delivery in others {
            self.print_once("webhook", delivery.id, outcome(delivery));
        }
        for name in self.running.difference(&present).cloned().collect::<Vec<_>>() {
            self.print_once("container", 0, format!("{name} is gone"));
            self.running.remove(&name);
        }
        Ok(())
    }

    fn print_once(&mut self, subject: &str, delivery: u64, event: String) {
        let elapsed = self.clock.elapsed().as_secs_f64();
        let line = format!("{elapsed:>8.2} s  {subject:<9}  {event}");
        if self.printed.insert((delivery, event)) {
            println!("{line}");
        }
    }
}

/// The action, and the filter's response, or the response of another program as it is.
fn outcome(delivery: &Delivery) -> String {
    let body = delivery.response_body.as_deref().unwrap_or_default();
    let json = serde_json::from_str::<Value>(body).unwrap_or_default();
    let outcome = match (json["outcome"].as_str(), json["pool"].as_str()) {
        (Some(outcome), Some(pool)) => format!("{outcome}, pool {pool}"),
        (Some(outcome), None) => outcome.to_owned(),
        _ => body.trim().to_owned(),
    };
    let action = delivery.action.as_deref().unwrap_or("ping");
    let job = delivery.job_id.map(|id| format!(" of job {id}")).unwrap_or_default();
    format!("{action}{job} → {} {outcome}", delivery.status_code)
}
