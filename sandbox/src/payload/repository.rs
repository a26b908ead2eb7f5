//! Repositories.

use std::collections::BTreeMap;

use serde::Serialize;

use super::account::SimpleUser;
use super::ids::{CREATED_AT, node_id};
use super::urls::Urls;
use crate::repository::{Access, Repository as Record, Visibility};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Repository {
    pub id: u64,
    pub node_id: String,
    pub name: String,
    pub full_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private: Option<bool>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<&'static str>,
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
    pub(crate) fn new(record: &Record, urls: &Urls) -> Self {
        let (id, repository) = (record.id, &record.name);
        let full_name = repository.to_string();
        let url = urls.to(&full_name);
        let host = urls.origin().split_once("://").map_or(urls.origin(), |(_, host)| host);
        Self {
            id,
            node_id: node_id("R", id),
            name: repository.name.clone(),
            private: Some(record.visibility != Visibility::Public),
            owner: SimpleUser::organization(&repository.owner, urls),
            description: None,
            fork: false,
            urls: urls.table(&format!("repos/{full_name}"), REPOSITORY_URLS),
            git_url: format!("git://{host}/{full_name}.git"),
            ssh_url: format!("git@{host}:{full_name}.git"),
            clone_url: format!("{url}.git"),
            svn_url: url,
            html_url: urls.page(&full_name),
            mirror_url: None,
            homepage: None,
            created_at: CREATED_AT,
            updated_at: CREATED_AT,
            pushed_at: CREATED_AT,
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
            archived: record.access == Access::Archived,
            disabled: record.access == Access::Blocked,
            open_issues_count: 0,
            license: None,
            allow_forking: true,
            is_template: false,
            web_commit_signoff_required: false,
            topics: Vec::new(),
            custom_properties: BTreeMap::new(),
            visibility: Some(record.visibility.as_str()),
            forks: 0,
            open_issues: 0,
            watchers: 0,
            default_branch: "main",
            full_name,
        }
    }
    /// As in webhooks.
    pub(crate) fn in_webhook(record: &Record, urls: &Urls) -> Self {
        let repository = Self::new(record, urls);
        match record.visibility {
            Visibility::Unreported => Self { private: None, visibility: None, ..repository },
            _ => repository,
        }
    }
}
