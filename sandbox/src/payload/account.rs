//! Users, organizations and enterprises.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ids::{CREATED_AT, id_of, node_id};
use super::urls::Urls;

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
            html_url: urls.page(login),
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
            html_url: urls.page(&format!("enterprises/{slug}")),
            created_at: CREATED_AT,
            updated_at: CREATED_AT,
        }
    }
}
