//! Types that planning, storing and executing share: targets, jobs, time, failure causes.

use std::{error, fmt, str::FromStr};

pub use crate::{
    host::Host,
    time::{Instant, Moment, UnixMs},
};

/// Where a runner is registered, as people name it; see [`ServerTarget`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Repository { owner: String, name: String },
    Organization(String),
    Enterprise(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository { owner, name } => write!(f, "repo:{owner}/{name}"),
            Self::Organization(login) => write!(f, "org:{login}"),
            Self::Enterprise(slug) => write!(f, "enterprise:{slug}"),
        }
    }
}

/// A text that is not a [`Target`].
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidTarget(String);

impl fmt::Display for InvalidTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(f, "`{text}` is not a target: write repo:OWNER/NAME, org:LOGIN or enterprise:SLUG")
    }
}

impl error::Error for InvalidTarget {}

impl Target {
    /// The target of this name on this server.
    pub fn on(self, host: Host) -> ServerTarget {
        ServerTarget { host, target: self }
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let parsed = match text.split_once(':') {
            Some(("repo", full_name)) => match full_name.split_once('/') {
                Some((owner, name)) if !owner.is_empty() && !name.is_empty() => {
                    Some(Self::Repository { owner: owner.into(), name: name.into() })
                }
                _ => None,
            },
            Some(("org", login)) if !login.is_empty() => Some(Self::Organization(login.into())),
            Some(("enterprise", slug)) if !slug.is_empty() => Some(Self::Enterprise(slug.into())),
            _ => None,
        };
        parsed.ok_or_else(|| InvalidTarget(text.into()))
    }
}

/// A target and the server that it is on: another server may have one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerTarget {
    pub host: Host,
    pub target: Target,
}

/// On a server that is not known.
impl FromStr for ServerTarget {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        Ok(text.parse::<Target>()?.on(Host::default()))
    }
}

/// Without the host, which is of interest only if there is more than one.
impl fmt::Display for ServerTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

/// A job in one attempt of its run. An event about one attempt never changes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey {
    pub id: u64,
    pub run_attempt: u32,
    /// Each server counts ids by itself.
    pub host: Host,
}

impl JobKey {
    /// On a server that is not known.
    pub fn new(id: u64, run_attempt: u32) -> Self {
        Self { id, run_attempt, host: Host::default() }
    }

    /// The job of the same numbers on this server.
    pub fn on(self, host: Host) -> Self {
        Self { host, ..self }
    }
}

/// Without the host, which is of interest only if there is more than one.
impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.id, self.run_attempt)
    }
}

/// A job's state only moves forward, in the order of this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobState {
    Queued = 0,
    InProgress = 1,
    Completed = 2,
}

impl JobState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }

    /// `None` unless `rank` is the number of a state.
    pub fn from_rank(rank: i64) -> Option<Self> {
        [Self::Queued, Self::InProgress, Self::Completed]
            .into_iter()
            .find(|state| *state as i64 == rank)
    }
}

/// Who can see a repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// GitHub reported none, or one that does not exist.
    #[default]
    Unknown,
    Public,
    Private,
    /// All members of its enterprise can see it.
    Internal,
}

impl Visibility {
    /// As GitHub names it; empty if it is unknown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Public => "public",
            Self::Private => "private",
            Self::Internal => "internal",
        }
    }

    /// From a name of GitHub's.
    pub fn from_name(name: &str) -> Self {
        [Self::Public, Self::Private, Self::Internal]
            .into_iter()
            .find(|visibility| visibility.as_str() == name)
            .unwrap_or_default()
    }

    /// From what GitHub reports about a repository; either may be missing. Unknown if they
    /// contradict each other.
    pub fn reported(name: Option<&str>, private: Option<bool>) -> Self {
        match (name, private) {
            (None, Some(true)) => Self::Private,
            (None, Some(false)) => Self::Public,
            (None, None) => Self::Unknown,
            (Some(name), private) => {
                let visibility = Self::from_name(name);
                let is_public = visibility == Self::Public;
                match private {
                    Some(private) if private == is_public => Self::Unknown,
                    _ => visibility,
                }
            }
        }
    }

    /// What is known now, or else what was known before.
    pub fn or(self, before: Self) -> Self {
        if self == Self::Unknown { before } else { self }
    }
}

