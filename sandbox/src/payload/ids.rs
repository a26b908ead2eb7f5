//! Ids and constants that payloads refer to.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha1::{Digest as _, Sha1};

use crate::scope::RepositoryName;

/// The user who triggers every workflow run.
pub(crate) const ACTOR: &str = "octocat";
/// The id of the only GitHub App that the sandbox knows.
pub const APP_ID: u64 = 424_242;
/// The creation time of everything whose creation time the sandbox does not track.
pub(crate) const CREATED_AT: &str = "2024-01-01T00:00:00Z";

/// Derives an id from a name, so that it stays the same when the sandbox restarts: FNV-1a,
/// reduced to the range of GitHub's ids.
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

/// Each repository has one commit.
pub(crate) fn head_sha(repository: &RepositoryName) -> String {
    hex::encode(Sha1::digest(repository.to_string().to_ascii_lowercase()))
}
