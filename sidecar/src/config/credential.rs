//! Credentials: how we authenticate to GitHub, and for which targets.

use std::path::PathBuf;

use edgerunner_proto::host_of;
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    Config, GitHub,
    document::Document,
    network::{Certificates, Network},
    proxy::Proxy,
    sections,
};
use crate::{jwt::SigningKey, secret::Secret};
use edgerunner_scheduler::{
    missed::WebhookId,
    model::Host,
    plan::{self, Scope, TargetPattern, credential_for_name},
};

/// Name of the credential in `[github]`.
const GITHUB_CREDENTIAL: &str = "github";

/// How we authenticate.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    /// A personal access token.
    Token(Secret),
    App {
        /// The App's id, or its client id.
        id: String,
        private_key: Secret,
    },
}

/// A credential, with defaults from `[github]` for everything it does not set.
#[derive(Clone, Debug)]
pub(crate) struct CredentialConfig {
    pub name: String,
    pub targets: Vec<TargetPattern>,
    /// `https://api.github.com`, or `https://<host>/api/v3` of an Enterprise Server.
    pub api_url: String,
    /// Where runners that register by a token find GitHub.
    pub web_url: String,
    pub identity: Identity,
    /// In addition to the system's.
    pub ca: Certificates,
    pub proxy: Option<Proxy>,
}

impl CredentialConfig {
    pub(crate) fn planner_credential(&self) -> plan::Credential {
        plan::Credential {
            name: self.name.clone(),
            host: self.host(),
            targets: self.targets.clone(),
        }
    }

    /// The server, as jobs name it.
    pub(crate) fn host(&self) -> Host {
        Host::new(&host_of(&self.web_url).unwrap_or_default())
    }

    fn from_github(github: &GitHub, document: &mut Document, network: &Network) -> Option<Self> {
        Some(Self {
            name: GITHUB_CREDENTIAL.into(),
            targets: vec![TargetPattern::Any],
            api_url: github.api_url.clone(),
            web_url: github.web_url(),
            identity: identity(
                secret(github.token.clone(), github.token_file.clone()),
                github.app_id.clone(),
                secret(github.app_private_key.clone(), github.app_private_key_file.clone()),
            )?,
            ca: network.ca.clone(),
            proxy: document.proxy_to(&github.api_url, network),
        })
    }

    /// Without `ca` and `proxy`, which depend on the other fields.
    fn new(credential: sections::Credential, targets: Vec<TargetPattern>, github: &GitHub) -> Self {
        let sections::Credential { name, app_id, api_url, web_url, .. } = credential;
        let token = secret(credential.token, credential.token_file);
        let private_key = secret(credential.app_private_key, credential.app_private_key_file);
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
            // A missing one is reported by `check_credential`.
            identity: identity(token, app_id, private_key)
                .unwrap_or_else(|| Identity::Token(SecretString::default().into())),
            ca: Vec::new(),
            proxy: None,
        }
    }
}

/// `file`: where the value was read from, if it was.
fn secret(value: Option<SecretString>, file: Option<PathBuf>) -> Option<Secret> {
    value.map(|value| Secret { value, file })
}

fn identity(
    token: Option<Secret>,
    app_id: Option<String>,
    private_key: Option<Secret>,
) -> Option<Identity> {
    match (token, app_id.zip(private_key)) {
        (Some(token), _) => Some(Identity::Token(token)),
        (None, Some((id, private_key))) => Some(Identity::App { id, private_key }),
        (None, None) => None,
    }
}

/// Why a text cannot be the private key of a GitHub App. The message does not repeat the text.
pub(crate) fn private_key_problem(pem: &SecretString) -> Option<&'static str> {
    if SigningKey::from_pem(pem).is_some() {
        return None;
    }
    let text = pem.expose_secret().trim();
    Some(if text.contains("\\n") {
        "its line breaks are written as \\n: write real line breaks, as in the file from GitHub, \
         or set app_private_key_file to that file"
    } else if text.starts_with("-----BEGIN") && text.lines().count() < 2 {
        "its line breaks are missing: write the private key as in the file from GitHub, or set \
         app_private_key_file to that file"
    } else if text.starts_with("-----BEGIN CERTIFICATE") || text.contains("PUBLIC KEY-----") {
        "this is not the private key: generate one in the App's settings at GitHub, and use that \
         file"
    } else {
        "write the private key as GitHub made it: a PEM that begins with \
         -----BEGIN RSA PRIVATE KEY-----"
    })
}