/// The part of a job that the planner needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its host is that of the repository, the organization and the enterprise.
    pub key: JobKey,
    /// `owner/name`.
    pub repository: String,
    /// Empty for a repository owned by a user.
    pub organization: String,
    /// Empty if GitHub named none.
    pub enterprise: String,
    /// Of its repository.
    pub visibility: Visibility,
    /// 0 if GitHub named none.
    pub run_id: u64,
    /// Whether its run is of a fork: see [`RunOrigin`]. `None` until GitHub was asked.
    pub from_fork: Option<bool>,
    pub labels: Vec<String>,
    /// When the sidecar first learned of it.
    pub queued_at: UnixMs,
    /// GUID of the webhook delivery that announced it.
    pub delivery: String,
}

/// Where the code of a workflow run comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOrigin {
    /// Of the repository that the run belongs to.
    pub visibility: Visibility,
    /// Whether the code is that of another repository: a pull request from a fork, which may be
    /// deleted by now.
    pub from_fork: bool,
}

/// Why a launch failed. It decides what is paused, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// GitHub does not accept the credential.
    Unauthorized,
    /// The credential lacks a permission, or the target does not exist.
    Forbidden,
    RateLimited,
    /// GitHub returned a server error, or did not answer in time.
    GitHubUnavailable,
    /// GitHub rejected the request as invalid, or the pool's runner group does not exist.
    Rejected,
    /// GitHub, or a server in between, returned something else than the API documents. The
    /// request may have succeeded.
    UnexpectedResponse,
    DockerUnavailable,
    /// The image is missing and could not be pulled.
    Image,
    /// Docker refused to create or start the container.
    Container,
    /// The runner exited without taking a job.
    RunnerExited,
    /// The runner's version is too old for GitHub.
    RunnerTooOld,
    /// The runner did not come online in time.
    NeverOnline,
    TimedOut,
    /// The store could not be written; nothing may be launched without a record.
    Store,
}

impl Cause {
    pub const ALL: [Self; 14] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::RateLimited,
        Self::GitHubUnavailable,
        Self::Rejected,
        Self::UnexpectedResponse,
        Self::DockerUnavailable,
        Self::Image,
        Self::Container,
        Self::RunnerExited,
        Self::RunnerTooOld,
        Self::NeverOnline,
        Self::TimedOut,
        Self::Store,
    ];

    /// Stable name for metrics, the API and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::GitHubUnavailable => "github_unavailable",
            Self::Rejected => "rejected",
            Self::UnexpectedResponse => "unexpected_response",
            Self::DockerUnavailable => "docker_unavailable",
            Self::Image => "image",
            Self::Container => "container",
            Self::RunnerExited => "runner_exited",
            Self::RunnerTooOld => "runner_too_old",
            Self::NeverOnline => "never_online",
            Self::TimedOut => "timed_out",
            Self::Store => "store",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visibility_that_is_absent_strange_or_contradictory_is_unknown() {
        use Visibility::{Internal, Private, Public, Unknown};
        for (name, private, expected) in [
            (Some("public"), Some(false), Public),
            (Some("private"), Some(true), Private),
            (Some("internal"), Some(true), Internal),
            (Some("internal"), None, Internal),
            (None, Some(true), Private),
            (None, Some(false), Public),
            (None, None, Unknown),
            (Some("secret"), Some(true), Unknown),
            (Some(""), Some(true), Unknown),
            (Some("private"), Some(false), Unknown),
            (Some("public"), Some(true), Unknown),
        ] {
            assert_eq!(Visibility::reported(name, private), expected, "{name:?} {private:?}");
        }
    }

    #[test]
    fn a_target_parses_back_to_what_was_written() {
        for text in ["repo:acme/app", "org:acme", "enterprise:acme-corp"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in ["acme/app", "repo:acme", "repo:/app", "org:", "team:acme", ""] {
            assert_eq!(text.parse::<Target>(), Err(InvalidTarget(text.into())));
        }
    }
}
