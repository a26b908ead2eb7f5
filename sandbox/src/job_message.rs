//! The message with which the run service hands a job to a runner.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::job::{Conclusion, Job};
use crate::payload::{ACTOR, BRANCH, Urls, WORKFLOW_NAME, head_sha, id_of};
use crate::protocol::{JobMessage, SANDBOX_VARIABLE};

/// Which ids of the protocol are derived from a job, as UUIDs.
#[derive(Clone, Copy)]
enum IdKind {
    Job = 1,
    Plan = 2,
    Request = 3,
    Timeline = 4,
    Step = 5,
}

fn uuid_of(kind: IdKind, id: u64) -> String {
    let (kind, id) = (kind as u128, u128::from(id));
    uuid::Builder::from_random_bytes((kind << 64 | id).to_be_bytes()).into_uuid().to_string()
}

/// The job's `jobId`.
pub(crate) fn job_uuid(job: u64) -> String {
    uuid_of(IdKind::Job, job)
}

/// The job's `runner_request_id` and `jobMessageId`.
pub(crate) fn request_uuid(job: u64) -> String {
    uuid_of(IdKind::Request, job)
}

/// The `planId` of a workflow run.
pub(crate) fn plan_uuid(run: u64) -> String {
    uuid_of(IdKind::Plan, run)
}

/// Whether the text is this UUID, in any spelling.
pub(crate) fn same_uuid(text: &str, uuid: &str) -> bool {
    text.eq_ignore_ascii_case(uuid)
        || Uuid::parse_str(text).is_ok_and(|parsed| parsed.to_string() == uuid)
}

/// A mapping of a workflow's values.
fn dictionary(entries: &[(&str, Value)]) -> Value {
    let entries: Vec<Value> =
        entries.iter().map(|(key, value)| json!({ "k": key, "v": value })).collect();
    json!({ "t": 2, "d": entries })
}

fn literal(text: &str) -> Value {
    json!({ "type": 0, "lit": text })
}

/// An `AgentJobRequestMessage`.
pub(crate) struct MessageFor<'a> {
    pub job: &'a Job,
    pub urls: &'a Urls,
    /// Ends in a slash, like the next.
    pub run_service_url: &'a str,
    pub results_url: &'a str,
    /// The job's access token.
    pub token: &'a str,
    pub group_name: &'a str,
    pub locked_until: &'a str,
}

impl MessageFor<'_> {
    pub(crate) fn json(&self) -> Result<Value, serde_json::Error> {
        let Self { job, urls, run_service_url, .. } = *self;
        let repository = job.repository.to_string();
        let for_stand_in = serde_json::to_string(&stand_in_message(job))?;
        let variable = |value: &str| json!({ "value": value });
        let secret = |value: &str| json!({ "value": value, "isSecret": true });
        let text = |value: &str| Value::from(value);
        let github = dictionary(&[
            ("actor", text(ACTOR)),
            ("api_url", text(urls.origin())),
            ("event_name", text("push")),
            ("event", dictionary(&[("ref", text(&format!("refs/heads/{BRANCH}")))])),
            ("graphql_url", text(&urls.to("graphql"))),
            ("head_ref", text("")),
            ("base_ref", text("")),
            ("job", text(&job.name)),
            ("ref", text(&format!("refs/heads/{BRANCH}"))),
            ("ref_name", text(BRANCH)),
            ("ref_type", text("branch")),
            ("repository", text(&repository)),
            ("repository_owner", text(&job.repository.owner)),
            ("repositoryUrl", text(&format!("{}.git", urls.to(&repository)))),
            ("retention_days", text("90")),
            ("run_attempt", text(&job.run_attempt.to_string())),
            ("run_id", text(&job.run_id.to_string())),
            ("run_number", text(&job.run_number.to_string())),
            ("server_url", text(urls.origin())),
            ("sha", text(&head_sha(&job.repository))),
            ("token", text(self.token)),
            ("triggering_actor", text(ACTOR)),
            ("workflow", text(WORKFLOW_NAME)),
            ("workspace", text("")),
        ]);
        let endpoint = json!({
            "name": "SystemVssConnection",
            "url": run_service_url,
            "authorization": {
                "scheme": "OAuth",
                "parameters": { "AccessToken": self.token },
            },
            "data": { "ResultsServiceUrl": self.results_url },
            "isShared": false,
            "isReady": true,
        });
        Ok(json!({
            "messageType": "RunnerJobRequest",
            "plan": {
                "scopeIdentifier": Uuid::nil().to_string(),
                "planType": "actions",
                "version": 12,
                "planId": plan_uuid(job.run_id),
                "planGroup": "actions",
            },
            "timeline": {
                "id": uuid_of(IdKind::Timeline, job.id),
                "changeId": 1,
                "location": null,
            },
            "jobId": job_uuid(job.id),
            "jobDisplayName": job.name,
            "jobName": "__default",
            "requestId": job.id,
            "lockedUntil": self.locked_until,
            "runServiceUrl": run_service_url,
            "billingOwnerId": id_of(&job.repository.owner).to_string(),
            "resources": { "endpoints": [endpoint] },
            "contextData": {
                "github": github,
                "needs": dictionary(&[]),
                "vars": dictionary(&[]),
            },
            "workspace": {},
            "mask": [],
            "environmentVariables": [],
            "defaults": [],
            "fileTable": [".github/workflows/ci.yml"],
            "variables": {
                "system.github.job": variable("build"),
                "system.github.token": secret(self.token),
                "system.github.results_endpoint": variable(self.results_url),
                "system.runnerGroupName": variable(self.group_name),
                SANDBOX_VARIABLE: variable(&for_stand_in),
            },
            "steps": [{
                "type": "action",
                "id": uuid_of(IdKind::Step, job.id),
                "name": "__run",
                "contextName": "__run",
                "displayNameToken": literal("Work"),
                "condition": "success()",
                "reference": { "type": "script" },
                "inputs": {
                    "type": 2,
                    "map": [{ "Key": literal("script"), "Value": literal(&script(job)) }],
                },
            }],
        }))
    }
}

/// The job for runners that do not know the sandbox: it takes as long, and ends in the same way if
/// a script can.
fn script(job: &Job) -> String {
    let end = match job.planned_conclusion {
        Conclusion::Success | Conclusion::Neutral | Conclusion::Skipped => "exit 0",
        _ => "exit 1",
    };
    format!("sleep {}\n{end}\n", job.seconds)
}

fn stand_in_message(job: &Job) -> JobMessage {
    JobMessage {
        job_id: job.id,
        name: job.name.clone(),
        repository: job.repository.clone(),
        run_id: job.run_id,
        run_number: job.run_number,
        run_attempt: job.run_attempt,
        steps: job.steps.clone(),
        seconds: job.seconds,
        conclusion: job.planned_conclusion,
    }
}
