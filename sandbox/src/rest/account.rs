//! The token's user, organizations, repositories, `/meta` and the remaining rate limit.

use std::sync::Arc;

use axum::extract::{Path, State as Shared};
use axum::{Extension, Json};
use serde::Serialize;

use super::error::ApiError;
use super::extract::repository;
use crate::app::App;
use crate::payload::{ACTOR, CREATED_AT, Organization, Repository, SimpleUser};
use crate::rate_limit::RateLimitBucket;
use crate::scope::Scope;

#[derive(Serialize)]
pub(super) struct UserView {
    #[serde(flatten)]
    user: SimpleUser,
    name: &'static str,
    company: Option<String>,
    blog: Option<String>,
    location: Option<String>,
    email: Option<String>,
    hireable: Option<bool>,
    bio: Option<String>,
    public_repos: u64,
    public_gists: u64,
    followers: u64,
    following: u64,
    created_at: &'static str,
    updated_at: &'static str,
}

pub(super) async fn user(Shared(app): Shared<Arc<App>>) -> Json<UserView> {
    Json(app.read(|state| UserView::new(SimpleUser::user(ACTOR, &state.urls))))
}

/// Every account is an organization, except for that of the token's user.
pub(super) async fn account(
    Shared(app): Shared<Arc<App>>,
    Path(login): Path<String>,
) -> Json<UserView> {
    Json(app.read(|state| {
        UserView::new(match login.eq_ignore_ascii_case(ACTOR) {
            true => SimpleUser::user(ACTOR, &state.urls),
            false => SimpleUser::organization(&login, &state.urls),
        })
    }))
}

impl UserView {
    fn new(user: SimpleUser) -> Self {
        Self {
            user,
            name: "The Octocat",
            company: None,
            blog: None,
            location: None,
            email: None,
            hireable: None,
            bio: None,
            public_repos: 0,
            public_gists: 0,
            followers: 0,
            following: 0,
            created_at: CREATED_AT,
            updated_at: CREATED_AT,
        }
    }
}

#[derive(Serialize)]
pub(super) struct OrganizationView {
    #[serde(flatten)]
    organization: Organization,
    has_organization_projects: bool,
    has_repository_projects: bool,
    public_repos: u64,
    public_gists: u64,
    followers: u64,
    following: u64,
    html_url: String,
    #[serde(rename = "type")]
    kind: &'static str,
    created_at: &'static str,
    updated_at: &'static str,
    archived_at: Option<String>,
}

pub(super) async fn organization(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
) -> Result<Json<OrganizationView>, ApiError> {
    let Scope::Organization(login) = scope else {
        return Err(ApiError::not_found());
    };
    Ok(Json(app.read(|state| OrganizationView {
        organization: Organization::new(&login, &state.urls),
        has_organization_projects: true,
        has_repository_projects: true,
        public_repos: 0,
        public_gists: 0,
        followers: 0,
        following: 0,
        html_url: state.urls.page(&login),
        kind: "Organization",
        created_at: CREATED_AT,
        updated_at: CREATED_AT,
        archived_at: None,
    })))
}

#[derive(Serialize)]
pub(super) struct RepositoryView {
    #[serde(flatten)]
    repository: Repository,
    permissions: Permissions,
    organization: SimpleUser,
    subscribers_count: u64,
    network_count: u64,
}

#[derive(Serialize)]
struct Permissions {
    admin: bool,
    maintain: bool,
    push: bool,
    triage: bool,
    pull: bool,
}

pub(super) async fn repository_view(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
) -> Result<Json<RepositoryView>, ApiError> {
    let name = repository(scope)?;
    Ok(Json(app.read(|state| RepositoryView {
        repository: Repository::new(&state.repository(&name), &state.urls),
        permissions: Permissions {
            admin: true,
            maintain: true,
            push: true,
            triage: true,
            pull: true,
        },
        organization: SimpleUser::organization(&name.owner, &state.urls),
        subscribers_count: 0,
        network_count: 0,
    })))
}

#[derive(Serialize)]
pub(super) struct Meta {
    verifiable_password_authentication: bool,
    hooks: [&'static str; 2],
    domains: Domains,
}

/// The hosts of each of GitHub's services.
#[derive(Serialize)]
struct Domains {
    website: [&'static str; 5],
    codespaces: [&'static str; 2],
    copilot: [&'static str; 2],
    packages: [&'static str; 3],
    actions: [&'static str; 3],
    actions_inbound: ActionsInbound,
    artifact_attestations: ArtifactAttestations,
}

#[derive(Serialize)]
struct ActionsInbound {
    full_domains: [&'static str; 4],
    wildcard_domains: [&'static str; 2],
}

#[derive(Serialize)]
struct ArtifactAttestations {
    trust_domain: &'static str,
    services: [&'static str; 3],
}

pub(super) async fn meta() -> Json<Meta> {
    Json(Meta {
        verifiable_password_authentication: false,
        hooks: ["127.0.0.0/8", "::1/128"],
        domains: Domains {
            website: [
                "*.github.com",
                "*.github.dev",
                "*.github.io",
                "*.githubassets.com",
                "*.githubusercontent.com",
            ],
            codespaces: ["*.github.dev", "*.visualstudio.com"],
            copilot: ["*.githubcopilot.com", "copilot-proxy.githubusercontent.com"],
            packages: ["*.pkg.github.com", "*.ghcr.io", "ghcr.io"],
            actions: [
                "*.actions.githubusercontent.com",
                "productionresultssa0.blob.core.windows.net",
                "productionresultssa1.blob.core.windows.net",
            ],
            actions_inbound: ActionsInbound {
                full_domains: ["github.com", "api.github.com", "codeload.github.com", "ghcr.io"],
                wildcard_domains: ["*.actions.githubusercontent.com", "*.githubusercontent.com"],
            },
            artifact_attestations: ArtifactAttestations {
                trust_domain: "",
                services: [
                    "*.actions.githubusercontent.com",
                    "fulcio.githubapp.com",
                    "tuf-repo.github.com",
                ],
            },
        },
    })
}

#[derive(Serialize)]
pub(super) struct EnterpriseServerMeta {
    verifiable_password_authentication: bool,
    installed_version: &'static str,
}

/// An Enterprise Server lists neither addresses nor hosts.
pub(super) async fn meta_of_enterprise_server() -> Json<EnterpriseServerMeta> {
    Json(EnterpriseServerMeta {
        verifiable_password_authentication: true,
        installed_version: "3.19.0",
    })
}

#[derive(Serialize)]
pub(super) struct RateLimits {
    resources: Resources,
    rate: Rate,
}

#[derive(Serialize)]
struct Resources {
    core: Rate,
    search: Rate,
}

#[derive(Clone, Copy, Serialize)]
struct Rate {
    limit: u32,
    used: u32,
    remaining: u32,
    reset: i64,
}

pub(super) async fn rate_limit(
    Shared(app): Shared<Arc<App>>,
    Extension(bucket): Extension<RateLimitBucket>,
) -> Json<RateLimits> {
    let window = app.update(|state| *state.rate_window(bucket));
    let core = Rate {
        limit: window.limit,
        used: window.used,
        remaining: window.remaining(),
        reset: window.reset_at.as_second(),
    };
    let search = Rate { limit: 30, used: 0, remaining: 30, reset: window.reset_at.as_second() };
    Json(RateLimits { resources: Resources { core, search }, rate: core })
}
