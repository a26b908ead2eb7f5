//! Pools, and which of them serves a job.

use std::{cmp::Reverse, collections::BTreeSet};

pub use edgerunner_pattern::RepositoryPattern;

use super::{LabelParameters, LaneKey, Parameters, Resources, Values};
use crate::model::{Job, ServerTarget, Target, Visibility};

/// At which level the runners of a pool are registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Repository,
    Organization,
    Enterprise,
}

/// What a pool does with jobs of pull requests from forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forks {
    /// It serves them like any other job.
    Allow,
    /// It serves all other jobs.
    Refuse,
    /// It serves them alone.
    Only,
}

/// The part of a pool's configuration that the planner needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub name: String,
    /// Index into [`super::Settings::providers`]: where its runners run.
    pub provider: usize,
    /// In lower case.
    pub labels: BTreeSet<String>,
    /// Empty: every repository.
    pub repositories: Vec<RepositoryPattern>,
    /// Whether it serves jobs that have no labels at all.
    pub jobs_without_labels: bool,
    /// Whether it serves only jobs that name one of its labels, besides `self-hosted`.
    pub require_labels: bool,
    /// Whether it serves jobs of public repositories.
    pub public_repositories: bool,
    pub forks: Forks,
    pub scope: Scope,
    pub min_idle: usize,
    /// Runners that are kept parked at each target that is known beforehand. They do not count in
    /// `max`.
    pub parked: usize,
    /// How long a runner is parked before it is replaced, in milliseconds.
    pub parked_ms: u64,
    /// Another one whenever anything changes that a runner is launched with.
    pub revision: u64,
    pub max: usize,
    pub priority: i32,
    pub limits: LifeLimits,
    /// How many of [`super::Settings::devices`] each of its runners has for itself.
    pub devices: usize,
    /// What each of its runners may use at most, with everything that belongs to it; nothing for
    /// what the pool does not limit.
    pub promised: Resources,
    /// Containers of each runner. Each has the limits that labels ask for.
    pub containers: u32,
    /// What jobs may ask for by their labels.
    pub label_parameters: LabelParameters,
}

/// Whether a pool may run the code of a job.
enum Admission {
    Yes,
    No(NoMatch),
    /// GitHub has not reported what the pool needs to know about the job's run.
    DependsOnRun,
}

/// How long a runner may stay in each phase, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifeLimits {
    pub provisioning_ms: u64,
    pub starting_ms: u64,
    pub idle_ms: u64,
    pub job_ms: u64,
}

/// GitHub gives every self-hosted runner this label.
const IMPLIED_LABEL: &str = "self-hosted";
/// Characters of a label that a message shows.
const LABEL_SHOWN_MAX: usize = 100;
const MILLIS_PER_CPU: u64 = 1_000;
/// How the labels of GitHub's standard runners begin.
const GITHUB_IMAGES: [&str; 3] = ["ubuntu-", "windows-", "macos-"];

impl Pool {
    /// Labels of the job that the pool does not have, without those that it takes as parameters.
    fn missing_labels(&self, job: &Job) -> Vec<String> {
        self.further_labels(job).filter(|label| !self.is_parameter(label, job)).collect()
    }

    /// In lower case, without those that the pool has.
    fn further_labels(&self, job: &Job) -> impl Iterator<Item = String> {
        job.labels
            .iter()
            .map(|label| label.to_ascii_lowercase())
            .filter(|label| label != IMPLIED_LABEL && !self.labels.contains(label))
    }

    /// With another key than the permitted ones, it may as well be for other runners, unless the
    /// job asks for self-hosted ones.
    fn is_parameter(&self, label: &str, job: &Job) -> bool {
        let Some((key, _)) = label.split_once('=') else { return false };
        let keys = self.label_parameters.keys();
        keys.contains(&key) || !keys.is_empty() && !names_other_runners(job)
    }

    /// What the labels of a job that the pool matches ask for.
    fn parameters(&self, job: &Job) -> Result<Parameters, NoMatch> {
        let mut parameters = Values::default();
        for label in self.further_labels(job) {
            let read = self.label_parameters.read(&label, job.run_id, &mut parameters);
            read.map_err(|problem| NoMatch::LabelParameter {
                pool: self.name.clone(),
                label: label.chars().take(LABEL_SHOWN_MAX).collect(),
                problem,
            })?;
        }
        Ok(parameters.into())
    }

