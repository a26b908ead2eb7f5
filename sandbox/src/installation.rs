//! Installations of the GitHub App.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whether an owner has the App installed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallationStatus {
    #[default]
    Active,
    /// 403 to requests for tokens, and to those with a token that was issued before. No webhooks.
    Suspended,
    /// 404 to requests for tokens, 401 to tokens that were issued before. No webhooks. When the
    /// App is installed again, the installation has another id.
    Uninstalled,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Installation {
    pub status: InstallationStatus,
    pub suspended_at: Option<Timestamp>,
    /// How often the App was uninstalled.
    pub removals: u32,
}
