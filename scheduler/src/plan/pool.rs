//! Pools, and which of them serves a job.

use std::{cmp::Reverse, collections::BTreeSet};

use crate::model::{Job, Target};

/// Where the runners of a pool are registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Repository,
    Organization,
    Enterprise,
}

/// What scheduling needs to know of a pool. What its containers look like is
/// no business of the planner's.
#[derive(Clone, Debug)]
pub struct Pool {
    pub name: String,
    /// Lower case.
    pub labels: BTreeSet<String>,
    /// `owner/name` patterns; empty: every repository.
    pub repositories: Vec<RepositoryPattern>,
    /// Serve jobs that ask for no label at all.
    pub jobs_without_labels: bool,
    pub scope: Scope,
    pub min_idle: usize,
    pub max: usize,
    pub priority: i32,
    pub limits: LifeLimits,
}

/// How long a runner may stay in each state, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct LifeLimits {
    pub provisioning_ms: u64,
    pub starting_ms: u64,
    pub idle_ms: u64,
    pub job_ms: u64,
}

/// `owner/name` in which either part may be `*`. Case is ignored, as GitHub does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryPattern {
    owner: String,
    name: String,
}

impl RepositoryPattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            (!part.is_empty() && (part == "*" || !part.contains(['*', '/'])))
                .then(|| part.to_ascii_lowercase())
        };
        text.split_once('/')
            .and_then(|(owner, name)| Some(Self { owner: part(owner)?, name: part(name)? }))
            .ok_or_else(|| {
                format!("`{text}` is not a repository pattern: write OWNER/NAME, OWNER/* or */*")
            })
    }

    /// The repository, if it names one.
    pub fn named(&self) -> Option<(&str, &str)> {
        (self.owner != "*" && self.name != "*").then_some((&self.owner, &self.name))
    }

    fn matches(&self, repository: &str) -> bool {
        repository.split_once('/').is_some_and(|(owner, name)| self.matches_parts(owner, name))
    }

    pub(super) fn matches_parts(&self, owner: &str, name: &str) -> bool {
        let fits = |pattern: &str, part: &str| pattern == "*" || pattern.eq_ignore_ascii_case(part);
        fits(&self.owner, owner) && fits(&self.name, name)
    }
}

/// Label that every self-hosted runner carries, and that a job may ask for.
const IMPLIED_LABEL: &str = "self-hosted";

impl Pool {
    /// Labels that the job asks for and the pool lacks.
    fn lacks(&self, job: &Job) -> Vec<String> {
        job.labels
            .iter()
            .map(|label| label.to_ascii_lowercase())
            .filter(|label| label != IMPLIED_LABEL && !self.labels.contains(label))
            .collect()
    }

    pub fn serves_repository(&self, repository: &str) -> bool {
        self.repositories.is_empty()
            || self.repositories.iter().any(|pattern| pattern.matches(repository))
    }

    /// In lower case, as the patterns are: GitHub ignores case, and a target must
    /// not count twice.
    pub fn target(&self, job: &Job) -> Option<Target> {
        let named = |name: &str| (!name.is_empty()).then(|| name.to_ascii_lowercase());
        match self.scope {
            Scope::Repository => {
                let (owner, name) = job.repository.split_once('/')?;
                Some(Target::Repository { owner: named(owner)?, name: named(name)? })
            }
            Scope::Organization => named(&job.organization).map(Target::Organization),
            Scope::Enterprise => named(&job.enterprise).map(Target::Enterprise),
        }
    }

    /// Where its runners may be registered; `*` stands for any name.
    pub fn targets(&self) -> BTreeSet<Target> {
        let any = || "*".to_owned();
        let every = [RepositoryPattern { owner: any(), name: any() }];
        let patterns = if self.repositories.is_empty() { &every } else { &self.repositories[..] };
        patterns
            .iter()
            .map(|RepositoryPattern { owner, name }| match self.scope {
                Scope::Repository => {
                    Target::Repository { owner: owner.clone(), name: name.clone() }
                }
                Scope::Organization => Target::Organization(owner.clone()),
                Scope::Enterprise => Target::Enterprise(any()),
            })
            .collect()
    }

    /// Targets that are known before any job arrives, for `min_idle`.
    pub fn targets_known_beforehand(&self) -> BTreeSet<Target> {
        let mut targets = self.targets();
        targets.retain(|target| match target {
            Target::Repository { owner, name } => owner != "*" && name != "*",
            Target::Organization(name) | Target::Enterprise(name) => name != "*",
        });
        targets
    }
}