    /// What a runner with these parameters may use.
    pub fn promised_with(&self, parameters: &Parameters) -> Resources {
        let containers = u64::from(self.containers);
        let Resources { memory_mib, cpu_millis } = self.promised;
        Resources {
            memory_mib: parameters.memory_mib().map_or(memory_mib, |mib| mib * containers),
            cpu_millis: parameters
                .cpu
                .map_or(cpu_millis, |cpus| u64::from(cpus) * MILLIS_PER_CPU * containers),
        }
    }

    /// Whether the job names enough labels for the pool.
    fn is_named_by(&self, job: &Job) -> bool {
        let named = |label: &String| {
            let label = label.to_ascii_lowercase();
            label != IMPLIED_LABEL && self.labels.contains(&label)
        };
        !self.require_labels || job.labels.iter().any(named)
    }

    /// Whether the pool may run the code of a job that it matches.
    fn admits(&self, job: &Job) -> Admission {
        let by_visibility = match (self.public_repositories, job.visibility) {
            (true, _) | (false, Visibility::Private | Visibility::Internal) => Admission::Yes,
            (false, Visibility::Public) => {
                Admission::No(NoMatch::PublicRepository { reported: true })
            }
            (false, Visibility::Unknown) => Admission::DependsOnRun,
        };
        let by_fork = match (self.forks, job.from_fork) {
            (Forks::Allow, _) | (Forks::Refuse, Some(false)) | (Forks::Only, Some(true)) => {
                Admission::Yes
            }
            (Forks::Refuse, Some(true)) => Admission::No(NoMatch::Fork),
            (Forks::Only, Some(false)) => Admission::No(NoMatch::NotFork),
            (Forks::Refuse | Forks::Only, None) => Admission::DependsOnRun,
        };
        match (by_visibility, by_fork) {
            (Admission::No(why), _) | (_, Admission::No(why)) => Admission::No(why),
            (Admission::Yes, other) | (other, Admission::Yes) => other,
            (Admission::DependsOnRun, Admission::DependsOnRun) => Admission::DependsOnRun,
        }
    }

    pub fn serves_repository(&self, repository: &str) -> bool {
        self.repositories.is_empty()
            || self.repositories.iter().any(|pattern| pattern.matches(repository))
    }

    /// Where a runner for the job would be registered. In lower case: GitHub ignores case, and
    /// two spellings must be one target. `None` if the job has no owner of this scope.
    pub fn target(&self, job: &Job) -> Option<ServerTarget> {
        let named = |name: &str| (!name.is_empty()).then(|| name.to_ascii_lowercase());
        let target = match self.scope {
            Scope::Repository => {
                let (owner, name) = job.repository.split_once('/')?;
                Some(Target::Repository { owner: named(owner)?, name: named(name)? })
            }
            Scope::Organization => named(&job.organization).map(Target::Organization),
            Scope::Enterprise => named(&job.enterprise).map(Target::Enterprise),
        };
        target.map(|target| target.on(job.key.host))
    }

    /// Where its runners may be registered. Names may contain `*`, as patterns do.
    pub fn targets(&self) -> BTreeSet<Target> {
        let target = |owner: &str, name: &str| match self.scope {
            Scope::Repository => Target::Repository { owner: owner.into(), name: name.into() },
            Scope::Organization => Target::Organization(owner.into()),
            Scope::Enterprise => Target::Enterprise("*".into()),
        };
        if self.repositories.is_empty() {
            return [target("*", "*")].into();
        }
        self.repositories.iter().map(|it| target(it.owner(), it.name())).collect()
    }

    /// Targets that are known before any job arrives, for `min_idle` and `parked`.
    pub fn known_targets(&self) -> BTreeSet<Target> {
        let mut targets = self.targets();
        targets.retain(|target| match target {
            Target::Repository { owner, name } => !owner.contains('*') && !name.contains('*'),
            Target::Organization(name) | Target::Enterprise(name) => !name.contains('*'),
        });
        targets
    }
}

