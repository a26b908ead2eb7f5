use secrecy::SecretString;

use super::{Config, GitHub, draft::Draft, sections};
use crate::plan::{self, Scope, TargetPattern, credential_for};

/// Name of the credential that `[github]` itself is.
const OF_GITHUB: &str = "github";

/// A credential with everything it does not say itself taken from `[github]`.
#[derive(Clone, Debug)]
pub struct CredentialConfig {
    pub name: String,
    pub targets: Vec<TargetPattern>,
    pub api_url: String,
    /// Where runners of the contract `registration-token` find GitHub.
    pub web_url: String,
    pub token: SecretString,
}

impl CredentialConfig {
    pub(crate) fn planned(&self) -> plan::Credential {
        plan::Credential { name: self.name.clone(), targets: self.targets.clone() }
    }

    fn of_github(github: &GitHub) -> Option<Self> {
        Some(Self {
            name: OF_GITHUB.into(),
            targets: vec![TargetPattern::Any],
            api_url: github.api_url.clone(),
            web_url: github.web_url(),
            token: github.token.clone()?,
        })
    }

    fn new(credential: sections::Credential, targets: Vec<TargetPattern>, github: &GitHub) -> Self {
        let sections::Credential { name, token, api_url, web_url, .. } = credential;
        let web_url = match (&web_url, &api_url) {
            (Some(web_url), _) => web_url.clone(),
            (None, Some(api_url)) => web_url_of(api_url),
            (None, None) => github.web_url(),
        };
        Self {
            name: name.unwrap_or_default(),
            targets,
            api_url: api_url.unwrap_or_else(|| github.api_url.clone()),
            web_url,
            token: token.unwrap_or_default(),
        }
    }
}

pub(super) fn web_url_of(api_url: &str) -> String {
    api_url.trim_end_matches("/api/v3").replacen("://api.", "://", 1)
}

impl Draft {
    /// Those of `[[credentials]]` in their order, and `[github]`'s own for all the rest.
    pub(super) fn read_credentials(&mut self, github: &GitHub) -> Vec<CredentialConfig> {
        let mut credentials: Vec<CredentialConfig> = Vec::new();
        for pointer in self.tables("/credentials") {
            let credential: sections::Credential = self.read(&pointer);
            let others: Vec<&str> = credentials.iter().map(|other| other.name.as_str()).collect();
            let targets = self.check_credential(&pointer, &credential, &others);
            credentials.push(CredentialConfig::new(credential, targets, github));
        }
        credentials.extend(CredentialConfig::of_github(github));
        credentials
    }

    fn check_credential(
        &mut self,
        pointer: &str,
        credential: &sections::Credential,
        others: &[&str],
    ) -> Vec<TargetPattern> {
        let place = format!("{pointer}/name");
        match credential.name.as_deref() {
            None => {
                self.mistake(&place, "each credential needs a name of its own: write name = \"…\"");
            }
            Some(OF_GITHUB) => {
                self.mistake(&place, "that is what the token of [github] is called: write another");
            }
            Some(name) if others.contains(&name) => {
                self.mistake(&place, "another credential has this name: write one of its own");
            }
            Some(name) => self.check_name(&place, name),
        }
        self.check_secret(&format!("{pointer}/token"), credential.token.as_ref());
        if credential.token.is_none() && self.get(&format!("{pointer}/token_file")).is_none() {
            self.mistake(
                &format!("{pointer}/token"),
                "there is no token: write token or token_file",
            );
        }
        self.check_urls(pointer, credential.api_url.as_deref(), credential.web_url.as_deref());
        let targets = format!("{pointer}/targets");
        if credential.targets.is_empty() {
            self.mistake(&targets, "nothing is served with it: write targets = [\"OWNER/*\"]");
        }
        let mut patterns = Vec::new();
        for (index, text) in credential.targets.iter().enumerate() {
            match TargetPattern::parse(text) {
                Some(pattern) => patterns.push(pattern),
                None => self.mistake(
                    &format!("{targets}/{index}"),
                    "write OWNER/NAME, OWNER/*, OWNER for an organization, or enterprise:SLUG",
                ),
            }
        }
        patterns
    }

    /// A launch must not wait for ever for a token that is not there.
    pub(super) fn check_tokens(&mut self, config: &Config) {
        if config.credentials.is_empty() {
            let problem = "there is no token: set GITHUB_TOKEN, GITHUB_TOKEN_FILE or github.token";
            return self.mistake("/github/token", problem);
        }
        let credentials = config.planned_credentials();
        let patterns = || credentials.iter().flat_map(|credential| &credential.targets);
        for (index, pool) in config.pools.iter().enumerate() {
            let pool = pool.planner_pool();
            let covered = match pool.scope {
                // Which enterprise is known when a job comes.
                Scope::Enterprise => patterns()
                    .any(|it| matches!(it, TargetPattern::Any | TargetPattern::Enterprise(_))),
                Scope::Repository | Scope::Organization => pool
                    .targets()
                    .iter()
                    .all(|target| credential_for(&credentials, target).is_some()),
            };
            if !covered {
                self.mistake(
                    &format!("/pools/{index}/repositories"),
                    "no credential covers all that this pool serves: set github.token, name it \
                     among the targets of [[credentials]], or let the pool serve less",
                );
            }
        }
    }
}
