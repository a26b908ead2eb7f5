//! What GitHub says of users, repositories and jobs, in REST answers and in
//! webhooks alike.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, SubsecRound as _, Utc};
use serde::{Serialize, Serializer};
use sha1::{Digest as _, Sha1};

use crate::job::{Conclusion, Job, JobStatus};
use crate::scope::RepositoryName;

/// Addresses in answers: everything lives under the sandbox's own origin.
#[derive(Clone, Debug)]
pub(crate) struct Urls {
    origin: String,
}

impl Urls {
    pub(crate) fn new(origin: &str) -> Self {
        Self { origin: origin.trim_end_matches('/').to_owned() }
    }

    pub(crate) fn to(&self, path: &str) -> String {
        format!("{}/{path}", self.origin)
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    fn table(
        &self,
        base: &str,
        entries: &[(&'static str, &str)],
    ) -> BTreeMap<&'static str, String> {
        entries
            .iter()
            .map(|(key, suffix)| (*key, format!("{}/{base}{suffix}", self.origin)))
            .collect()
    }
}

/// GitHub writes whole seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamp(pub DateTime<Utc>);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.trunc_subsecs(0).serialize(serializer)
    }
}

/// Ids must not change between two starts of the sandbox, so they come from
/// the name (FNV-1a, cut to what GitHub's ids look like).
pub(crate) fn id_of(name: &str) -> u64 {
    let hash = name
        .bytes()
        .map(|byte| byte.to_ascii_lowercase())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    hash % 900_000_000 + 1_000_000
}

pub(crate) fn node_id(prefix: &str, id: u64) -> String {
    format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(id.to_be_bytes()))
}

/// One commit for each repository, so that payloads name a plausible one.
pub(crate) fn head_sha(repository: &RepositoryName) -> String {
    hex::encode(Sha1::digest(repository.to_string().to_ascii_lowercase()))
}

/// Who queues the jobs.
pub(crate) const ACTOR: &str = "octocat";
/// The GitHub App whose installation tokens and hook the sandbox has.
pub const APP_ID: u64 = 424_242;

/// When everything was created that has no time of its own.
pub(crate) const EPOCH: &str = "2024-01-01T00:00:00Z";

#[derive(Clone, Debug, Serialize)]
pub(crate) struct SimpleUser {
    pub login: String,
    pub id: u64,
    pub node_id: String,
    pub gravatar_id: &'static str,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub site_admin: bool,
    pub user_view_type: &'static str,
    pub avatar_url: String,
    pub html_url: String,
    #[serde(flatten)]
    pub urls: BTreeMap<&'static str, String>,
}

const USER_URLS: &[(&str, &str)] = &[
    ("url", ""),
    ("followers_url", "/followers"),
    ("following_url", "/following{/other_user}"),
    ("gists_url", "/gists{/gist_id}"),
    ("starred_url", "/starred{/owner}{/repo}"),
    ("subscriptions_url", "/subscriptions"),
    ("organizations_url", "/orgs"),
    ("repos_url", "/repos"),
    ("events_url", "/events{/privacy}"),
    ("received_events_url", "/received_events"),
];

impl SimpleUser {
    pub(crate) fn user(login: &str, urls: &Urls) -> Self {
        Self::account(login, "User", "U", urls)
    }

    pub(crate) fn organization(login: &str, urls: &Urls) -> Self {
        Self::account(login, "Organization", "O", urls)
    }