/// Why a text cannot be a token. The message does not repeat the text.
pub(crate) fn token_problem(token: &SecretString) -> Option<&'static str> {
    let token = token.expose_secret();
    let name = token.split_once('=').map(|(name, _)| name);
    let is_variable = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    if token.starts_with('\u{feff}') {
        Some("it begins with a byte order mark: save the file as UTF-8 without one")
    } else if token.starts_with(['"', '\'']) {
        Some("write the token alone, without quotes")
    } else if name.is_some_and(is_variable) {
        Some("write the token alone, without NAME= in front of it")
    } else if token.bytes().any(|byte| byte.is_ascii_whitespace()) {
        Some("write the token alone, without spaces and line breaks")
    } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Some("write the token as GitHub shows it: it has only printable ASCII characters")
    } else {
        None
    }
}

pub(super) fn web_url_of(api_url: &str) -> String {
    api_url.trim_end_matches("/api/v3").replacen("://api.", "://", 1)
}

impl Document {
    /// The credentials of `[[credentials]]` in their order, then `[github]` itself for all other
    /// targets.
    pub(super) fn read_credentials(
        &mut self,
        github: &GitHub,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<CredentialConfig> {
        let network = self.read_network(github, env);
        let mut credentials: Vec<CredentialConfig> = Vec::new();
        for pointer in self.tables("/credentials") {
            let credential: sections::Credential = self.read(&pointer);
            let others: Vec<&str> = credentials.iter().map(|other| other.name.as_str()).collect();
            let targets = self.check_credential(&pointer, &credential, github, &others);
            let ca = match &credential.ca_file {
                Some(file) => self.read_ca(&pointer, Some(file)),
                None => network.ca.clone(),
            };
            let credential = CredentialConfig::new(credential, targets, github);
            let proxy = self.proxy_to(&credential.api_url, &network);
            credentials.push(CredentialConfig { ca, proxy, ..credential });
        }
        credentials.extend(CredentialConfig::from_github(github, self, &network));
        credentials
    }

    fn check_credential(
        &mut self,
        pointer: &str,
        credential: &sections::Credential,
        github: &GitHub,
        others: &[&str],
    ) -> Vec<TargetPattern> {
        let location = format!("{pointer}/name");
        match credential.name.as_deref() {
            None => {
                self.error(&location, "each credential needs its own name: write name = \"…\"");
            }
            Some(GITHUB_CREDENTIAL) => {
                self.error(&location, "this name is reserved for [github] itself: choose another");
            }
            Some(name) if others.contains(&name) => {
                self.error(&location, "another credential has this name: choose a unique one");
            }
            Some(name) => self.check_name(&location, name),
        }
        self.check_token(&format!("{pointer}/token"), credential.token.as_ref());
        let app = (credential.app_id.as_deref(), credential.app_private_key.as_ref());
        self.check_app(pointer, credential.token.is_some(), app);
        self.check_app_is_whole(pointer);
        if !self.is_given(pointer, "app_id")
            && !self.is_given(pointer, "app_private_key")
            && !self.is_given(pointer, "token")
        {
            self.error(
                &format!("{pointer}/token"),
                "no token: set token or token_file, or app_id and app_private_key_file",
            );
        }
        self.check_urls(pointer, credential.api_url.as_deref(), credential.web_url.as_deref());
        if let Some(api_url) = &credential.api_url {
            self.check_encryption(pointer, api_url, github.allow_http);
        }
        let targets = format!("{pointer}/targets");
        if credential.targets.is_empty() {
            self.error(&targets, "this credential serves no target: write targets = [\"OWNER/*\"]");
        }
        let mut patterns = Vec::new();
        for (index, text) in credential.targets.iter().enumerate() {
            match TargetPattern::parse(text) {
                Some(pattern) => patterns.push(pattern),
                None => self.error(
                    &format!("{targets}/{index}"),
                    "write OWNER/NAME, OWNER/*, OWNER for an organization, or enterprise:SLUG",
                ),
            }
        }
        patterns
    }

    pub(super) fn check_app(
        &mut self,
        table: &str,
        token: bool,
        (id, key): (Option<&str>, Option<&SecretString>),
    ) {
        let location = |field: &str| format!("{table}/{field}");
        if let Some(id) = id {
            let location = location("app_id");
            if token {
                self.error(&location, "a token is set as well: remove one of them");
            } else if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.') {
                self.error(&location, "write the App's id or client id");
            }
        }
        if let Some(problem) = key.and_then(private_key_problem) {
            self.error(&location("app_private_key"), problem);
        }
    }

