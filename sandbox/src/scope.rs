//! Where a runner is registered, and which repositories that covers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `owner/name`. Comparison ignores case, as at GitHub.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryName {
    pub owner: String,
    pub name: String,
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a repository name; write owner/name, such as acme/app")]
pub struct InvalidRepositoryName(String);

impl TryFrom<String> for RepositoryName {
    type Error = InvalidRepositoryName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.split_once('/') {
            Some((owner, name)) if !owner.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { owner: owner.to_owned(), name: name.to_owned() })
            }
            _ => Err(InvalidRepositoryName(text)),
        }
    }
}

impl From<RepositoryName> for String {
    fn from(repository: RepositoryName) -> Self {
        repository.to_string()
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl PartialEq for RepositoryName {
    fn eq(&self, other: &Self) -> bool {
        self.owner.eq_ignore_ascii_case(&other.owner) && self.name.eq_ignore_ascii_case(&other.name)
    }
}

/// The repository, organization or enterprise that a runner belongs to. Comparison ignores case.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Repository(RepositoryName),
    Organization(String),
    Enterprise(String),
}

impl Scope {
    /// Whether the runners of this scope serve the repository. Every organization belongs to the
    /// enterprise.
    pub(crate) fn covers(&self, repository: &RepositoryName) -> bool {
        match self {
            Self::Repository(own) => own == repository,
            Self::Organization(organization) => {
                organization.eq_ignore_ascii_case(&repository.owner)
            }
            Self::Enterprise(_) => true,
        }
    }

    /// Parses the path of a web page such as `https://github.com/acme/app`, the URL that runners
    /// are configured with.
    pub(crate) fn from_page(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            ["enterprises", enterprise] => Some(Self::Enterprise((*enterprise).to_owned())),
            [organization] => Some(Self::Organization((*organization).to_owned())),
            [owner, name] => Some(Self::Repository(RepositoryName {
                owner: (*owner).to_owned(),
                name: (*name).to_owned(),
            })),
            _ => None,
        }
    }

    /// The path of the scope's web page; the inverse of [`Scope::from_page`].
    pub(crate) fn page(&self) -> String {
        match self {
            Self::Repository(repository) => repository.to_string(),
            Self::Organization(organization) => organization.clone(),
            Self::Enterprise(enterprise) => format!("enterprises/{enterprise}"),
        }
    }

    pub(crate) fn api_path(&self) -> String {
        match self {
            Self::Repository(repository) => format!("repos/{repository}"),
            Self::Organization(organization) => format!("orgs/{organization}"),
            Self::Enterprise(enterprise) => format!("enterprises/{enterprise}"),
        }
    }
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Repository(a), Self::Repository(b)) => a == b,
            (Self::Organization(a), Self::Organization(b))
            | (Self::Enterprise(a), Self::Enterprise(b)) => a.eq_ignore_ascii_case(b),
            _ => false,
        }
    }
}
