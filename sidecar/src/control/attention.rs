//! What somebody should know of, as the page and `edgerunner status` show it first: what is broken,
//! what never runs unless somebody acts, and what waits as it should.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    control::{
        sidecars::{SidecarState, SidecarView},
        snapshot::{
            BudgetView, FailureView, NodeView, PoolView, RefusedWebhookView, Snapshot, WaitingView,
        },
    },
    github::REFUSED_FOR_MS,
    provider::node::Condition,
    store::RunnerRecord,
};
use edgerunner_scheduler::{
    model::{Cause, UnixMs},
    plan::Waiting,
};

/// Findings of one group. More have one line together.
const OF_GROUP_MAX: usize = 10;
/// Names in one of them.
const NAMED_MAX: usize = 3;
/// Runners that failed last, among which those that died during a job are searched.
pub(crate) const FAILED_MAX: u32 = 20;
/// A runner that died is of interest for this long.
const DIED_FOR_MS: UnixMs = 3_600_000;
/// The command of findings about sidecars.
pub(crate) const SIDECARS: &str = "edgerunner sidecars";
/// The part of a quota that is nearly none.
const NEARLY_USED_UP: u64 = 20;

/// In the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[schema(as = FindingGroup)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Group {
    /// It needs somebody.
    Broken,
    /// Jobs that never run unless somebody acts.
    Blocked,
    /// Jobs that wait as they should.
    Waiting,
}

/// One cause, said once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Finding {
    pub group: Group,
    pub title: String,
    /// The cause in words.
    pub text: String,
    /// What to do about it; empty if that is to wait.
    pub advice: String,
    /// A command for that; `null` without one.
    pub command: Option<String>,
    /// Jobs that wait because of it.
    pub jobs: usize,
    /// When the oldest of them was queued.
    pub oldest_ms: Option<UnixMs>,
    /// When it last failed; `null` if it is no failure.
    pub since_ms: Option<UnixMs>,
    /// When it is tried again, or ends by itself; `null` if that is not known.
    pub until_ms: Option<UnixMs>,
}

impl Finding {
    pub(crate) fn broken(title: &str, text: &str) -> Self {
        Self::new(Group::Broken, title, text)
    }

    fn new(group: Group, title: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            group,
            title: title.into(),
            text: text.into(),
            advice: String::new(),
            command: None,
            jobs: 0,
            oldest_ms: None,
            since_ms: None,
            until_ms: None,
        }
    }

    fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..self }
    }

    fn command(self, command: impl Into<String>) -> Self {
        Self { command: Some(command.into()), ..self }
    }

    fn jobs(self, Jobs { count, oldest_ms }: Jobs) -> Self {
        Self { jobs: count, oldest_ms, ..self }
    }
}

/// Jobs that wait for one cause.
#[derive(Clone, Copy, Debug, Default)]
struct Jobs {
    count: usize,
    oldest_ms: Option<UnixMs>,
}

impl Jobs {
    fn of<'a>(waiting: impl IntoIterator<Item = &'a WaitingView>) -> Self {
        let mut jobs = Self::default();
        for job in waiting {
            jobs.add(1, Some(job.queued_ms));
        }
        jobs
    }

    fn add(&mut self, count: usize, oldest_ms: Option<UnixMs>) {
        self.count += count;
        self.oldest_ms = self.oldest_ms.into_iter().chain(oldest_ms).min();
    }
}

/// Everything, the most urgent first. `failed`: the [`FAILED_MAX`] runners that failed last.
pub(crate) fn findings(snapshot: &Snapshot, failed: &[RunnerRecord], now: UnixMs) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(provider(snapshot));
    findings.extend(failures(snapshot, failed));
    findings.extend(refused(&snapshot.refused_webhooks, now));
    findings.extend(nodes(&snapshot.nodes));
    findings.extend(died(failed, now));
    findings.extend(versions(&snapshot.pools, now));
    findings.extend(quotas(snapshot));
    findings.extend(sidecars(&snapshot.sidecars));
    findings.extend(drained(snapshot));
    findings.extend(waiting(snapshot));
    findings.sort_by_key(|finding| finding.group);
    [Group::Broken, Group::Blocked, Group::Waiting]
        .into_iter()
        .flat_map(|group| shortened(findings.extract_if(.., |it| it.group == group).collect()))
        .collect()
}