/// Why no pool serves a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoMatch {
    /// No pool has all of the job's labels.
    MissingLabels {
        /// The labels that the closest pool does not have.
        labels: Vec<String>,
        /// The name of the closest pool.
        closest: String,
    },
    /// The job has no labels and no pool takes such jobs.
    NoLabels,
    /// The job names no label but `self-hosted`, and the pools that match require one.
    LabelRequired,
    /// A pool matches, and a label asks it for something that it does not permit.
    LabelParameter {
        pool: String,
        label: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No pool's repository patterns cover the repository.
    Repository,
    /// Pools match, but the repository has no organization or enterprise at which their
    /// runners could be registered.
    Scope,
    /// Pools match, but they serve no public repositories.
    PublicRepository {
        /// `false`: GitHub did not report who can see the repository, so it counts as public.
        reported: bool,
    },
    /// Pools match, but they serve no jobs of pull requests from forks.
    Fork,
    /// Pools match, but they serve only jobs of pull requests from forks.
    NotFork,
    /// Pools match, and it depends on the job's run whether they serve it, which GitHub has not
    /// reported yet.
    RunUnknown {
        /// Why GitHub did not report it when it was asked.
        problem: Option<String>,
    },
    /// No pool matches a job that does not ask for `self-hosted`: it is meant for GitHub's own
    /// runners, or for runners of somebody else. It does not count as waiting.
    NotSelfHosted {
        /// The labels that the closest pool does not have.
        labels: Vec<String>,
    },
}

impl NoMatch {
    /// Whether pools match, and it depends on whose code the job runs that none serves it.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::PublicRepository { .. }
            | Self::Fork
            | Self::NotFork
            | Self::RunUnknown { .. } => true,
            Self::MissingLabels { .. }
            | Self::NoLabels
            | Self::LabelRequired
            | Self::LabelParameter { .. }
            | Self::Repository
            | Self::Scope
            | Self::NotSelfHosted { .. } => false,
        }
    }
}

/// Whether the job names labels, and `self-hosted` is not one of them.
fn names_other_runners(job: &Job) -> bool {
    !job.labels.is_empty()
        && !job.labels.iter().any(|label| label.eq_ignore_ascii_case(IMPLIED_LABEL))
}

/// Whether all labels are names of GitHub's standard images, such as `ubuntu-latest`.
pub fn is_github_hosted(labels: &[String]) -> bool {
    let names_image = |label: &String| {
        let label = label.to_ascii_lowercase();
        GITHUB_IMAGES.iter().any(|image| label.starts_with(image))
    };
    !labels.is_empty() && labels.iter().all(names_image)
}

/// The index of the best pool that serves a job, and the target. Of several pools, the one with
/// the highest priority wins, then the one with the fewest labels, then the first by name.
pub fn match_pool(pools: &[Pool], job: &Job) -> Result<LaneKey, NoMatch> {
    match_pools(pools, job).map(|mut lanes| lanes.swap_remove(0))
}

/// All pools that serve a job, the best one first. Never empty.
pub(super) fn match_pools(pools: &[Pool], job: &Job) -> Result<Vec<LaneKey>, NoMatch> {
    let Matches { serving, undecided, why_not } = Matches::new(pools, job);
    match why_not {
        _ if !undecided.is_empty() => Err(NoMatch::RunUnknown { problem: None }),
        _ if !serving.is_empty() => Ok(serving),
        why_not => Err(why_not),
    }
}

/// The pools that match a job.
pub(super) struct Matches {
    /// Those that serve it, the best one first.
    pub(super) serving: Vec<LaneKey>,
    /// Those that may serve it: that depends on what GitHub reports about its run.
    pub(super) undecided: Vec<LaneKey>,
    /// Why no pool serves it, if none does and GitHub reports nothing about its run.
    pub(super) why_not: NoMatch,
}

