//! Extractors for the values in a request's path: a scope, a webhook id, an id.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use super::error::ApiError;
use crate::app::App;
use crate::scope::{RepositoryName, Scope};

async fn parameters(parts: &mut Parts) -> Result<RawPathParams, ApiError> {
    RawPathParams::from_request_parts(parts, &()).await.map_err(|_| ApiError::not_found())
}

fn parameter<'a>(parameters: &'a RawPathParams, name: &str) -> Option<&'a str> {
    parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

async fn number(parts: &mut Parts, name: &str) -> Result<u64, ApiError> {
    parameter(&parameters(parts).await?, name)
        .and_then(|text| text.parse().ok())
        .ok_or_else(ApiError::not_found)
}

impl FromRequestParts<Arc<App>> for Scope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let parameters = parameters(parts).await?;
        let get = |name| parameter(&parameters, name).map(str::to_owned);
        let exists = |owner: &str| {
            app.read(|state| {
                let owners = &state.settings.owners;
                owners.is_empty() || owners.iter().any(|own| own.eq_ignore_ascii_case(owner))
            })
        };
        let enterprise_exists = |enterprise: &str| {
            app.read(|state| {
                let own = state.settings.enterprise.as_ref();
                own.is_none_or(|own| own.eq_ignore_ascii_case(enterprise))
            })
        };
        if let Some(id) = get("repository") {
            let id = id.parse().map_err(|_| ApiError::not_found())?;
            let name = app.read(|state| state.repository_name(id));
            return name.map(Self::Repository).ok_or_else(ApiError::not_found);
        }
        match (get("owner"), get("repo"), get("org"), get("enterprise")) {
            (Some(owner), Some(name), _, _) if exists(&owner) => {
                Ok(Self::Repository(RepositoryName { owner, name }))
            }
            (_, _, Some(organization), _) if exists(&organization) => {
                Ok(Self::Organization(organization))
            }
            (_, _, _, Some(enterprise)) if enterprise_exists(&enterprise) => {
                Ok(Self::Enterprise(enterprise))
            }
            _ => Err(ApiError::not_found()),
        }
    }
}

/// The path's `{id}`.
pub(super) struct Id(pub u64);

impl FromRequestParts<Arc<App>> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        number(parts, "id").await.map(Self)
    }
}

/// The path's `{version}`.
pub(super) struct Version(pub String);

impl FromRequestParts<Arc<App>> for Version {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        let parameters = parameters(parts).await?;
        let version = parameter(&parameters, "version").ok_or_else(ApiError::not_found)?;
        Ok(Self(version.to_owned()))
    }
}

/// The path's `{hook}`.
pub(super) struct WebhookId(pub u64);

impl FromRequestParts<Arc<App>> for WebhookId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        number(parts, "hook").await.map(Self)
    }
}

pub(super) fn repository(scope: Scope) -> Result<RepositoryName, ApiError> {
    match scope {
        Scope::Repository(repository) => Ok(repository),
        Scope::Organization(_) | Scope::Enterprise(_) => Err(ApiError::not_found()),
    }
}