/// Why no pool serves a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoMatch {
    /// The pool that comes nearest lacks these labels.
    MissingLabels(Vec<String>),
    /// The job asks for no label and no pool takes such jobs.
    NoLabels,
    /// No pool's repository patterns cover the repository.
    Repository,
    /// Pools match, but the repository has no organization or enterprise to
    /// register their runners at.
    Scope,
}

/// The pool that serves a job: the highest priority, then the fewest labels to
/// spare, then the name. An index into `pools`.
pub fn match_pool(pools: &[Pool], job: &Job) -> Result<(usize, Target), NoMatch> {
    let mut best = None;
    let mut nearest: Option<Vec<String>> = None;
    let mut without_labels = false;
    let mut out_of_scope = false;
    for (index, pool) in pools.iter().enumerate() {
        if !pool.serves_repository(&job.repository) {
            continue;
        }
        if job.labels.is_empty() && !pool.jobs_without_labels {
            without_labels = true;
            continue;
        }
        let missing = pool.lacks(job);
        if !missing.is_empty() {
            if nearest.as_ref().is_none_or(|nearest| missing.len() < nearest.len()) {
                nearest = Some(missing);
            }
            continue;
        }
        let Some(target) = pool.target(job) else {
            out_of_scope = true;
            continue;
        };
        let rank = (Reverse(pool.priority), pool.labels.len(), &pool.name);
        if best.as_ref().is_none_or(|(best_rank, _, _)| rank < *best_rank) {
            best = Some((rank, index, target));
        }
    }
    match (best, nearest) {
        (Some((_, index, target)), _) => Ok((index, target)),
        (None, _) if out_of_scope => Err(NoMatch::Scope),
        (None, Some(missing)) => Err(NoMatch::MissingLabels(missing)),
        (None, None) if without_labels => Err(NoMatch::NoLabels),
        (None, None) => Err(NoMatch::Repository),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::JobKey;

    pub(in crate::plan) fn pool(name: &str, labels: &[&str]) -> Pool {
        Pool {
            name: name.into(),
            labels: labels.iter().map(ToString::to_string).collect(),
            repositories: Vec::new(),
            jobs_without_labels: false,
            scope: Scope::Repository,
            min_idle: 0,
            max: 10,
            priority: 0,
            limits: LifeLimits {
                provisioning_ms: 120_000,
                starting_ms: 120_000,
                idle_ms: 300_000,
                job_ms: 3_600_000,
            },
        }
    }

    pub(in crate::plan) fn job(id: u64, labels: &[&str]) -> Job {
        Job {
            key: JobKey { id, run_attempt: 1 },
            repository: "acme/app".into(),
            organization: "acme".into(),
            enterprise: String::new(),
            labels: labels.iter().map(ToString::to_string).collect(),
            queued_at: id,
            delivery: format!("delivery-{id}"),
        }
    }

    fn chosen(pools: &[Pool], job: &Job) -> String {
        match match_pool(pools, job) {
            Ok((index, _)) => pools[index].name.clone(),
            Err(why) => format!("{why:?}"),
        }
    }

    #[test]
    fn labels_match_without_case_and_self_hosted_is_implied() {
        let pools = [pool("linux", &["linux", "x64"])];
        assert_eq!(chosen(&pools, &job(1, &["Self-Hosted", "LINUX"])), "linux");
        assert_eq!(chosen(&pools, &job(1, &["linux", "gpu"])), r#"MissingLabels(["gpu"])"#);
        assert_eq!(chosen(&pools, &job(1, &[])), "NoLabels");
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
    fn repositories_and_scope_limit_a_pool() {
        let mut pools = [pool("p", &["linux"])];
        pools[0].repositories = vec![RepositoryPattern::parse("Acme/*").unwrap()];
        assert_eq!(chosen(&pools, &job(1, &["linux"])), "p");
        let mut elsewhere = job(1, &["linux"]);
        elsewhere.repository = "other/app".into();
        assert_eq!(chosen(&pools, &elsewhere), "Repository");
        pools[0].scope = Scope::Enterprise;
        assert_eq!(chosen(&pools, &job(1, &["linux"])), "Scope");
    }

    #[test]
    fn a_pattern_that_is_none_says_what_to_write() {
        for text in ["acme", "acme/", "/app", "acme/app/x", "ac*/app"] {
            assert!(RepositoryPattern::parse(text).unwrap_err().contains("OWNER/*"), "{text}");
        }
    }
}
