//! A just-in-time runner configuration in GitHub's format: a base64-encoded JSON object that maps
//! the names of the runner's files to their base64-encoded content.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

#[derive(Debug)]
pub(crate) struct JitConfig {
    pub runner: RunnerFile,
    pub credentials: CredentialsFile,
    pub rsa: RsaParamsFile,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunnerFile {
    pub agent_id: u64,
    pub agent_name: String,
    pub pool_id: u64,
    pub pool_name: String,
    pub disable_update: bool,
    pub ephemeral: bool,
    pub server_url: String,
    pub git_hub_url: String,
    pub work_folder: String,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct CredentialsFile {
    pub scheme: String,
    pub data: CredentialsData,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CredentialsData {
    pub client_id: String,
    pub authorization_url: String,
    pub require_fips_cryptography: String,
}

/// The real file holds an RSA key that signs token requests. Here the private exponent is a shared
/// secret that the runner sends.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RsaParamsFile {
    pub d: String,
    pub dp: String,
    pub dq: String,
    pub exponent: String,
    pub inverse_q: String,
    pub modulus: String,
    pub p: String,
    pub q: String,
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

impl RsaParamsFile {
    pub(crate) fn generate() -> Self {
        let number =
            |bytes: usize| BASE64.encode((0..bytes).map(|_| fastrand::u8(..)).collect::<Vec<u8>>());
        Self {
            d: number(256),
            dp: number(128),
            dq: number(128),
            exponent: "AQAB".to_owned(),
            inverse_q: number(128),
            modulus: number(256),
            p: number(128),
            q: number(128),
        }
    }
}

fn decode_file<T: for<'de> Deserialize<'de>>(
    file: &'static str,
    text: &str,
) -> Result<T, JitConfigError> {
    let bytes = BASE64.decode(text).map_err(|source| JitConfigError::Base64 { file, source })?;
    serde_json::from_slice(&bytes).map_err(|source| JitConfigError::Json { file, source })
}