/// Of one group.
fn shortened(mut findings: Vec<Finding>) -> Vec<Finding> {
    let Some(rest) = findings.len().checked_sub(OF_GROUP_MAX).filter(|more| *more > 0) else {
        return findings;
    };
    let more = findings.split_off(OF_GROUP_MAX);
    let mut jobs = Jobs::default();
    more.iter().for_each(|it| jobs.add(it.jobs, it.oldest_ms));
    let text = "`edgerunner jobs` lists all waiting jobs, each with its reason.";
    findings.push(Finding::new(more[0].group, format!("{rest} more causes"), text).jobs(jobs));
    findings
}

/// Whether some provider does not respond, or has not yet.
fn provider_is_away(snapshot: &Snapshot) -> bool {
    !snapshot.recovered || snapshot.provider_error.is_some()
}

fn provider(snapshot: &Snapshot) -> Option<Finding> {
    if !provider_is_away(snapshot) {
        return None;
    }
    let title = match snapshot.recovered {
        false => "No provider has responded yet",
        true => "A provider does not respond",
    };
    let recovering =
        snapshot.waiting.iter().filter(|job| job.reason == Waiting::Recovering.as_str());
    let text = snapshot.provider_error.clone();
    let text = text.unwrap_or_else(|| "The runners that exist are not known yet.".into());
    let finding = Finding::new(Group::Broken, title, text)
        .advice("Events are stored, and nothing is launched there until it responds.")
        .command("edgerunner doctor");
    Some(finding.jobs(Jobs::of(recovering)))
}

/// One finding for all that fail for the same reason.
fn failures(snapshot: &Snapshot, failed: &[RunnerRecord]) -> Vec<Finding> {
    let mut causes: BTreeMap<(&str, &str), Vec<&FailureView>> = BTreeMap::new();
    for failure in &snapshot.failures {
        causes.entry((&failure.cause, &failure.message)).or_default().push(failure);
    }
    let finding = |((cause, message), failures): ((&str, &str), Vec<&FailureView>)| {
        let blocks = failures.iter().map(|failure| failure.blocks.as_str());
        let mut jobs = Jobs::default();
        failures.iter().for_each(|it| jobs.add(it.jobs, it.oldest_ms));
        let in_a_row = failures.iter().map(|failure| failure.failures).max().unwrap_or_default();
        let text = match in_a_row {
            1 => message.to_owned(),
            _ => format!("{message} ({in_a_row} times in a row)"),
        };
        let (advice, command) = remedy(cause, &failures, failed);
        let finding = Finding::new(Group::Broken, format!("Failing: {}", named(blocks)), text);
        Finding {
            command: Some(command),
            since_ms: failures.iter().map(|failure| failure.since_ms).min(),
            until_ms: failures.iter().map(|failure| failure.until_ms).min(),
            ..finding.advice(advice).jobs(jobs)
        }
    };
    let mut findings: Vec<Finding> = causes.into_iter().map(finding).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.jobs));
    findings
}

/// What to do about a failure, and a command that helps.
fn remedy(
    cause: &str,
    failures: &[&FailureView],
    failed: &[RunnerRecord],
) -> (&'static str, String) {
    let cause = Cause::ALL.into_iter().find(|known| known.as_str() == cause);
    let advice = match cause {
        Some(Cause::Unauthorized) => {
            "Replace the token or the App's key; in a file, that needs no restart."
        }
        Some(Cause::Forbidden) => {
            "Do what the message says; check the names in repositories, and the credential's \
             permissions."
        }
        Some(Cause::RateLimited) => {
            "Wait, or add a credential for the same targets, which shares the load."
        }
        Some(Cause::GitHubUnavailable) => "Wait: it is tried again by itself.",
        Some(Cause::Rejected) => "Correct the pool's group or labels.",
        Some(Cause::UnexpectedResponse) => {
            "Check api_url, proxies, and the name of the repository or organization."
        }
        Some(Cause::DockerUnavailable) => "Start Docker, or let the sidecar's user use its socket.",
        Some(Cause::Image) => {
            "Correct the image's name, or give its registry a login in [[registries]]."
        }
        Some(Cause::Container) => "Correct the pool's container settings.",
        Some(Cause::RunnerExited) => "Read the log of the last runner that failed.",
        Some(Cause::RunnerTooOld) => {
            "Usually nothing: the next launch pulls the image. If it goes on, set runner_image to \
             a newer one."
        }
        Some(Cause::NeverOnline) => {
            "Read the log of the last runner that failed, and check that containers reach GitHub."
        }
        Some(Cause::TimedOut) => "Check Docker, the registry and GitHub: one of them is slow.",
        Some(Cause::Store) => "Check the disk or the database of the store.",
        None => "",
    };
    let has_log = matches!(cause, Some(Cause::RunnerExited | Cause::NeverOnline));
    let in_pool = |runner: &&RunnerRecord| {
        failures.iter().any(|failure| failure.blocks == format!("pool {}", runner.pool))
    };
    let command = match failed.iter().find(in_pool).filter(|_| has_log) {
        Some(runner) => format!("edgerunner runners logs {}", runner.name),
        None => "edgerunner doctor".to_owned(),
    };
    (advice, command)
}

