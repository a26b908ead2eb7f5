//! Follows the sandbox's jobs, and prints each event.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;
use bollard::models::ContainerSummaryStateEnum;
use edgerunner_testkit::Deployment;
use serde_json::Value;

pub(crate) struct Smoke {
    clock: Instant,
    printed: BTreeSet<String>,
    /// Names of containers that were seen running and are not gone.
    running: BTreeSet<String>,
    completed: bool,
}

impl Smoke {
    pub(crate) fn new() -> Self {
        let clock = Instant::now();
        Self { clock, printed: BTreeSet::new(), running: BTreeSet::new(), completed: false }
    }

    /// Whether all jobs are completed, and all containers are gone.
    pub(crate) fn done(&self) -> bool {
        self.completed && self.running.is_empty()
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
            if self.done() && !self.printed.contains(&line) {
                // Times count from the first job after a pause.
                self.clock = Instant::now();
            }
            self.print_once("job", line);
        }
        self.completed = !jobs.is_empty() && jobs.iter().all(|job| job.status == "completed");
        // The delivery of a job that is not listed yet is printed after the next poll.
        let (announcing, others): (Vec<_>, Vec<_>) = deliveries
            .iter()
            .filter(|delivery| jobs.iter().any(|job| delivery.job_id == Some(job.id)))
            .map(|delivery| {
                let action = delivery.action.as_deref().unwrap_or_default();
                let body = delivery.response_body.as_deref().unwrap_or_default();
                let (id, status) = (delivery.id, delivery.status_code);
                (action == "queued", format!("{id}: {action} → {status} {}", summary(body)))
            })
            .partition(|(announces, _)| *announces);
        for (_, line) in announcing {
            self.print_once("webhook", line);
        }
        let mut present = BTreeSet::new();
        for container in containers {
            let name = container.names.unwrap_or_default().join(" ");
            let name = name.trim_start_matches('/').to_owned();
            if container.state == Some(ContainerSummaryStateEnum::RUNNING) {
                self.print_once("container", format!("{name} is running"));
                self.running.insert(name.clone());
            }
            present.insert(name);
        }
        for job in jobs.iter().filter(|job| job.status != "queued") {
            let conclusion = job.conclusion.as_ref().map(|it| format!(": {it}"));
            let status = job.status.replace('_', " ");
            let line = format!("{} is {status}{}", job.id, conclusion.unwrap_or_default());
            self.print_once("job", line);
        }
        for (_, line) in others {
            self.print_once("webhook", line);
        }
        for name in self.running.difference(&present).cloned().collect::<Vec<_>>() {
            self.print_once("container", format!("{name} is gone"));
            self.running.remove(&name);
        }
        Ok(())
    }

    fn print_once(&mut self, subject: &str, event: String) {
        if !self.printed.contains(&event) {
            println!("{:>8.2} s  {subject:<9}  {event}", self.clock.elapsed().as_secs_f64());
            self.printed.insert(event);
        }
    }
}

/// A summary of the filter's response, or the response as it is.
fn summary(body: &str) -> String {
    let json = serde_json::from_str::<Value>(body).unwrap_or_default();
    match (json["outcome"].as_str(), json["pool"].as_str()) {
        (Some(outcome), Some(pool)) => format!("{outcome}, pool {pool}"),
        (Some(outcome), None) => outcome.to_owned(),
        _ => body.trim().to_owned(),
    }
}
