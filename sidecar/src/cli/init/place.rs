//! Where runners are registered, and the repositories whose jobs they run.

use anyhow::Result;
use edgerunner_scheduler::{model::Target, plan::Scope};

use super::Arguments;
use crate::cli::ask::Ask;

/// The longest that GitHub permits: of a login, and of the name of a repository.
const LOGIN_CHARS_MAX: usize = 39;
const NAME_CHARS_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Repositories(Vec<String>),
    /// With all its repositories, if none are named.
    Organization {
        login: String,
        repositories: Vec<String>,
    },
    Enterprise {
        slug: String,
        repositories: Vec<String>,
    },
}

/// Checks `OWNER/NAME`.
pub(super) fn repository(text: &str) -> Result<String, String> {
    let problem = || "write OWNER/NAME, such as acme/app".to_owned();
    let (owner, name) = text.trim().split_once('/').ok_or_else(problem)?;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.chars().all(is_allowed)
        && !matches!(name, "." | "..");
    if !is_name {
        return Err(problem());
    }
    Ok(format!("{}/{name}", login(owner).map_err(|_| problem())?))
}

/// Checks the name of an account or an enterprise.
pub(super) fn login(text: &str) -> Result<String, String> {
    let text = text.trim();
    // Enterprise Managed Users have an underscore.
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    match (1..=LOGIN_CHARS_MAX).contains(&text.len()) && text.chars().all(is_allowed) {
        true => Ok(text.to_owned()),
        false => {
            Err("write its name as in the address of its page at GitHub, such as acme".to_owned())
        }
    }
}

/// Checks a list with commas.
fn repositories(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(repository).collect()
}

impl Place {
    /// `None` if the flags do not name it and there is nobody to ask.
    pub(super) fn find(arguments: &Arguments, ask: Option<&dyn Ask>) -> Result<Option<Self>> {
        let Arguments { repositories, organization, enterprise, .. } = arguments;
        let repositories = repositories.clone();
        Ok(match (organization, enterprise, ask) {
            (Some(login), _, _) => Some(Self::Organization { login: login.clone(), repositories }),
            (None, Some(slug), _) => Some(Self::Enterprise { slug: slug.clone(), repositories }),
            (None, None, _) if !repositories.is_empty() => Some(Self::Repositories(repositories)),
            (None, None, Some(ask)) => Some(Self::ask(ask)?),
            (None, None, None) => None,
        })
    }

    fn ask(ask: &dyn Ask) -> Result<Self> {
        let kinds = ["A repository", "An organization", "An enterprise"];
        let none = Vec::new();
        let is_login = |text: &str| login(text).map(drop);
        Ok(match ask.choose("Whose jobs will run here?", &kinds)? {
            0 => {
                let check = |text: &str| repositories(text).map(drop);
                let text = ask.text("Repository (OWNER/NAME; several with commas)", &check)?;
                Self::Repositories(repositories(&text).unwrap_or_default())
            }
            1 => Self::Organization {
                login: ask.text("Organization", &is_login)?,
                repositories: none,
            },
            _ => Self::Enterprise {
                slug: ask.text("Enterprise (the last part of its page's address)", &is_login)?,
                repositories: none,
            },
        })
    }

    /// Asks for repositories if none are named.
    pub(super) fn name_repositories(&mut self, ask: &dyn Ask) -> Result<()> {
        if self.repositories().is_empty() {
            let check = |text: &str| repositories(text).map(drop);
            let question = "Repositories to poll (OWNER/NAME; several with commas)";
            let named = repositories(&ask.text(question, &check)?).unwrap_or_default();
            match self {
                Self::Repositories(repositories)
                | Self::Organization { repositories, .. }
                | Self::Enterprise { repositories, .. } => *repositories = named,
            }
        }
        Ok(())
    }

    pub(super) fn repositories(&self) -> &[String] {
        match self {
            Self::Repositories(repositories)
            | Self::Organization { repositories, .. }
            | Self::Enterprise { repositories, .. } => repositories,
        }
    }

    /// The first named repository of another owner than the organization.
    pub(super) fn foreign_repository(&self) -> Option<&str> {
        let Self::Organization { login, repositories } = self else { return None };
        let is_own = |repository: &&String| {
            repository.split('/').next().is_some_and(|owner| owner.eq_ignore_ascii_case(login))
        };
        repositories.iter().find(|it| !is_own(it)).map(String::as_str)
    }

    pub(super) fn scope(&self) -> Scope {
        match self {
            Self::Repositories(_) => Scope::Repository,
            Self::Organization { .. } => Scope::Organization,
            Self::Enterprise { .. } => Scope::Enterprise,
        }
    }

    /// The value of a pool's `repositories`; empty if they are not restricted.
    pub(super) fn patterns(&self) -> Vec<String> {
        match self {
            Self::Organization { login, repositories } if repositories.is_empty() => {
                vec![format!("{login}/*")]
            }
            _ => self.repositories().to_vec(),
        }
    }

    /// Where runners are registered.
    pub(super) fn targets(&self) -> Vec<Target> {
        match self {
            Self::Repositories(repositories) => repositories
                .iter()
                .filter_map(|repository| format!("repo:{repository}").parse().ok())
                .collect(),
            Self::Organization { login, .. } => vec![Target::Organization(login.clone())],
            Self::Enterprise { slug, .. } => vec![Target::Enterprise(slug.clone())],
        }
    }

    /// The account that the App is for; `None` for an enterprise.
    pub(super) fn owner(&self) -> Option<&str> {
        match self {
            Self::Repositories(repositories) => repositories.first()?.split('/').next(),
            Self::Organization { login, .. } => Some(login),
            Self::Enterprise { .. } => None,
        }
    }

    /// What `edgerunner webhook create` takes, one for each webhook. Empty for an enterprise.
    pub(super) fn webhook_targets(&self) -> Vec<&str> {
        match self {
            Self::Repositories(repositories) => repositories.iter().map(String::as_str).collect(),
            Self::Organization { login, .. } => vec![login],
            Self::Enterprise { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_github_cannot_have_are_refused() {
        for good in ["acme/app", "octo-cat/my.repo_1", " acme/app "] {
            assert!(repository(good).is_ok(), "{good}");
        }
        for wrong in [
            "acme",
            "acme/",
            "/app",
            "acme/app/x",
            "acme/*",
            "https://github.com/acme/app",
            "a b/c",
        ] {
            assert!(repository(wrong).unwrap_err().contains("OWNER/NAME"), "{wrong}");
        }
        assert!(login("acme").is_ok() && login("").is_err() && login("acme/app").is_err());
    }

    #[test]
    fn an_organization_serves_all_its_repositories_unless_some_are_named() {
        let place = |repositories: &[&str]| Place::Organization {
            login: "acme".into(),
            repositories: repositories.iter().map(|it| (*it).to_owned()).collect(),
        };
        assert_eq!(place(&[]).patterns(), ["acme/*"]);
        assert_eq!(place(&["acme/app"]).patterns(), ["acme/app"]);
        assert_eq!(place(&["Acme/app", "other/app"]).foreign_repository(), Some("other/app"));
        assert_eq!(place(&["acme/app"]).targets()[0].to_string(), "org:acme");
    }
}
