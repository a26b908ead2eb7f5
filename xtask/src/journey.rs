//! What becomes of the sandbox's jobs, told as it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::Result;
use bollard::models::ContainerSummaryStateEnum;
use serde_json::Value;

use crate::sandbox::{Delivery, Job, Sandbox};
use crate::stack::Stack;

pub(crate) struct Journey {
    sandbox: Sandbox,
    clock: Instant,
    /// The last status that was told, by job.
    jobs: BTreeMap<u64, String>,
    deliveries: BTreeSet<u64>,
    /// Names of containers that run.
    running: BTreeSet<String>,
    ran: bool,
}

impl Journey {
    pub(crate) fn new(sandbox: Sandbox) -> Self {
        Self {
            sandbox,
            clock: Instant::now(),
            jobs: BTreeMap::new(),
            deliveries: BTreeSet::new(),
            running: BTreeSet::new(),
            ran: false,
        }
    }

    /// Whether every job is completed, and the containers have come and gone.
    pub(crate) fn over(&self) -> bool {
        self.ran && self.resting()
    }

    fn resting(&self) -> bool {
        self.running.is_empty() && self.jobs.values().all(|status| status == "completed")
    }

    /// Looks once and tells what is new.
    pub(crate) async fn look(&mut self, stack: &Stack) -> Result<()> {
        // In this order a job is known before its deliveries, and these come
        // before what they lead to.
        let jobs = self.sandbox.jobs().await?;
        let deliveries = self.sandbox.deliveries().await?;
        let containers = stack.containers().await?;

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
            self.tell("container", &format!("{name} is running"));
            self.running.insert(name.clone());
            self.ran = true;
        }
        for job in &jobs {
            self.job_moved(job);
        }
        for delivery in others {
            self.delivery(delivery);
        }
        for name in self.running.clone().difference(&present) {
            self.tell("container", &format!("{name} is gone"));
            self.running.remove(name);
        }
        Ok(())
    }

    fn job_queued(&mut self, job: &Job) {
        if self.jobs.contains_key(&job.id) {
            return;
        }
        // Times count from the job that ended the rest.
        if self.resting() {
            self.clock = Instant::now();
        }
        self.jobs.insert(job.id, "queued".to_owned());
        let repository = job.repository.as_str().unwrap_or_default();
        self.tell(
            "job",
            &format!("{} of {repository} is queued, labels: {}", job.id, job.labels.join(", ")),
        );
    }

    fn job_moved(&mut self, job: &Job) {
        match self.jobs.insert(job.id, job.status.clone()) {
            Some(before) if before != job.status => {}
            _ => return,
        }
        let how = job.conclusion.as_ref().map(|how| format!(": {how}")).unwrap_or_default();
        self.tell("job", &format!("{} is {}{how}", job.id, job.status.replace('_', " ")));
    }

    fn delivery(&mut self, delivery: &Delivery) {
        // That of a job not seen yet waits for the next look.
        if delivery.job_id.is_some_and(|id| !self.jobs.contains_key(&id))
            || !self.deliveries.insert(delivery.id)
        {
            return;
        }
        let action = delivery.action.as_deref().unwrap_or("ping");
        let body = delivery.response_body.as_deref().unwrap_or_default();
        self.tell("webhook", &format!("{action} → {} {}", delivery.status_code, answer(body)));
    }

    fn tell(&self, what: &str, happened: &str) {
        println!("{:>8.2} s  {what:<9}  {happened}", self.clock.elapsed().as_secs_f64());
    }
}

/// The filter's one line of JSON for people, or whatever else was answered.
fn answer(body: &str) -> String {
    let Ok(json) = serde_json::from_str::<Value>(body) else {
        return body.trim().to_owned();
    };
    match (json["outcome"].as_str(), json["pool"].as_str()) {
        (Some(outcome), Some(pool)) => format!("{outcome}, pool {pool}"),
        (Some(outcome), None) => outcome.to_owned(),
        _ => body.trim().to_owned(),
    }
}
