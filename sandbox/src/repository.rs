//! A repository's id and names, and what GitHub allows there.

use serde::{Deserialize, Serialize};

use crate::payload::id_of;
use crate::scope::RepositoryName;

/// What GitHub answers below a repository's path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    #[default]
    Open,
    /// 403 to everything but reads.
    Archived,
    /// 404, as to a credential that may not see the repository. Its jobs are still announced.
    Hidden,
    /// 451, as after a violation of GitHub's terms.
    Blocked,
    /// 404. Its runners and jobs are gone as well, without an event.
    Deleted,
}

/// Who can see a repository.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    #[default]
    Private,
    Internal,
    Public,
    /// Private, and webhooks say nothing about it.
    Unreported,
}

impl Visibility {
    /// As GitHub names it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Private | Self::Unreported => "private",
            Self::Internal => "internal",
            Self::Public => "public",
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Repository {
    /// Stays the same when the repository is renamed or transferred.
    pub id: u64,
    pub name: RepositoryName,
    /// Requests with one of these names are redirected, unless another repository has it now.
    pub former_names: Vec<RepositoryName>,
    pub access: Access,
    pub visibility: Visibility,
}

impl Repository {
    pub(crate) fn new(name: RepositoryName) -> Self {
        let id = id_of(&name.to_string());
        Self {
            id,
            name,
            former_names: Vec::new(),
            access: Access::Open,
            visibility: Visibility::Private,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the name {0} is taken")]
pub struct NameTaken(pub(crate) RepositoryName);