impl Matches {
    pub(super) fn new(pools: &[Pool], job: &Job) -> Self {
        let (mut serving, mut undecided) = (Vec::new(), Vec::new());
        let mut refused: Option<NoMatch> = None;
        let mut closest: Option<(Vec<String>, &str)> = None;
        let mut without_labels = false;
        let mut label_required = false;
        let mut out_of_scope = false;
        let mut not_permitted: Option<NoMatch> = None;
        for (index, pool) in pools.iter().enumerate() {
            if !pool.serves_repository(&job.repository) {
                continue;
            }
            if job.labels.is_empty() && !pool.jobs_without_labels {
                without_labels = true;
                continue;
            }
            let missing = pool.missing_labels(job);
            if !missing.is_empty() {
                if closest.as_ref().is_none_or(|(labels, _)| missing.len() < labels.len()) {
                    closest = Some((missing, &pool.name));
                }
                continue;
            }
            if !pool.is_named_by(job) {
                label_required = true;
                continue;
            }
            let parameters = match pool.parameters(job) {
                Ok(parameters) => parameters,
                Err(why) => {
                    not_permitted.get_or_insert(why);
                    continue;
                }
            };
            let Some(target) = pool.target(job) else {
                out_of_scope = true;
                continue;
            };
            let lane = LaneKey { pool: index, target, parameters };
            match pool.admits(job) {
                Admission::Yes => serving.push(lane),
                Admission::No(why) => drop(refused.get_or_insert(why)),
                Admission::DependsOnRun => undecided.push(lane),
            }
        }
        let rank = |lane: &LaneKey| {
            let pool = &pools[lane.pool];
            (Reverse(pool.priority), pool.labels.len(), &pool.name)
        };
        serving.sort_by(|one, other| rank(one).cmp(&rank(other)));
        undecided.sort_by(|one, other| rank(one).cmp(&rank(other)));
        let counts_as_public = job.visibility == Visibility::Unknown
            && undecided.iter().all(|lane| !pools[lane.pool].public_repositories);
        let why_not = match (refused, not_permitted, closest) {
            _ if !undecided.is_empty() && counts_as_public => {
                NoMatch::PublicRepository { reported: false }
            }
            _ if !undecided.is_empty() => NoMatch::RunUnknown { problem: None },
            (Some(why), ..) => why,
            _ if out_of_scope => NoMatch::Scope,
            _ if label_required => NoMatch::LabelRequired,
            (None, Some(why), _) => why,
            (None, None, closest) if names_other_runners(job) => {
                let labels = closest.map_or_else(|| job.labels.clone(), |(labels, _)| labels);
                NoMatch::NotSelfHosted { labels }
            }
            (None, None, Some((labels, closest))) => {
                NoMatch::MissingLabels { labels, closest: closest.to_owned() }
            }
            _ if without_labels => NoMatch::NoLabels,
            _ => NoMatch::Repository,
        };
        Self { serving, undecided, why_not }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::JobKey;

    pub(in crate::plan) fn pool(name: &str, labels: &[&str]) -> Pool {
        Pool {
            name: name.into(),
            provider: 0,
            labels: labels.iter().map(ToString::to_string).collect(),
            repositories: Vec::new(),
            jobs_without_labels: false,
            require_labels: false,
            public_repositories: false,
            forks: Forks::Allow,
            scope: Scope::Repository,
            min_idle: 0,
            parked: 0,
            parked_ms: 43_200_000,
            revision: 0,
            max: 10,
            priority: 0,
            limits: LifeLimits {
                provisioning_ms: 120_000,
                starting_ms: 120_000,
                idle_ms: 300_000,
                job_ms: 3_600_000,
            },
            devices: 0,
            promised: Resources::default(),
            containers: 1,
            label_parameters: LabelParameters::default(),
        }
    }

    pub(in crate::plan) fn job(id: u64, labels: &[&str]) -> Job {
        Job {
            key: JobKey::new(id, 1),
            repository: "acme/app".into(),
            organization: "acme".into(),
            enterprise: String::new(),
            visibility: Visibility::Private,
            run_id: 0,
            from_fork: None,
            labels: labels.iter().map(ToString::to_string).collect(),
            queued_at: id,
            delivery: format!("delivery-{id}"),
        }
    }

    fn chosen(pools: &[Pool], job: &Job) -> String {
        match match_pool(pools, job) {
            Ok(lane) => format!("{}{}", pools[lane.pool].name, lane.parameters),
            Err(why) => format!("{why:?}"),
        }
    }

    #[test]
    fn labels_match_without_case_and_self_hosted_is_implied() {
        let pools = [pool("linux", &["linux", "x64"])];
        assert_eq!(chosen(&pools, &job(1, &["Self-Hosted", "LINUX"])), "linux");
        assert_eq!(
            chosen(&pools, &job(1, &["self-hosted", "linux", "gpu"])),
            r#"MissingLabels { labels: ["gpu"], closest: "linux" }"#
        );
        assert_eq!(chosen(&pools, &job(1, &[])), "NoLabels");
    }

    #[test]
    fn a_job_for_other_runners_is_told_from_one_that_asks_for_self_hosted() {
        let mut pools = [pool("linux", &["linux", "x64"])];
        let other = |labels: &[&str]| {
            let labels = labels.iter().map(ToString::to_string).collect();
            format!("{:?}", NoMatch::NotSelfHosted { labels })
        };
        assert_eq!(chosen(&pools, &job(1, &["linux"])), "linux");
        assert_eq!(chosen(&pools, &job(1, &["linux", "gpu"])), other(&["gpu"]));
        assert_eq!(chosen(&pools, &job(1, &["ubuntu-latest"])), other(&["ubuntu-latest"]));
        pools[0].repositories = vec![RepositoryPattern::parse("other/*").unwrap()];
        assert_eq!(chosen(&pools, &job(1, &["ubuntu-latest"])), other(&["ubuntu-latest"]));
        assert_eq!(chosen(&pools, &job(1, &["Self-Hosted", "gpu"])), "Repository");
        assert_eq!(chosen(&[], &job(1, &["macos-15"])), other(&["macos-15"]));
    }

    #[test]
    fn github_s_standard_images_are_known_by_their_names() {
        let hosted = |labels: &[&str]| {
            is_github_hosted(&labels.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        for label in ["ubuntu-latest", "Ubuntu-24.04-arm", "windows-2025", "macos-15-xlarge"] {
            assert!(hosted(&[label]), "{label}");
        }
        assert!(!hosted(&["linux"]) && !hosted(&["ubuntu-latest", "gpu"]) && !hosted(&[]));
    }

    #[test]
    fn priority_then_fewest_surplus_labels_then_name_decide() {
        let mut pools =
            [pool("wide", &["linux", "x64", "gpu"]), pool("b", &["linux"]), pool("a", &["linux"])];
        assert_eq!(chosen(&pools, &job(1, &["linux"])), "a");
        pools[0].priority = 1;
        assert_eq!(chosen(&pools, &job(1, &["linux"])), "wide");
    }

    #[test]
    fn a_pool_may_require_that_jobs_name_one_of_its_labels() {
        let mut pools = [pool("gpu", &["self-hosted", "gpu"]), pool("linux", &["linux", "x64"])];
        assert_eq!(chosen(&pools, &job(1, &["self-hosted"])), "gpu");
        pools[0].require_labels = true;
        assert_eq!(chosen(&pools, &job(1, &["self-hosted"])), "linux");
        assert_eq!(chosen(&pools, &job(1, &["self-hosted", "GPU"])), "gpu");
        assert_eq!(chosen(&pools[..1], &job(1, &["self-hosted"])), "LabelRequired");
    }

    #[test]
    fn repositories_and_scope_limit_a_pool() {
        let mut pools = [pool("p", &["linux"])];
        pools[0].repositories = vec![RepositoryPattern::parse("Acme/*").unwrap()];
        assert_eq!(chosen(&pools, &job(1, &["linux"])), "p");
        let mut elsewhere = job(1, &["self-hosted", "linux"]);
        elsewhere.repository = "other/app".into();
        assert_eq!(chosen(&pools, &elsewhere), "Repository");
        pools[0].scope = Scope::Enterprise;
        assert_eq!(chosen(&pools, &job(1, &["linux"])), "Scope");
    }

    #[test]
    fn a_target_is_known_beforehand_if_its_names_have_no_star() {
        let mut pool = pool("p", &["linux"]);
        let known = |pool: &Pool| -> Vec<String> {
            pool.known_targets().iter().map(ToString::to_string).collect()
        };
        pool.repositories = ["acme/app", "acme/a*", "ac*/app"]
            .map(|text| RepositoryPattern::parse(text).unwrap())
            .into();
        assert_eq!(known(&pool), ["repo:acme/app"]);
        pool.scope = Scope::Organization;
        assert_eq!(known(&pool), ["org:acme"]);
    }
}