/// Webhooks of which nothing arrives, because their secret is not Envoy's.
fn refused(webhooks: &[RefusedWebhookView], now: UnixMs) -> Vec<Finding> {
    let recently = |it: &&RefusedWebhookView| now.saturating_sub(it.last_ms) < REFUSED_FOR_MS;
    let finding = |it: &RefusedWebhookView| {
        let RefusedWebhookView { webhook, url, refused, last_ms } = it;
        let url = url.as_ref().map(|url| format!(" to {url}")).unwrap_or_default();
        let text = format!(
            "{webhook}{url}: {} of the last hour {} answered with 401. Its secret at GitHub differs \
             from that of Envoy.",
            if *refused == 1 { "a delivery".to_owned() } else { format!("{refused} deliveries") },
            if *refused == 1 { "was" } else { "were" },
        );
        let advice = "Set the same secret at GitHub and as GITHUB_WEBHOOK_SECRET of Envoy, then \
                      restart Envoy.";
        let command = match webhook.as_str() {
            // GitHub cannot ping it.
            "app/hook" => "edgerunner doctor".to_owned(),
            webhook => format!("edgerunner webhook ping {webhook}"),
        };
        let title = "GitHub's webhooks are refused";
        let finding = Finding::new(Group::Broken, title, text).advice(advice).command(command);
        Finding { since_ms: Some(*last_ms), ..finding }
    };
    webhooks.iter().filter(recently).map(finding).collect()
}

