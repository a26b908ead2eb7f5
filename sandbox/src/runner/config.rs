//! The environment of the real images: a just-in-time configuration, or a
//! registration token with what to register as.

use crate::jitconfig::{JitConfig, JitConfigError};
use crate::protocol::Registration;

pub enum Config {
    Jit(Box<Jit>),
    Register(Box<Registering>),
}

/// Opaque outside: its parts are secrets.
pub struct Jit(pub(crate) JitConfig);

pub struct Registering {
    pub(crate) token: String,
    /// `http://host:port` of the page registered with.
    pub(crate) origin: String,
    pub(crate) registration: Registration,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the just-in-time configuration cannot be used")]
    Jit(#[from] JitConfigError),
    #[error(
        "not configured: set ACTIONS_RUNNER_INPUT_JITCONFIG, or RUNNER_TOKEN with REPO_URL, ORG_URL or ORG_NAME"
    )]
    Missing,
    #[error("`{0}` is not an http:// address of a repository, organization or enterprise")]
    Address(String),
}

pub(super) fn decode(encoded: &str) -> Result<Jit, ConfigError> {
    Ok(Jit(JitConfig::decode(encoded)?))
}

impl Config {
    /// Empty variables count as absent, as they do for the real images.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        if let Some(encoded) = get("ACTIONS_RUNNER_INPUT_JITCONFIG") {
            return Ok(Self::Jit(Box::new(decode(&encoded)?)));
        }
        let token = get("RUNNER_TOKEN").or_else(|| get("ACTIONS_RUNNER_INPUT_TOKEN"));
        let (Some(token), Some(url)) = (token, page(&get)) else {
            return Err(ConfigError::Missing);
        };
        let uri: http::Uri = url.parse().map_err(|_| ConfigError::Address(url.clone()))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(ConfigError::Address(url));
        };
        let labels = get("LABELS").or_else(|| get("RUNNER_LABELS")).unwrap_or_default();
        let truthy = |value: String| matches!(value.to_lowercase().as_str(), "1" | "true" | "yes");
        Ok(Self::Register(Box::new(Registering {
            token,
            origin: format!("http://{authority}"),
            registration: Registration {
                name: get("RUNNER_NAME")
                    .or_else(|| get("HOSTNAME"))
                    .unwrap_or_else(|| "runner".to_owned()),
                labels: labels
                    .split(',')
                    .map(|label| label.trim().to_owned())
                    .filter(|label| !label.is_empty())
                    .collect(),
                no_default_labels: get("NO_DEFAULT_LABELS").is_some(),
                ephemeral: get("EPHEMERAL").is_some_and(truthy),
                group: get("RUNNER_GROUP"),
                work_folder: get("RUNNER_WORKDIR"),
                url,
            },
        })))
    }
}

fn page(get: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let url = ["REPO_URL", "ORG_URL", "ENTERPRISE_URL", "RUNNER_URL"];
    if let Some(url) = url.into_iter().find_map(get) {
        return Some(url);
    }
    let host = get("GITHUB_URL").or_else(|| get("GITHUB_HOST"))?;
    let host = match host.contains("://") {
        true => host,
        false => format!("http://{host}"),
    };
    let host = host.trim_end_matches('/');
    if let Some(organization) = get("ORG_NAME") {
        return Some(format!("{host}/{organization}"));
    }
    get("ENTERPRISE_NAME").map(|enterprise| format!("{host}/enterprises/{enterprise}"))
}
