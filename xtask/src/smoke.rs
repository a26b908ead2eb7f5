//! Follows the sandbox's jobs, and prints each event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::Result;
use bollard::models::ContainerSummaryStateEnum;
use edgerunner_testkit::Deployment;
use edgerunner_testkit::sandbox::{Delivery, Job};
use serde_json::Value;

pub(crate) struct Smoke {
    clock: Instant,
    /// The last printed status by job.
    jobs: BTreeMap<u64, String>,
    deliveries: BTreeSet<u64>,
    /// Names of running containers.
    running: BTreeSet<String>,
    ran: bool,
}

impl Smoke {
    pub(crate) fn new() -> Self {
        Self {
            clock: Instant::now(),
            jobs: BTreeMap::new(),
            deliveries: BTreeSet::new(),
            running: BTreeSet::new(),
            ran: false,
        }
    }

    /// Whether all jobs are completed, and all containers are gone.
    pub(crate) fn done(&self) -> bool {
        self.ran && self.idle()
    }

    fn idle(&self) -> bool {
        self.running.is_empty() && self.jobs.values().all(|status| status == "completed")
    }

    /// Polls once and prints new events.
    pub(crate) async fn poll(&mut self, deployment: &Deployment) -> Result<()> {
        // Jobs come before their deliveries, and these before the containers.
        let jobs = deployment.sandbox().jobs().await?;
        let deliveries = deployment.sandbox().deliveries().await?;
        let containers = deployment.containers.list().await?;

        for job in &jobs {
            self.job_queued(job);
        }
        let (announcing, others): (Vec<_>, Vec<_>) =
            deliveries.iter().partition(|delivery| delivery.action.as_deref() == Some("queued"));
        for delivery in announcing {
            self.delivery(delivery);
        }
        let mut running = BTreeSet::new();
        let mut present = BTreeSet::new();
        for container in containers {
            let name = container.names.unwrap_or_default().join(" ");
            let name = name.trim_start_matches('/').to_owned();
            if container.state == Some(ContainerSummaryStateEnum::RUNNING) {
                running.insert(name.clone());
            }
            present.insert(name);
        }
        for name in running.difference(&self.running.clone()) {
            self.print("container", &format!("{name} is running"));
            self.running.insert(name.clone());
            self.ran = true;
        }
        for job in &jobs {
            self.job_changed(job);
        }
        for delivery in others {
            self.delivery(delivery);
        }
        for name in self.running.clone().difference(&present) {
            self.print("container", &format!("{name} is gone"));
            self.running.remove(name);
        }
        Ok(())
    }

    fn job_queued(&mut self, job: &Job) {
        if self.jobs.contains_key(&job.id) {
            return;
        }
        // Times count from the first job after a pause.
        if self.idle() {
            self.clock = Instant::now();
        }
        self.jobs.insert(job.id, "queued".to_owned());
        let repository = job.repository.as_str().unwrap_or_default();
        self.print(
            "job",
            &format!("{} of {repository} is queued, labels: {}", job.id, job.labels.join(", ")),
        );
    }

    fn job_changed(&mut self, job: &Job) {
        match self.jobs.insert(job.id, job.status.clone()) {
            Some(before) if before != job.status => {}
            _ => return,
        }
        let conclusion = job.conclusion.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
        self.print("job", &format!("{} is {}{conclusion}", job.id, job.status.replace('_', " ")));
    }

    fn delivery(&mut self, delivery: &Delivery) {
        // The delivery of a job that is not known yet is printed after the next poll.
        if delivery.job_id.is_some_and(|id| !self.jobs.contains_key(&id))
            || !self.deliveries.insert(delivery.id)
        {
            return;
        }
        let action = delivery.action.as_deref().unwrap_or("ping");
        let body = delivery.response_body.as_deref().unwrap_or_default();
        self.print("webhook", &format!("{action} → {} {}", delivery.status_code, summary(body)));
    }

    fn print(&self, subject: &str, event: &str) {
        println!("{:>8.2} s  {subject:<9}  {event}", self.clock.elapsed().as_secs_f64());
    }
}

/// A summary of the filter's response, or the response as it is.
fn summary(body: &str) -> String {
    let Ok(json) = serde_json::from_str::<Value>(body) else {
        return body.trim().to_owned();
    };
    match (json["outcome"].as_str(), json["pool"].as_str()) {
        (Some(outcome), Some(pool)) => format!("{outcome}, pool {pool}"),
        (Some(outcome), None) => outcome.to_owned(),
        _ => body.trim().to_owned(),
    }
}
