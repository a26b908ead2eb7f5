//! The GitHub App, its installations and their tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;

use super::error::ApiError;
use super::extract::Id;
use super::page::{Page, PageOf};
use crate::app::App;
use crate::installation::InstallationStatus;
use crate::payload::{ACTOR, APP_ID, CREATED_AT, SimpleUser, WholeSeconds, id_of, node_id};
use crate::scope::Scope;
use crate::state::{InstallationToken as Issued, State};

const SLUG: &str = "edgerunner-sandbox";
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Serialize)]
struct Permissions {
    actions: &'static str,
    administration: &'static str,
    metadata: &'static str,
    organization_self_hosted_runners: &'static str,
}

const PERMISSIONS: Permissions = Permissions {
    actions: "read",
    administration: "write",
    metadata: "read",
    organization_self_hosted_runners: "write",
};

#[derive(Serialize)]
pub(super) struct AppView {
    id: u64,
    slug: &'static str,
    node_id: String,
    owner: SimpleUser,
    name: &'static str,
    description: Option<String>,
    external_url: String,
    html_url: String,
    created_at: &'static str,
    updated_at: &'static str,
    permissions: Permissions,
    events: [&'static str; 1],
}

pub(super) async fn app(Shared(app): Shared<Arc<App>>) -> Json<AppView> {
    Json(app.read(view))
}

pub(super) fn view(state: &State) -> AppView {
    AppView {
        id: APP_ID,
        slug: SLUG,
        node_id: node_id("A", APP_ID),
        owner: SimpleUser::organization("acme", &state.urls),
        name: "Edgerunner sandbox",
        description: None,
        external_url: state.urls.to("_sandbox/"),
        html_url: state.urls.page(&format!("apps/{SLUG}")),
        created_at: CREATED_AT,
        updated_at: CREATED_AT,
        permissions: PERMISSIONS,
        events: ["workflow_job"],
    }
}

/// GitHub's OpenAPI description requires the fields of a user and of an enterprise at once.
#[derive(Serialize)]
struct Account {
    #[serde(flatten)]
    user: SimpleUser,
    name: String,
    slug: String,
    created_at: &'static str,
    updated_at: &'static str,
}

#[derive(Serialize)]
pub(super) struct InstallationView {
    id: u64,
    account: Account,
    repository_selection: &'static str,
    access_tokens_url: String,
    repositories_url: String,
    html_url: String,
    app_id: u64,
    app_slug: &'static str,
    target_id: u64,
    target_type: &'static str,
    permissions: Permissions,
    events: [&'static str; 1],
    created_at: &'static str,
    updated_at: &'static str,
    single_file_name: Option<String>,
    suspended_by: Option<SimpleUser>,
    suspended_at: Option<WholeSeconds>,
}

impl InstallationView {
    fn new(owner: &str, state: &State) -> Self {
        let id = state.installation_id(owner);
        let suspended_at = state.installation(owner).suspended_at.map(WholeSeconds);
        Self {
            id,
            account: Account {
                user: SimpleUser::organization(owner, &state.urls),
                name: owner.to_owned(),
                slug: owner.to_owned(),
                created_at: CREATED_AT,
                updated_at: CREATED_AT,
            },
            repository_selection: "all",
            access_tokens_url: state.urls.to(&format!("app/installations/{id}/access_tokens")),
            repositories_url: state.urls.to("installation/repositories"),
            html_url: state
                .urls
                .page(&format!("organizations/{owner}/settings/installations/{id}")),
            app_id: APP_ID,
            app_slug: SLUG,
            target_id: id_of(owner),
            target_type: "Organization",
            permissions: PERMISSIONS,
            events: ["workflow_job"],
            created_at: CREATED_AT,
            updated_at: CREATED_AT,
            single_file_name: None,
            suspended_by: suspended_at.map(|_| SimpleUser::user(ACTOR, &state.urls)),
            suspended_at,
        }
    }
}

pub(super) async fn installations(Shared(app): Shared<Arc<App>>, page: Page) -> Response {
    let all = app.read(|state| {
        state.known_owners().iter().map(|owner| InstallationView::new(owner, state)).collect()
    });
    let PageOf { items, links, .. } = page.of(all);
    (links, Json(items)).into_response()
}

pub(super) async fn installation(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
) -> Result<Json<InstallationView>, ApiError> {
    let owner = match scope {
        Scope::Repository(repository) => repository.owner,
        Scope::Organization(organization) => organization,
        Scope::Enterprise(_) => return Err(ApiError::not_found()),
    };
    app.update(|state| {
        state.add_owner(&owner);
        match state.installation(&owner).status {
            InstallationStatus::Uninstalled => Err(ApiError::not_found()),
            InstallationStatus::Active | InstallationStatus::Suspended => {
                Ok(Json(InstallationView::new(&owner, state)))
            }
        }
    })
}

#[derive(Serialize)]
pub(super) struct InstallationToken {
    token: String,
    expires_at: WholeSeconds,
    permissions: Permissions,
    repository_selection: &'static str,
}

pub(super) async fn access_token(
    Shared(app): Shared<Arc<App>>,
    Id(id): Id,
) -> Result<(StatusCode, Json<InstallationToken>), ApiError> {
    app.update(|state| {
        let owner = state.installation_owner(id).ok_or_else(ApiError::not_found)?;
        if state.installation(&owner).status == InstallationStatus::Suspended {
            return Err(ApiError::suspended());
        }
        let secret: String = std::iter::repeat_with(fastrand::alphanumeric).take(36).collect();
        let token = format!("ghs_{secret}");
        let now = Timestamp::now();
        let expires_at = now + TOKEN_LIFETIME;
        state.installation_tokens.retain(|_, token| token.expires_at > now);
        state.installation_tokens.insert(token.clone(), Issued { installation: id, expires_at });
        let view = InstallationToken {
            token,
            expires_at: WholeSeconds(expires_at),
            permissions: PERMISSIONS,
            repository_selection: "all",
        };
        Ok((StatusCode::CREATED, Json(view)))
    })
}