fn nodes(nodes: &[NodeView]) -> Vec<Finding> {
    let of = |condition: Condition| {
        nodes.iter().filter(move |node| node.condition == condition.as_str())
    };
    let finding = |group, condition, what: &str| {
        let count = of(condition).count();
        let names = named(of(condition).map(|node| node.name.as_str()));
        (count > 0)
            .then(|| Finding::new(group, format!("{} {what}", counted(count, "node")), names))
    };
    let first = of(Condition::Drained).next().map_or("NAME", |node| node.name.as_str());
    [
        finding(Group::Broken, Condition::Down, "down").map(|finding| {
            finding
                .advice("No runners are launched there: start the machine, or remove the node.")
                .command("edgerunner nodes")
        }),
        finding(Group::Broken, Condition::TooOld, "with an old Docker Engine").map(|finding| {
            finding.advice("No runners are launched there: install 23.0.3 or newer.")
        }),
        finding(Group::Blocked, Condition::Drained, "drained").map(|finding| {
            finding
                .advice("No runners are launched there until it is resumed.")
                .command(format!("edgerunner nodes resume {first}"))
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Runners that ended while they ran a job, whose failure GitHub shows to its author.
fn died(failed: &[RunnerRecord], now: UnixMs) -> Option<Finding> {
    let recently = |it: &&RunnerRecord| {
        it.job.is_some() && it.gone_at.is_some_and(|at| now.saturating_sub(at) < DIED_FOR_MS)
    };
    let died: Vec<&RunnerRecord> = failed.iter().filter(recently).collect();
    let last = died.first()?;
    let title = format!("{} died during a job", counted(died.len(), "runner"));
    let reasons = died.iter().map(|runner| {
        format!("{}: {}", runner.name, runner.why.as_deref().unwrap_or("unknown reason"))
    });
    let reasons: Vec<String> = reasons.collect();
    let text = named(reasons.iter().map(String::as_str));
    let mut finding = Finding::new(Group::Broken, title, text)
        .advice("Read its log, and run the job again at GitHub.")
        .command(format!("edgerunner runners logs {}", last.name));
    finding.since_ms = last.gone_at;
    Some(finding)
}

fn versions(pools: &[PoolView], now: UnixMs) -> Vec<Finding> {
    let finding = |pool: &PoolView| {
        let version = pool.runner_version.as_ref().filter(|it| it.ends_soon(now))?;
        let (number, date) = (version.version.as_deref()?, version.end_date()?);
        let ended = version.ends_ms.is_some_and(|at| at <= now);
        let (group, title, text) = match ended {
            true => (
                Group::Broken,
                format!("Runner version {number} has ended: pool {}", pool.name),
                format!("GitHub refuses it since {date}."),
            ),
            false => (
                Group::Blocked,
                format!("Runner version {number} ends soon: pool {}", pool.name),
                format!("GitHub refuses it from {date} on."),
            ),
        };
        let advice = "Pull the image again, or set runner_image to a newer one.";
        Some(Finding::new(group, title, text).advice(advice).command("edgerunner doctor"))
    };
    pools.iter().filter_map(finding).collect()
}

fn quotas(snapshot: &Snapshot) -> Vec<Finding> {
    let used_up = snapshot.budgets.iter().filter(|it| it.remaining < it.limit / NEARLY_USED_UP);
    let finding = |budget: &BudgetView| {
        let title = format!("API quota almost used up: {}", budget.credential);
        let text = format!("{} of {} requests are left.", budget.remaining, budget.limit);
        let advice = "Wait, or add a credential for the same targets, which shares the load.";
        let finding = Finding::new(Group::Broken, title, text).advice(advice);
        Finding { until_ms: Some(budget.reset_ms), ..finding.command("edgerunner status") }
    };
    used_up.map(finding).collect()
}

pub(crate) fn sidecars(sidecars: &[SidecarView]) -> Vec<Finding> {
    // One that was started in its place reports under the same name.
    let is_replaced = |gone: &SidecarView| {
        sidecars.iter().any(|it| {
            !it.is(SidecarState::Silent) && it.name == gone.name && it.started_ms >= gone.seen_ms
        })
    };
    let silent = || sidecars.iter().filter(|it| it.is(SidecarState::Silent) && !is_replaced(it));
    let mut versions: Vec<&str> = sidecars
        .iter()
        .filter(|it| !it.is(SidecarState::Silent))
        .map(|it| it.version.as_str())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    let count = silent().count();
    let mut findings = Vec::new();
    if count > 0 {
        let title = format!("{} silent", counted(count, "sidecar"));
        let text = named(silent().map(|it| it.name.as_str()));
        let advice = "It was stopped or killed, or cannot reach the store: start it again, or \
                      wait until it is forgotten.";
        let mut finding = Finding::new(Group::Broken, title, text).advice(advice);
        finding.since_ms = silent().map(|it| it.seen_ms).max();
        findings.push(finding.command(SIDECARS));
    }
    if versions.len() > 1 {
        let title = "Sidecars of different versions";
        let finding = Finding::new(Group::Blocked, title, versions.join(", "));
        findings.push(finding.advice("Upgrade the others.").command(SIDECARS));
    }
    findings
}

/// Pools that launch nothing until somebody resumes them, also if no job waits for it.
fn drained(snapshot: &Snapshot) -> Vec<Finding> {
    let jobs = |pool: Option<&str>| {
        let pool = pool.map(str::to_owned);
        let message = Waiting::Draining { pool }.to_string();
        Jobs::of(snapshot.waiting.iter().filter(|job| job.message == message))
    };
    let text = "No runners are launched until it is resumed; those that run finish their jobs.";
    if snapshot.draining {
        let finding = Finding::new(Group::Blocked, "All pools are draining", text);
        return vec![finding.command("edgerunner resume").jobs(jobs(None))];
    }
    let pools = snapshot.pools.iter().filter(|pool| pool.draining);
    pools
        .map(|PoolView { name, .. }| {
            let finding = Finding::new(Group::Blocked, format!("Pool {name} is draining"), text);
            finding.command(format!("edgerunner resume --pool {name}")).jobs(jobs(Some(name)))
        })
        .collect()
}

/// Jobs whose cause no other finding names, by cause: those with the most jobs first.
fn waiting(snapshot: &Snapshot) -> Vec<Finding> {
    let mut causes: BTreeMap<(bool, &str, &str), Jobs> = BTreeMap::new();
    for job in snapshot.waiting.iter().filter(|job| !is_said_elsewhere(job, snapshot)) {
        let cause = (!job.blocked, job.reason.as_str(), job.message.as_str());
        causes.entry(cause).or_default().add(1, Some(job.queued_ms));
    }
    let mut findings: Vec<Finding> = causes
        .into_iter()
        .map(|((waits, reason, message), jobs)| {
            let group = if waits { Group::Waiting } else { Group::Blocked };
            let title = match waits {
                true => format!("{} waiting", counted(jobs.count, "job")),
                false => format!("{} blocked", counted(jobs.count, "job")),
            };
            let command = command_for(reason).map(str::to_owned);
            let finding = Finding::new(group, title, message).advice(advice_for(reason));
            Finding { command, ..finding.jobs(jobs) }
        })
        .collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.jobs));
    findings
}

/// Whether a finding about the cause counts the job.
fn is_said_elsewhere(job: &WaitingView, snapshot: &Snapshot) -> bool {
    job.reason == (Waiting::Draining { pool: None }).as_str()
        || job.failing
        || job.reason == Waiting::Recovering.as_str() && provider_is_away(snapshot)
}

/// What to do about a waiting reason; empty if that is to wait.
fn advice_for(reason: &str) -> &'static str {
    match reason {
        "no_pool_has_labels" => "Correct runs-on, or add the label to a pool's labels.",
        "job_without_labels" => {
            "Name labels in runs-on, or set jobs_without_labels = true for a pool."
        }
        "label_required" => {
            "Name one of a pool's labels in runs-on, or set require_labels = false for a pool."
        }
        "label_parameter" => "Correct the label in runs-on, or permit it in label_parameters.",
        "no_pool_for_repository" => "Add the repository to a pool's repositories.",
        "no_pool_in_scope" => "Add a pool with scope = \"repository\".",
        "public_repository" => {
            "If a pool may run code that anyone can propose, set public_repositories = true for it."
        }
        "fork" => "Nothing, or add a pool with forks = \"only\".",
        "not_fork" => "Add a pool with forks = \"refuse\" or \"allow\".",
        "run_unknown" => "Give the credential the permission Actions: read.",
        "no_credential" => "Add a credential for it to [[credentials]].",
        "host_disk" => {
            "Remove something from the disk of Docker's directory, or lower \
             docker.reserve_disk_mib."
        }
        "host_memory" => "Lower the pool's memory_mib, or docker.reserve_memory_mib.",
        "host_cpus" => "Lower the pool's cpus, or docker.reserve_cpus.",
        "host_devices" => "Lower the pool's gpus, or list more in docker.host_gpus.",
        "held_back" => {
            "Check at GitHub: max-parallel, concurrency groups, approvals, and whether the runner \
             group includes the repository."
        }
        "pool_max" => "Raise the pool's max, or wait.",
        "global_max" => "Raise scheduler.max, or wait.",
        "repository_max" => "Raise scheduler.max_per_repository, or wait.",
        "no_room" => "Add a machine, or wait until a runner ends.",
        _ => "",
    }
}

/// A command that shows more about a waiting reason.
fn command_for(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "host_disk" => "docker system df",
        "host_memory" | "host_cpus" | "host_devices" => "edgerunner status",
        "no_credential" | "run_unknown" | "held_back" => "edgerunner doctor",
        // What each pool has: its labels, scope and repositories.
        reason if !advice_for(reason).is_empty() => "edgerunner pools",
        _ => return None,
    })
}

