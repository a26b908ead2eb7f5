//! The runner's configuration, from the environment variables of the real images: a just-in-time
//! configuration, or a registration token with the settings to register with.

use crate::jit_config::{JitConfig, JitConfigError};
use crate::protocol::RegistrationRequest;

pub enum Config {
    Jit(Box<Jit>),
    Register(Box<TokenRegistration>),
}

/// Opaque, because it contains secrets.
pub struct Jit(pub(crate) JitConfig);

pub struct TokenRegistration {
    pub(crate) token: String,
    /// `http://host:port` of the URL to register with.
    pub(crate) origin: String,
    pub(crate) request: RegistrationRequest,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("invalid just-in-time configuration")]
    Jit(#[from] JitConfigError),
    #[error(
        "no configuration: set ACTIONS_RUNNER_INPUT_JITCONFIG, or RUNNER_TOKEN with REPO_URL, ORG_URL or ORG_NAME"
    )]
    Missing,
    #[error("`{0}` is not the http:// URL of a repository, organization or enterprise")]
    Url(String),
}

pub(super) fn decode(encoded: &str) -> Result<Jit, ConfigError> {
    Ok(Jit(JitConfig::decode(encoded)?))
}

impl Config {
    /// Treats empty variables as absent, as the real images do.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        if let Some(encoded) = get("ACTIONS_RUNNER_INPUT_JITCONFIG") {
            return Ok(Self::Jit(Box::new(decode(&encoded)?)));
        }
        let token = get("RUNNER_TOKEN").or_else(|| get("ACTIONS_RUNNER_INPUT_TOKEN"));
        let (Some(token), Some(url)) = (token, registration_url(&get)) else {
            return Err(ConfigError::Missing);
        };
        let uri: http::Uri = url.parse().map_err(|_| ConfigError::Url(url.clone()))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(ConfigError::Url(url));
        };
        let labels = get("LABELS").or_else(|| get("RUNNER_LABELS")).unwrap_or_default();
        let truthy = |value: String| matches!(value.to_lowercase().as_str(), "1" | "true" | "yes");
        Ok(Self::Register(Box::new(TokenRegistration {
            token,
            origin: format!("http://{authority}"),
            request: RegistrationRequest {
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

/// The URL to register with.
fn registration_url(get: &impl Fn(&str) -> Option<String>) -> Option<String> {
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