    /// A GitHub App has an id and a key.
    fn check_app_is_whole(&mut self, table: &str) {
        let given = ["app_id", "app_private_key"].map(|field| self.is_given(table, field));
        let (field, problem) = match given {
            [true, false] => {
                ("app_id", "a GitHub App also needs its private key: set app_private_key_file")
            }
            [false, true] => ("app_private_key", "a GitHub App also needs its id: set app_id"),
            _ => return,
        };
        let written = match self.get(&format!("{table}/{field}_file")) {
            Some(_) => format!("{table}/{field}_file"),
            None => format!("{table}/{field}"),
        };
        self.error(&written, problem);
    }

    /// Whether it is written, or its file is: one that cannot be read is reported elsewhere.
    fn is_given(&self, table: &str, field: &str) -> bool {
        [field.to_owned(), format!("{field}_file")]
            .iter()
            .any(|name| self.get(&format!("{table}/{name}")).is_some())
    }

    pub(super) fn check_token(&mut self, pointer: &str, token: Option<&SecretString>) {
        if let Some(problem) = token.and_then(token_problem) {
            self.error(pointer, problem);
        }
    }

    /// Every pool and every webhook to watch needs a credential.
    pub(super) fn check_tokens(&mut self, config: &Config) {
        self.check_app_is_whole("/github");
        if config.credentials.is_empty() {
            if self.is_given("/github", "app_id") || self.is_given("/github", "app_private_key") {
                return;
            }
            let problem = "no token: set GITHUB_TOKEN, GITHUB_TOKEN_FILE or github.token, or \
                           app_id and app_private_key_file of a GitHub App";
            return self.error("/github/token", problem);
        }
        let credentials = config.planner_credentials();
        let has_app =
            config.credentials.iter().any(|it| matches!(it.identity, Identity::App { .. }));
        for (index, hook) in config.missed_webhooks.hooks().enumerate() {
            let problem = match hook {
                WebhookId::App if !has_app => {
                    "only a GitHub App can list its deliveries, and no credential is one: remove it"
                }
                WebhookId::At { target, .. }
                    if credential_for_name(&credentials, &target).is_none() =>
                {
                    "no credential serves it: add its repository or organization to the targets \
                     of [[credentials]], or remove it"
                }
                _ => continue,
            };
            self.error(&format!("/missed_webhooks/hooks/{index}"), problem);
        }
        let patterns = || credentials.iter().flat_map(|credential| &credential.targets);
        for (index, pool) in config.pools.iter().enumerate() {
            let pool = pool.planner_pool();
            let covered = match pool.scope {
                // Jobs name their enterprise.
                Scope::Enterprise => patterns()
                    .any(|it| matches!(it, TargetPattern::Any | TargetPattern::Enterprise(_))),
                Scope::Repository | Scope::Organization => pool
                    .targets()
                    .iter()
                    .all(|target| credential_for_name(&credentials, target).is_some()),
            };
            if !covered {
                self.error(
                    &format!("/pools/{index}/repositories"),
                    "no credential covers everything that this pool serves: set github.token, \
                     extend the targets of [[credentials]], or narrow the pool's repositories",
                );
            }
        }
    }
}