    fn account(login: &str, kind: &'static str, prefix: &str, urls: &Urls) -> Self {
        let id = id_of(login);
        Self {
            login: login.to_owned(),
            id,
            node_id: node_id(prefix, id),
            gravatar_id: "",
            kind,
            site_admin: false,
            user_view_type: "public",
            avatar_url: urls.to(&format!("avatars/u/{id}")),
            html_url: urls.to(login),
            urls: urls.table(&format!("users/{login}"), USER_URLS),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Organization {
    pub login: String,
    pub id: u64,
    pub node_id: String,
    pub description: Option<String>,
    pub avatar_url: String,
    #[serde(flatten)]
    pub urls: BTreeMap<&'static str, String>,
}

const ORGANIZATION_URLS: &[(&str, &str)] = &[
    ("url", ""),
    ("repos_url", "/repos"),
    ("events_url", "/events"),
    ("hooks_url", "/hooks"),
    ("issues_url", "/issues"),
    ("members_url", "/members{/member}"),
    ("public_members_url", "/public_members{/member}"),
];

impl Organization {
    pub(crate) fn new(login: &str, urls: &Urls) -> Self {
        let id = id_of(login);
        Self {
            login: login.to_owned(),
            id,
            node_id: node_id("O", id),
            description: None,
            avatar_url: urls.to(&format!("avatars/u/{id}")),
            urls: urls.table(&format!("orgs/{login}"), ORGANIZATION_URLS),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Enterprise {
    pub id: u64,
    pub slug: String,
    pub name: String,
    pub node_id: String,
    pub avatar_url: String,
    pub description: Option<String>,
    pub website_url: Option<String>,
    pub html_url: String,
    pub created_at: &'static str,
    pub updated_at: &'static str,
}

impl Enterprise {
    pub(crate) fn new(slug: &str, urls: &Urls) -> Self {
        let id = id_of(slug);
        Self {
            id,
            slug: slug.to_owned(),
            name: slug.to_owned(),
            node_id: node_id("E", id),
            avatar_url: urls.to(&format!("avatars/b/{id}")),
            description: None,
            website_url: None,
            html_url: urls.to(&format!("enterprises/{slug}")),
            created_at: EPOCH,
            updated_at: EPOCH,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Repository {
    pub id: u64,
    pub node_id: String,
    pub name: String,
    pub full_name: String,
    pub private: bool,
    pub owner: SimpleUser,
    pub html_url: String,
    pub description: Option<String>,
    pub fork: bool,
    #[serde(flatten)]
    pub urls: BTreeMap<&'static str, String>,
    pub git_url: String,
    pub ssh_url: String,
    pub clone_url: String,
    pub svn_url: String,
    pub mirror_url: Option<String>,
    pub homepage: Option<String>,
    pub created_at: &'static str,
    pub updated_at: &'static str,
    pub pushed_at: &'static str,
    pub size: u64,
    pub stargazers_count: u64,
    pub watchers_count: u64,
    pub language: Option<String>,
    pub has_issues: bool,
    pub has_projects: bool,
    pub has_downloads: bool,
    pub has_wiki: bool,
    pub has_pages: bool,
    pub has_discussions: bool,
    pub forks_count: u64,
    pub archived: bool,
    pub disabled: bool,
    pub open_issues_count: u64,
    pub license: Option<String>,
    pub allow_forking: bool,
    pub is_template: bool,
    pub web_commit_signoff_required: bool,
    pub topics: Vec<String>,
    pub custom_properties: BTreeMap<&'static str, String>,
    pub visibility: &'static str,
    pub forks: u64,
    pub open_issues: u64,
    pub watchers: u64,
    pub default_branch: &'static str,
}

const REPOSITORY_URLS: &[(&str, &str)] = &[
    ("url", ""),
    ("archive_url", "/{archive_format}{/ref}"),
    ("assignees_url", "/assignees{/user}"),
    ("blobs_url", "/git/blobs{/sha}"),
    ("branches_url", "/branches{/branch}"),
    ("collaborators_url", "/collaborators{/collaborator}"),
    ("comments_url", "/comments{/number}"),
    ("commits_url", "/commits{/sha}"),
    ("compare_url", "/compare/{base}...{head}"),
    ("contents_url", "/contents/{+path}"),
    ("contributors_url", "/contributors"),
    ("deployments_url", "/deployments"),
    ("downloads_url", "/downloads"),
    ("events_url", "/events"),
    ("forks_url", "/forks"),
    ("git_commits_url", "/git/commits{/sha}"),
    ("git_refs_url", "/git/refs{/sha}"),
    ("git_tags_url", "/git/tags{/sha}"),
    ("hooks_url", "/hooks"),
    ("issue_comment_url", "/issues/comments{/number}"),
    ("issue_events_url", "/issues/events{/number}"),
    ("issues_url", "/issues{/number}"),
    ("keys_url", "/keys{/key_id}"),
    ("labels_url", "/labels{/name}"),
    ("languages_url", "/languages"),
    ("merges_url", "/merges"),
    ("milestones_url", "/milestones{/number}"),
    ("notifications_url", "/notifications{?since,all,participating}"),
    ("pulls_url", "/pulls{/number}"),
    ("releases_url", "/releases{/id}"),
    ("stargazers_url", "/stargazers"),
    ("statuses_url", "/statuses/{sha}"),
    ("subscribers_url", "/subscribers"),
    ("subscription_url", "/subscription"),
    ("tags_url", "/tags"),
    ("teams_url", "/teams"),
    ("trees_url", "/git/trees{/sha}"),
];

impl Repository {
    pub(crate) fn new(repository: &RepositoryName, urls: &Urls) -> Self {
        let full_name = repository.to_string();
        let id = id_of(&full_name);
        let page = urls.to(&full_name);
        let host = urls.origin().split_once("://").map_or(urls.origin(), |(_, host)| host);
        Self {
            id,
            node_id: node_id("R", id),
            name: repository.name.clone(),
            private: true,
            owner: SimpleUser::organization(&repository.owner, urls),
            description: None,
            fork: false,
            urls: urls.table(&format!("repos/{full_name}"), REPOSITORY_URLS),
            git_url: format!("git://{host}/{full_name}.git"),
            ssh_url: format!("git@{host}:{full_name}.git"),
            clone_url: format!("{page}.git"),
            svn_url: page.clone(),
            html_url: page,
            mirror_url: None,
            homepage: None,
            created_at: EPOCH,
            updated_at: EPOCH,
            pushed_at: EPOCH,
            size: 0,
            stargazers_count: 0,
            watchers_count: 0,
            language: None,
            has_issues: true,
            has_projects: true,
            has_downloads: true,
            has_wiki: true,
            has_pages: false,
            has_discussions: false,
            forks_count: 0,
            archived: false,
            disabled: false,
            open_issues_count: 0,
            license: None,
            allow_forking: true,
            is_template: false,
            web_commit_signoff_required: false,
            topics: Vec::new(),
            custom_properties: BTreeMap::new(),
            visibility: "private",
            forks: 0,
            open_issues: 0,
            watchers: 0,
            default_branch: "main",
            full_name,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    name: &'static str,
    status: JobStatus,
    conclusion: Option<Conclusion>,
    number: u32,
    started_at: Timestamp,
    completed_at: Option<Timestamp>,
}

/// A job as `GET …/actions/jobs/{id}` and the webhook tell it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WorkflowJob {
    id: u64,
    run_id: u64,
    workflow_name: &'static str,
    head_branch: &'static str,
    run_url: String,
    run_attempt: u32,
    node_id: String,
    head_sha: String,
    url: String,
    html_url: String,
    status: JobStatus,
    conclusion: Option<Conclusion>,
    created_at: Timestamp,
    started_at: Timestamp,
    completed_at: Option<Timestamp>,
    name: String,
    steps: Vec<Step>,
    check_run_url: String,
    labels: Vec<String>,
    runner_id: Option<u64>,
    runner_name: Option<String>,
    runner_group_id: Option<u64>,
    runner_group_name: Option<String>,
}

pub(crate) const WORKFLOW_NAME: &str = "CI";
pub(crate) const BRANCH: &str = "main";

impl WorkflowJob {
    pub(crate) fn new(job: &Job, urls: &Urls) -> Self {
        let repository = &job.repository;
        let (id, run_id) = (job.id, job.run_id);
        let runner = job.runner.as_ref();
        let step = |name, number| Step {
            name,
            status: job.status,
            conclusion: job.conclusion,
            number,
            started_at: Timestamp(job.started_at),
            completed_at: job.completed_at.map(Timestamp),
        };
        Self {
            id,
            run_id,
            workflow_name: WORKFLOW_NAME,
            head_branch: BRANCH,
            run_url: urls.to(&format!("repos/{repository}/actions/runs/{run_id}")),
            run_attempt: job.run_attempt,
            node_id: node_id("CR", id),
            head_sha: head_sha(repository),
            url: urls.to(&format!("repos/{repository}/actions/jobs/{id}")),
            html_url: urls.to(&format!("{repository}/actions/runs/{run_id}/job/{id}")),
            status: job.status,
            conclusion: job.conclusion,
            created_at: Timestamp(job.created_at),
            started_at: Timestamp(job.started_at),
            completed_at: job.completed_at.map(Timestamp),
            name: job.name.clone(),
            steps: match runner {
                Some(_) => vec![step("Set up job", 1), step("Work", 2)],
                None => Vec::new(),
            },
            check_run_url: urls.to(&format!("repos/{repository}/check-runs/{id}")),
            labels: job.labels.clone(),
            runner_id: runner.map(|runner| runner.runner_id),
            runner_name: runner.map(|runner| runner.runner_name.clone()),
            runner_group_id: runner.map(|runner| runner.runner_group_id),
            runner_group_name: runner.map(|runner| runner.runner_group_name.clone()),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct InstallationRef {
    pub id: u64,
    pub node_id: String,
}

impl InstallationRef {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, node_id: node_id("MDIz", id) }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct WorkflowJobEvent {
    pub action: &'static str,
    pub workflow_job: WorkflowJob,
    pub repository: Repository,
    pub organization: Organization,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enterprise: Option<Enterprise>,
    pub sender: SimpleUser,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installation: Option<InstallationRef>,
}

#[derive(Debug, Serialize)]
pub(crate) struct PingEvent {
    pub zen: &'static str,
    pub hook_id: u64,
    pub hook: Hook,
    pub repository: Repository,
    pub sender: SimpleUser,
}

#[derive(Debug, Serialize)]
pub(crate) struct Hook {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub id: u64,
    pub name: &'static str,
    pub active: bool,
    pub events: Vec<&'static str>,
    pub config: HookConfig,
    pub updated_at: &'static str,
    pub created_at: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct HookConfig {
    pub content_type: &'static str,
    pub url: String,
    pub insecure_ssl: &'static str,
}