/// `1 node`, `2 nodes`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The first names, and how many more there are.
fn named<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let first = names[..names.len().min(NAMED_MAX)].join("; ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => first,
        more => format!("{first}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: UnixMs = 10_000_000;

    fn snapshot(waiting: &[(&str, &str, bool, bool)]) -> Snapshot {
        let waiting = waiting.iter().zip(1..).map(|((reason, message, blocked, failing), id)| {
            let job = json!({
                "job_id": id, "run_attempt": 1, "host": "github.com", "repository": "acme/app",
                "labels": [], "queued_ms": NOW - id, "delivery": "", "reason": reason,
                "message": message, "until_ms": null, "blocked": blocked, "failing": failing,
            });
            serde_json::from_value(job).unwrap()
        });
        Snapshot { waiting: waiting.collect(), ..Snapshot::unknown() }
    }

    fn failure(blocks: &str, cause: Cause, message: &str, jobs: usize) -> FailureView {
        FailureView {
            blocks: blocks.into(),
            cause: cause.as_str().into(),
            message: message.into(),
            failures: 2,
            since_ms: NOW - 5,
            until_ms: NOW + 5,
            jobs,
            oldest_ms: (jobs > 0).then_some(NOW - 9),
        }
    }

    fn died(name: &str, pool: &str, ago_ms: UnixMs, with_job: bool) -> RunnerRecord {
        RunnerRecord {
            pool: pool.into(),
            job: with_job.then(|| edgerunner_scheduler::model::JobKey::new(1, 1)),
            why: Some("its container is gone".into()),
            failed: true,
            gone_at: Some(NOW - ago_ms),
            ..crate::store::tests::runner(name)
        }
    }

    /// Group and title of each.
    fn titles(findings: &[Finding]) -> Vec<(Group, &str)> {
        findings.iter().map(|it| (it.group, it.title.as_str())).collect()
    }

    #[test]
    fn nothing_is_said_while_all_is_well() {
        assert_eq!(findings(&snapshot(&[]), &[], NOW), []);
    }

    #[test]
    fn what_is_broken_comes_before_what_is_blocked_and_that_before_what_waits() {
        let mut snapshot = snapshot(&[
            ("pool_max", "the pool is at its max of 2", false, false),
            ("no_pool_has_labels", "no pool has the label \"gpu\"", true, false),
            ("no_pool_has_labels", "no pool has the label \"gpu\"", true, false),
            ("back_off", "paused after an error: no such image", false, true),
        ]);
        snapshot.failures.push(failure("pool default", Cause::Image, "no such image", 1));
        let found = findings(&snapshot, &[died("edge-1", "default", 60_000, true)], NOW);
        let expected = [
            (Group::Broken, "Failing: pool default"),
            (Group::Broken, "1 runner died during a job"),
            (Group::Blocked, "2 jobs blocked"),
            (Group::Waiting, "1 job waiting"),
        ];
        assert_eq!(titles(&found), expected);
        assert_eq!((found[0].jobs, found[0].oldest_ms), (1, Some(NOW - 9)));
        assert_eq!(found[1].command.as_deref(), Some("edgerunner runners logs edge-1"));
        assert_eq!((found[2].jobs, found[2].oldest_ms), (2, Some(NOW - 3)));
        assert_eq!(found[2].advice, "Correct runs-on, or add the label to a pool's labels.");
    }

    #[test]
    fn one_cause_of_several_failures_is_said_once() {
        let mut snapshot = snapshot(&[]);
        for (place, jobs) in [("pool a", 3), ("pool b", 0), ("pool c", 0), ("pool d", 0)] {
            snapshot.failures.push(failure(place, Cause::RunnerExited, "exited with code 3", jobs));
        }
        let failed = [died("edge-1", "e", 1, false), died("edge-2", "b", 1, false)];
        let found = findings(&snapshot, &failed, NOW);
        assert_eq!(
            titles(&found),
            [(Group::Broken, "Failing: pool a; pool b; pool c; and 1 more")]
        );
        assert_eq!(found[0].text, "exited with code 3 (2 times in a row)");
        assert_eq!(found[0].command.as_deref(), Some("edgerunner runners logs edge-2"));
        assert_eq!(found[0].jobs, 3);
    }

    #[test]
    fn drained_pools_are_said_with_their_jobs_and_without_any() {
        let draining = Waiting::Draining { pool: Some("a".into()) }.to_string();
        let mut snapshot = snapshot(&[("draining", &draining, true, false)]);
        for name in ["a", "b"] {
            let pool = json!({
                "name": name, "labels": [], "queued": 0, "provisioning": 0, "starting": 0, "idle": 0,
                "busy": 0, "leaving": 0, "min_idle": 0, "max": 1, "draining": true,
                "all_draining": false,
            });
            snapshot.pools.push(serde_json::from_value(pool).unwrap());
        }
        let found = findings(&snapshot, &[], NOW);
        let said: Vec<_> =
            found.iter().map(|it| (it.title.as_str(), it.jobs, it.command.as_deref())).collect();
        let expected = [
            ("Pool a is draining", 1, Some("edgerunner resume --pool a")),
            ("Pool b is draining", 0, Some("edgerunner resume --pool b")),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn what_happened_long_ago_is_not_said() {
        let failed = [died("edge-1", "a", DIED_FOR_MS, true), died("edge-2", "a", 5, false)];
        assert_eq!(findings(&snapshot(&[]), &failed, NOW), []);
    }

    #[test]
    fn too_many_causes_are_counted_together() {
        let messages: Vec<String> = (0..15).map(|number| format!("cause {number:02}")).collect();
        let waiting: Vec<_> =
            messages.iter().map(|it| ("pool_max", it.as_str(), false, false)).collect();
        let found = findings(&snapshot(&waiting), &[], NOW);
        assert_eq!(found.len(), OF_GROUP_MAX + 1);
        let last = &found[OF_GROUP_MAX];
        assert_eq!((last.title.as_str(), last.jobs), ("5 more causes", 5));
    }

    #[test]
    fn a_provider_that_does_not_respond_counts_the_jobs_that_wait_for_it() {
        let mut snapshot = snapshot(&[("recovering", "just started", false, false)]);
        assert_eq!(titles(&findings(&snapshot, &[], NOW)), [(Group::Waiting, "1 job waiting")]);
        snapshot.provider_error = Some("Docker: connection refused".into());
        let found = findings(&snapshot, &[], NOW);
        assert_eq!(titles(&found), [(Group::Broken, "A provider does not respond")]);
        assert_eq!((found[0].jobs, found[0].text.as_str()), (1, "Docker: connection refused"));
    }

    #[test]
    fn a_silent_sidecar_is_said_unless_another_was_started_in_its_place() {
        let sidecar = |id: &str, state: &str, started_ms: UnixMs, seen_ms: UnixMs| {
            let view = json!({
                "id": id, "name": "build-1", "version": "1", "started_ms": started_ms,
                "seen_ms": seen_ms, "state": state, "term": null, "since_ms": null,
                "queued_writes": 0, "behind": null,
            });
            serde_json::from_value::<SidecarView>(view).unwrap()
        };
        let (gone, older) = (sidecar("a", "silent", 1, 500), sidecar("b", "plans", 1, NOW));
        let found = sidecars(&[gone.clone(), older.clone()]);
        assert_eq!(titles(&found), [(Group::Broken, "1 sidecar silent")]);
        assert_eq!(found[0].since_ms, Some(500));
        assert_eq!(sidecars(&[gone, older, sidecar("c", "accepts", 600, NOW)]), []);
    }

    #[test]
    fn a_webhook_with_another_secret_is_broken_until_its_refusals_are_old() {
        let hook = |webhook: &str, refused| RefusedWebhookView {
            webhook: webhook.into(),
            url: Some("https://hooks.example.com/webhooks/github".into()),
            refused,
            last_ms: NOW - 5,
        };
        let repository = hook("repos/acme/app/hooks/7", 3);
        let refused_webhooks = vec![repository, hook("app/hook", 1)];
        let snapshot = Snapshot { refused_webhooks, ..Snapshot::unknown() };
        let found = findings(&snapshot, &[], NOW);
        let title = (Group::Broken, "GitHub's webhooks are refused");
        assert_eq!(titles(&found), [title, title]);
        let expected = "repos/acme/app/hooks/7 to https://hooks.example.com/webhooks/github: 3 \
                        deliveries of the last hour were answered with 401. Its secret at GitHub \
                        differs from that of Envoy.";
        assert_eq!(found[0].text, expected);
        assert!(found[1].text.contains("a delivery of the last hour was"), "{}", found[1].text);
        let commands: Vec<_> = found.iter().map(|it| it.command.as_deref().unwrap()).collect();
        let expected = ["edgerunner webhook ping repos/acme/app/hooks/7", "edgerunner doctor"];
        assert_eq!(commands, expected);
        assert_eq!(findings(&snapshot, &[], NOW + REFUSED_FOR_MS), []);
    }

    #[test]
    fn every_reason_that_blocks_has_an_advice() {
        for reason in Waiting::NAMES {
            let blocks = reason.starts_with("no_pool")
                || ["job_without_labels", "label_required", "label_parameter", "no_credential"]
                    .contains(&reason);
            assert!(!blocks || !advice_for(reason).is_empty(), "{reason}");
        }
    }
}
