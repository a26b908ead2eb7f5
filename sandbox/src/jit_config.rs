//! A just-in-time runner configuration in GitHub's format: a base64-encoded JSON object that maps
//! the names of the runner's files to their base64-encoded content.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::keys::RsaParams;

#[derive(Debug)]
pub(crate) struct JitConfig {
    pub runner: RunnerFile,
    pub credentials: CredentialsFile,
    pub rsa: RsaParams,
}

/// GitHub writes numbers and most truth values as text.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RunnerFile {
    pub agent_id: String,
    pub agent_name: String,
    pub pool_id: String,
    pub pool_name: String,
    pub disable_update: String,
    pub ephemeral: String,
    pub server_url: String,
    #[serde(rename = "ServerUrlV2")]
    pub server_url_v2: String,
    #[serde(rename = "UseV2Flow")]
    pub use_v2_flow: bool,
    pub git_hub_url: String,
    pub work_folder: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CredentialsFile {
    pub scheme: String,
    pub data: CredentialsData,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CredentialsData {
    pub client_id: String,
    pub authorization_url: String,
    pub require_fips_cryptography: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Files {
    #[serde(rename = ".runner")]
    runner: String,
    #[serde(rename = ".credentials")]
    credentials: String,
    #[serde(rename = ".credentials_rsaparams")]
    rsa: String,
}

#[derive(Debug, thiserror::Error)]
pub enum JitConfigError {
    #[error("{file} is not valid base64")]
    Base64 { file: &'static str, source: base64::DecodeError },
    #[error("{file} does not have the expected fields")]
    Json { file: &'static str, source: serde_json::Error },
}

/// A truth value in GitHub's spelling.
pub(crate) fn truth(value: bool) -> String {
    match value {
        true => "True".to_owned(),
        false => "False".to_owned(),
    }
}

impl RunnerFile {
    pub(crate) fn is_ephemeral(&self) -> bool {
        self.ephemeral.eq_ignore_ascii_case("true")
    }
}

impl JitConfig {
    pub(crate) fn encode(&self) -> Result<String, serde_json::Error> {
        let files = Files {
            runner: BASE64.encode(serde_json::to_vec(&self.runner)?),
            credentials: BASE64.encode(serde_json::to_vec(&self.credentials)?),
            rsa: BASE64.encode(serde_json::to_vec(&self.rsa)?),
        };
        Ok(BASE64.encode(serde_json::to_vec(&files)?))
    }

    pub(crate) fn decode(text: &str) -> Result<Self, JitConfigError> {
        let files: Files = decode_file("the configuration", text.trim())?;
        Ok(Self {
            runner: decode_file(".runner", &files.runner)?,
            credentials: decode_file(".credentials", &files.credentials)?,
            rsa: decode_file(".credentials_rsaparams", &files.rsa)?,
        })
    }
}

fn decode_file<T: for<'de> Deserialize<'de>>(
    file: &'static str,
    text: &str,
) -> Result<T, JitConfigError> {
    let bytes = BASE64.decode(text).map_err(|source| JitConfigError::Base64 { file, source })?;
    serde_json::from_slice(&bytes).map_err(|source| JitConfigError::Json { file, source })
}
