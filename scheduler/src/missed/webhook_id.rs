//! Names of webhooks, as the paths of GitHub's REST API have them.

use std::{fmt, str::FromStr};

use crate::model::Target;

/// A webhook whose deliveries GitHub's REST API lists.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WebhookId {
    /// A webhook of a repository or an organization.
    At { target: Target, id: u64 },
    /// The webhook of the GitHub App itself.
    App,
}

impl WebhookId {
    /// From the headers of a delivery. `None` if the REST API does not list this kind's
    /// deliveries, such as an enterprise's.
    pub fn of_delivery(kind: &str, id: u64, repository: &str, organization: &str) -> Option<Self> {
        match kind {
            "repository" => format!("repos/{repository}/hooks/{id}").parse().ok(),
            "organization" => format!("orgs/{organization}/hooks/{id}").parse().ok(),
            "integration" => Some(Self::App),
            _ => None,
        }
    }
}

impl fmt::Display for WebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { target: Target::Repository { owner, name }, id } => {
                write!(f, "repos/{owner}/{name}/hooks/{id}")
            }
            Self::At { target: Target::Organization(name) | Target::Enterprise(name), id } => {
                write!(f, "orgs/{name}/hooks/{id}")
            }
            Self::App => f.write_str("app/hook"),
        }
    }
}

/// A text that is not a [`WebhookId`].
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidWebhookId;

impl fmt::Display for InvalidWebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write repos/OWNER/NAME/hooks/ID, orgs/LOGIN/hooks/ID or app/hook")
    }
}

impl std::error::Error for InvalidWebhookId {}

impl FromStr for WebhookId {
    type Err = InvalidWebhookId;

    /// In lower case, as targets are, because GitHub ignores case.
    fn from_str(text: &str) -> Result<Self, InvalidWebhookId> {
        let text = text.to_ascii_lowercase();
        let parts: Vec<&str> = text.split('/').collect();
        let (target, id) = match parts[..] {
            ["app", "hook"] => return Ok(Self::App),
            ["repos", owner, name, "hooks", id] => (format!("repo:{owner}/{name}"), id),
            ["orgs", login, "hooks", id] => (format!("org:{login}"), id),
            _ => return Err(InvalidWebhookId),
        };
        let target = target.parse().map_err(|_| InvalidWebhookId)?;
        let id = id.parse().ok().filter(|id| *id > 0).ok_or(InvalidWebhookId)?;
        Ok(Self::At { target, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_id_parses_back_to_what_was_written() {
        for text in ["repos/acme/app/hooks/12", "orgs/acme/hooks/3", "app/hook"] {
            assert_eq!(text.parse::<WebhookId>().unwrap().to_string(), text);
        }
        for text in ["", "repos/acme/hooks/1", "orgs//hooks/1", "orgs/acme/hooks/0", "app/hook/1"] {
            assert_eq!(text.parse::<WebhookId>(), Err(InvalidWebhookId), "{text}");
        }
    }

    #[test]
    fn the_headers_of_a_delivery_name_its_webhook() {
        let of =
            |kind| WebhookId::of_delivery(kind, 7, "Acme/App", "Acme").map(|hook| hook.to_string());
        assert_eq!(of("repository").unwrap(), "repos/acme/app/hooks/7");
        assert_eq!(of("organization").unwrap(), "orgs/acme/hooks/7");
        assert_eq!(of("integration").unwrap(), "app/hook");
        assert_eq!(of("business"), None);
        assert_eq!(WebhookId::of_delivery("organization", 7, "octocat/app", ""), None);
    }
}
