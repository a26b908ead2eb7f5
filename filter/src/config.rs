//! The plugin configuration: strict JSON, read when Envoy loads it.
//!
//! Secrets come from the environment or from the sidecar. Error messages never repeat a value: a
//! secret may have been written by mistake where the name of its variable belongs.

use std::{cell::RefCell, fmt, time::Duration};

use edgerunner_pattern::RepositoryPattern;
use edgerunner_proto::v1::Action;
use serde::Deserialize;

use crate::{
    grpc_service, json_error,
    signature::{Secret, Verifier},
};

const DEFAULT_PATH: &str = "/webhooks/github";
/// The second holds the previous secret during a rotation, and may be unset.
const DEFAULT_SECRETS_ENV: [&str; 2] = ["GITHUB_WEBHOOK_SECRET", "GITHUB_WEBHOOK_SECRET_PREVIOUS"];
/// GitHub's limit.
const MAX_BODY_BYTES: u64 = 25 * 1024 * 1024;
const DEFAULT_CLUSTER: &str = "edgerunner_sidecar";
const DEFAULT_TIMEOUT_MS: u64 = 5_000;
/// GitHub gives up after 10 s, which includes the time until the body has arrived.
const MAX_TIMEOUT_MS: u64 = 8_000;
const MAX_NAME_BYTES: usize = 64;
/// Most secrets that a webhook may have; a rotation needs two.
pub const MAX_SECRETS: usize = 4;
const EVENT: &str = "workflow_job";
const FIELDS: [&str; 12] = [
    "path",
    "hooks",
    "name",
    "secrets_env",
    "secrets_from",
    "events",
    "allow_repositories",
    "max_body_bytes",
    "dry_run",
    "sidecar",
    "cluster",
    "timeout_ms",
];
/// Label of the webhook without a name, in metrics and logs.
const DEFAULT_LABEL: &str = "default";

/// The default has no webhooks, so it rejects everything.
#[derive(Debug, Default)]
pub struct Config {
    /// Path of the default webhook; the others are one segment below it.
    pub path: String,
    pub webhooks: Vec<Webhook>,
    pub max_body_bytes: u64,
    /// Deliveries are checked and logged, then passed on. Nothing is rejected, and nothing
    /// is sent to the sidecar.
    pub dry_run: bool,
    pub sidecar: Sidecar,
    /// Envoy's version, which pings are answered with; empty if it is unknown.
    pub envoy_version: String,
}

/// One webhook, with its own path segment and secrets.
#[derive(Debug)]
pub struct Webhook {
    /// Last segment of the path; empty for the default webhook.
    pub name: String,
    /// The current one first. Empty until the sidecar has sent them.
    secrets: RefCell<Vec<Secret>>,
    /// Whether the secrets come from the sidecar.
    pub secrets_from_sidecar: bool,
    /// Actions of `workflow_job` that are forwarded to the sidecar.
    actions: Vec<Action>,
    /// `None` allows every repository.
    allow_repositories: Option<Vec<RepositoryPattern>>,
}

/// Where events are sent.
#[derive(Debug, Default)]
pub struct Sidecar {
    /// Envoy's cluster, as an encoded `GrpcService`.
    pub grpc_service: String,
    /// For the sidecar's reply.
    pub timeout: Duration,
}

impl Webhook {
    /// The name in metrics and logs.
    pub fn label(&self) -> &str {
        if self.name.is_empty() { DEFAULT_LABEL } else { &self.name }
    }

    /// Number of secrets.
    pub fn secrets(&self) -> usize {
        self.secrets.borrow().len()
    }

    /// `None` if there is no secret yet.
    pub(crate) fn verifier(&self) -> Option<Verifier> {
        let secrets = self.secrets.borrow();
        (!secrets.is_empty()).then(|| Verifier::new(&secrets))
    }

    /// Takes new secrets from the sidecar. Unusable ones are skipped; if none is usable, the
    /// current secrets stay.
    pub fn replace_secrets(&self, secrets: &[impl AsRef<[u8]>]) {
        let usable = secrets.iter().filter_map(|secret| Secret::new(secret.as_ref()));
        let usable: Vec<Secret> = usable.take(MAX_SECRETS).collect();
        if !usable.is_empty() {
            *self.secrets.borrow_mut() = usable;
        }
    }

    /// Whether the action is forwarded to the sidecar.
    pub fn forwards(&self, action: Action) -> bool {
        self.actions.contains(&action)
    }

    /// `repository` is `owner/name`.
    pub fn allows(&self, repository: &str) -> bool {
        self.allow_repositories
            .as_ref()
            .is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(repository)))
    }
}

/// All errors of a configuration, one message each.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "an object such as {}")]
struct RawConfig {
    path: String,
    hooks: Vec<RawWebhook>,
    max_body_bytes: u64,
    dry_run: bool,
    sidecar: RawSidecar,
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object such as {\"name\": \"acme\", \"secrets_env\": [\"ACME_WEBHOOK_SECRET\"]}"
)]
struct RawWebhook {
    #[serde(default)]
    name: String,
    secrets_env: Option<Vec<String>>,
    secrets_from: Option<SecretsFrom>,
    events: Option<Vec<String>>,
    allow_repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", expecting = "\"sidecar\", or secrets_env instead")]
enum SecretsFrom {
    Sidecar,
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    default,
    expecting = "an object such as {\"cluster\": \"edgerunner_sidecar\", \"timeout_ms\": 5000}"
)]
struct RawSidecar {
    cluster: String,
    timeout_ms: u64,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            path: DEFAULT_PATH.to_owned(),
            hooks: vec![RawWebhook {
                name: String::new(),
                secrets_env: None,
                secrets_from: None,
                events: None,
                allow_repositories: None,
            }],
            max_body_bytes: MAX_BODY_BYTES,
            dry_run: false,
            sidecar: RawSidecar::default(),
        }
    }
}

impl Default for RawSidecar {
    fn default() -> Self {
        Self { cluster: DEFAULT_CLUSTER.to_owned(), timeout_ms: DEFAULT_TIMEOUT_MS }
    }
}

impl Config {
    /// `env` reads an environment variable. An empty configuration is the same as `{}`.
    pub fn parse(json: &[u8], env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let json = str::from_utf8(json).map_err(|error| {
            ConfigError(vec![format!("invalid UTF-8 at byte {}", error.valid_up_to())])
        })?;
        let json = if json.trim_ascii().is_empty() { "{}" } else { json };
        let raw: RawConfig = serde_json::from_str(json)
            .map_err(|error| ConfigError(vec![describe(json, &error)]))?;
        Checker { env, errors: Vec::new() }.check(raw)
    }

    /// Position of the webhook with this name.
    pub fn webhook(&self, name: &str) -> Option<usize> {
        self.webhooks.iter().position(|webhook| webhook.name == name)
    }
}

/// serde's message without the invalid value that it quotes.
fn describe(json: &str, error: &serde_json::Error) -> String {
    let text = json_error::message(error);
    let expected = text
        .rmatch_indices(',')
        .find_map(|(comma, _)| text.get(comma..)?.strip_prefix(", expected "));
    let text = match expected {
        Some(expected) if text.starts_with("invalid ") => format!("expected {expected}"),
        _ => text,
    };
    let (line, column) = (error.line(), error.column());
    match last_field(json, error) {
        Some(field) => format!("{field}: {text} (line {line} column {column})"),
        None => format!("{text} (line {line} column {column})"),
    }
}

/// The last field that begins before the error. Only known names are returned, since any
/// other text could be a secret.
fn last_field(json: &str, error: &serde_json::Error) -> Option<&'static str> {
    let lines_before = error.line().saturating_sub(1);
    let offset = json
        .split_inclusive('\n')
        .take(lines_before)
        .map(str::len)
        .sum::<usize>()
        .saturating_add(error.column());
    let before = json.get(..offset).unwrap_or(json);
    before.rsplit('"').find_map(|text| FIELDS.into_iter().find(|field| *field == text))
}

struct Checker<E> {
    env: E,
    errors: Vec<String>,
}

impl<E: Fn(&str) -> Option<String>> Checker<E> {
    fn check(mut self, mut raw: RawConfig) -> Result<Config, ConfigError> {
        self.check_path(&raw.path);
        if raw.max_body_bytes == 0 || raw.max_body_bytes > MAX_BODY_BYTES {
            self.error(format!("max_body_bytes: must be 1 to {MAX_BODY_BYTES}"));
        }
        let sidecar = self.check_sidecar(&raw.sidecar);
        if raw.hooks.is_empty() {
            self.error("hooks: the list is empty; leave `hooks` out for the default webhook");
        }
        let mut webhooks: Vec<Webhook> = Vec::with_capacity(raw.hooks.len());
        for (index, webhook) in std::mem::take(&mut raw.hooks).into_iter().enumerate() {
            let field = format!("hooks[{index}]");
            if webhooks.iter().any(|earlier| earlier.name == webhook.name) {
                self.error(format!("{field}.name: another webhook has the same name"));
            }
            webhooks.push(self.check_webhook(&field, webhook));
        }
        if self.errors.is_empty() {
            let RawConfig { path, max_body_bytes, dry_run, .. } = raw;
            let envoy_version = String::new();
            Ok(Config { path, webhooks, max_body_bytes, dry_run, sidecar, envoy_version })
        } else {
            Err(ConfigError(self.errors))
        }
    }

    fn error(&mut self, text: impl Into<String>) {
        self.errors.push(text.into());
    }

    fn check_path(&mut self, path: &str) {
        let segments_fit = path.strip_prefix('/').is_some_and(|rest| {
            rest.split('/').all(|segment| {
                !segment.is_empty()
                    && segment
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
            })
        });
        if !segments_fit {
            self.error(format!(
                "path: must be a plain path without a trailing slash, such as {DEFAULT_PATH}"
            ));
        }
    }

    fn check_sidecar(&mut self, raw: &RawSidecar) -> Sidecar {
        if !(1..=MAX_TIMEOUT_MS).contains(&raw.timeout_ms) {
            self.error(format!(
                "sidecar.timeout_ms: must be 1 to {MAX_TIMEOUT_MS}; GitHub gives up after 10 seconds"
            ));
        }
        let fits = (1..=grpc_service::MAX_CLUSTER_NAME).contains(&raw.cluster.len())
            && raw.cluster.bytes().all(|byte| byte.is_ascii_graphic());
        let grpc_service = fits.then(|| grpc_service::serialized(&raw.cluster)).flatten();
        if grpc_service.is_none() {
            self.error(format!(
                "sidecar.cluster: must be the name of a cluster in Envoy's configuration, such as {DEFAULT_CLUSTER}"
            ));
        }
        Sidecar {
            grpc_service: grpc_service.unwrap_or_default(),
            timeout: Duration::from_millis(raw.timeout_ms),
        }
    }

    fn check_webhook(&mut self, field: &str, raw: RawWebhook) -> Webhook {
        let plain =
            raw.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !plain || raw.name.len() > MAX_NAME_BYTES {
            self.error(format!(
                "{field}.name: must be up to {MAX_NAME_BYTES} letters, digits, - or _; it is the last segment of the webhook's path"
            ));
        }
        if raw.name == DEFAULT_LABEL {
            self.error(format!(
                "{field}.name: `{DEFAULT_LABEL}` is reserved for the webhook without a name; write \"\" for that one or choose another name"
            ));
        }
        let secrets_from_sidecar = raw.secrets_from.is_some();
        let secrets_env = format!("{field}.secrets_env");
        let secrets = match raw.secrets_env {
            Some(_) if secrets_from_sidecar => {
                self.error(format!(
                    "{field}: set secrets_env or \"secrets_from\": \"sidecar\", not both"
                ));
                Vec::new()
            }
            Some(names) => self.check_secrets(&secrets_env, &names),
            None if secrets_from_sidecar => Vec::new(),
            None if raw.name.is_empty() => {
                self.check_secrets(&secrets_env, &DEFAULT_SECRETS_ENV.map(str::to_owned))
            }
            None => self.check_secrets(&secrets_env, &[]),
        };
        Webhook {
            name: raw.name,
            secrets: RefCell::new(secrets),
            secrets_from_sidecar,
            actions: self.check_events(&format!("{field}.events"), raw.events.as_deref()),
            allow_repositories: raw.allow_repositories.map(|patterns| {
                self.check_repositories(&format!("{field}.allow_repositories"), &patterns)
            }),
        }
    }

    /// `workflow_job` includes all of its actions that concern the scheduler.
    fn check_events(&mut self, field: &str, events: Option<&[String]>) -> Vec<Action> {
        const ACTIONS: [Action; 3] = [Action::Queued, Action::InProgress, Action::Completed];
        let Some(events) = events else {
            return ACTIONS.into();
        };
        if events.is_empty() {
            self.error(format!(
                "{field}: an empty list forwards nothing; leave it out to forward all"
            ));
        }
        let mut wanted = Vec::with_capacity(ACTIONS.len());
        for (index, event) in events.iter().enumerate() {
            let chosen = match event.split_once('.') {
                None if event == EVENT => ACTIONS.as_slice(),
                Some((EVENT, "queued")) => &[Action::Queued],
                Some((EVENT, "in_progress")) => &[Action::InProgress],
                Some((EVENT, "completed")) => &[Action::Completed],
                _ => {
                    self.error(format!(
                        "{field}[{index}]: must be {EVENT}, {EVENT}.queued, {EVENT}.in_progress \
                         or {EVENT}.completed"
                    ));
                    &[]
                }
            };
            wanted.extend_from_slice(chosen);
        }
        for (action, name, reason) in [
            (Action::InProgress, "in_progress", "a busy runner would be taken for a free one"),
            (Action::Completed, "completed", "a cancelled job would still get a runner"),
        ] {
            if !wanted.is_empty() && !wanted.contains(&action) {
                self.error(format!(
                    "{field}: {EVENT}.{name} is missing: without it {reason}; add it, or leave \
                     this list out"
                ));
            }
        }
        wanted
    }

    /// The first variable must be set; the others may be unset outside of a rotation.
    fn check_secrets(&mut self, field: &str, names: &[String]) -> Vec<Secret> {
        let mut secrets = Vec::with_capacity(names.len());
        if names.is_empty() {
            self.error(format!(
                "{field}: list the names of the environment variables that hold the webhook's secrets, the current one first"
            ));
        }
        if names.len() > MAX_SECRETS {
            self.error(format!("{field}: must have at most {MAX_SECRETS} entries"));
        }
        for (index, name) in names.iter().enumerate() {
            let field = format!("{field}[{index}]");
            if !is_variable_name(name) {
                self.error(format!(
                    "{field}: must be the name of an environment variable (capital letters, digits, _), never the secret itself"
                ));
                continue;
            }
            let value = (self.env)(name).unwrap_or_default();
            if value.ends_with(['\n', '\r']) {
                self.error(format!(
                    "{field}: the secret in this variable ends with a line break; remove it"
                ));
            }
            match Secret::new(value.as_bytes()) {
                Some(secret) => secrets.push(secret),
                None if index == 0 => {
                    // Only a known name is repeated: any other text could be a secret.
                    let known = DEFAULT_SECRETS_ENV.iter().find(|known| *known == name);
                    let variable = known.map_or("this environment variable", |known| known);
                    self.error(format!(
                        "{field}: {variable} is unset or empty; set it in Envoy's environment and list it in environment_variables.host_env_keys of the plugin's vm_config"
                    ));
                }
                None => {}
            }
        }
        secrets
    }

    fn check_repositories(&mut self, field: &str, patterns: &[String]) -> Vec<RepositoryPattern> {
        if patterns.is_empty() {
            self.error(format!(
                "{field}: an empty list allows nothing; leave it out to allow every repository"
            ));
        }
        let mut parsed = Vec::with_capacity(patterns.len());
        for (index, pattern) in patterns.iter().enumerate() {
            match RepositoryPattern::parse(pattern) {
                Some(pattern) => parsed.push(pattern),
                None => self.error(format!(
                    "{field}[{index}]: must be OWNER/NAME, with * for any characters, such as acme/*"
                )),
            }
        }
        parsed
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "GITHUB_WEBHOOK_SECRET" => Some("current".to_owned()),
            "ACME" => Some("acme".to_owned()),
            "ACME_OLD" => Some("acme-old".to_owned()),
            "EMPTY" => Some(String::new()),
            "LINE" => Some("hunter2\n".to_owned()),
            _ => None,
        }
    }

    fn parse(json: &str) -> Result<Config, ConfigError> {
        Config::parse(json.as_bytes(), env)
    }

    fn errors(json: &str) -> Vec<String> {
        parse(json).unwrap_err().0
    }

    #[test]
    fn an_empty_configuration_is_the_default_webhook() {
        for json in ["", "  \n", "{}"] {
            let config = parse(json).unwrap();
            assert_eq!(config.path, "/webhooks/github");
            assert_eq!(config.max_body_bytes, 26_214_400);
            assert_eq!(config.sidecar.timeout, Duration::from_secs(5));
            let service = "\x0a\x20\x0a\x12edgerunner_sidecar\x12\x0aedgerunner";
            assert_eq!(config.sidecar.grpc_service, service);
            let [webhook] = config.webhooks.as_slice() else { panic!() };
            assert_eq!((webhook.name.as_str(), webhook.label()), ("", "default"));
            assert_eq!(webhook.secrets(), 1);
            assert!(webhook.allows("any/thing"));
        }
    }

    #[test]
    fn everything_can_be_set() {
        let config = parse(
            r#"{"path": "/gh", "max_body_bytes": 1000,
                "sidecar": {"cluster": "c", "timeout_ms": 100},
                "hooks": [{"name": ""},
                          {"name": "acme", "secrets_env": ["ACME", "ACME_OLD", "UNSET"],
                           "allow_repositories": ["acme/*", "b/c"],
                           "events": ["workflow_job.in_progress", "workflow_job.completed"]},
                          {"name": "fetched", "secrets_from": "sidecar"}],
                "dry_run": true}"#,
        )
        .unwrap();
        assert!(config.dry_run);
        assert_eq!(config.path, "/gh");
        assert_eq!(config.max_body_bytes, 1000);
        assert_eq!(config.sidecar.timeout, Duration::from_millis(100));
        assert_eq!(config.webhook("acme"), Some(1));
        assert_eq!(config.webhook("other"), None);
        let acme = &config.webhooks[1];
        assert_eq!((acme.label(), acme.secrets()), ("acme", 2));
        assert!(acme.allows("ACME/x") && acme.allows("b/c") && !acme.allows("b/d"));
        assert!(acme.forwards(Action::InProgress) && acme.forwards(Action::Completed));
        assert!(!acme.forwards(Action::Queued) && config.webhooks[0].forwards(Action::Queued));
        let fetched = &config.webhooks[2];
        assert!(fetched.secrets_from_sidecar && fetched.verifier().is_none());
    }

    #[test]
    fn unusable_secrets_do_not_replace_usable_ones() {
        let config = parse(r#"{"hooks": [{"secrets_from": "sidecar"}]}"#).unwrap();
        let webhook = &config.webhooks[0];
        webhook.replace_secrets(&[""]);
        assert!(webhook.verifier().is_none());
        webhook.replace_secrets(&["new", "", "old"]);
        assert_eq!(webhook.secrets(), 2);
        webhook.replace_secrets(&[] as &[&str]);
        assert_eq!(webhook.secrets(), 2);
        webhook.replace_secrets(&["1", "2", "3", "4", "5"]);
        assert_eq!(webhook.secrets(), MAX_SECRETS);
    }

    #[test]
    fn the_first_default_variable_is_required() {
        let error = Config::parse(b"{}", |name| {
            (name == "GITHUB_WEBHOOK_SECRET_PREVIOUS").then(|| "old".to_owned())
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("hooks[0].secrets_env[0]: GITHUB_WEBHOOK_SECRET is unset or empty"));
    }

    #[test]
    fn each_error_names_its_field_and_the_remedy() {
        for (json, field, remedy) in [
            ("null", "expected an object such as {}", "line 1 column 4"),
            ("{", "EOF while parsing an object", "line 1 column 1"),
            ("{} x", "trailing characters", "line 1 column 4"),
            (r#"{"pth": ""}"#, "unknown field `pth`", "expected one of `path`"),
            (r#"{"path": 1}"#, "path", "expected a string"),
            (r#"{"path": "x"}"#, "path", "such as /webhooks/github"),
            (r#"{"path": "/x/"}"#, "path", "without a trailing slash"),
            (r#"{"path": "/"}"#, "path", "plain path"),
            (r#"{"path": "/x?y"}"#, "path", "plain path"),
            (r#"{"max_body_bytes": 0}"#, "max_body_bytes", "must be 1 to 26214400"),
            (r#"{"max_body_bytes": 26214401}"#, "max_body_bytes", "must be 1 to 26214400"),
            (r#"{"max_body_bytes": -1}"#, "max_body_bytes", "expected u64"),
            (r#"{"sidecar": "x"}"#, "sidecar", "expected an object such as {\"cluster\""),
            (
                r#"{"sidecar": {"timeout": 1}}"#,
                "sidecar: unknown field `timeout`",
                "expected `cluster` or `timeout_ms`",
            ),
            (r#"{"sidecar": {"timeout_ms": 8001}}"#, "sidecar.timeout_ms", "must be 1 to 8000"),
            (r#"{"sidecar": {"cluster": ""}}"#, "sidecar.cluster", "name of a cluster"),
            (r#"{"sidecar": {"cluster": "ü"}}"#, "sidecar.cluster", "name of a cluster"),
            (r#"{"hooks": []}"#, "hooks", "leave `hooks` out"),
            (
                r#"{"hooks": [{"secret": "x"}]}"#,
                "hooks: unknown field `secret`",
                "expected one of `name`, `secrets_env`",
            ),
            (
                r#"{"hooks": [{"name": "a/b", "secrets_env": ["ACME"]}]}"#,
                "hooks[0].name",
                "letters, digits",
            ),
            (
                r#"{"hooks": [{"name": "default", "secrets_env": ["ACME"]}]}"#,
                "hooks[0].name",
                "write \"\"",
            ),
            (r#"{"hooks": [{}, {}]}"#, "hooks[1].name", "another webhook"),
            (r#"{"hooks": [{"name": "a"}]}"#, "hooks[0].secrets_env", "list the names"),
            (r#"{"hooks": [{"secrets_env": []}]}"#, "hooks[0].secrets_env", "list the names"),
            (
                r#"{"hooks": [{"secrets_env": ["EMPTY", "ACME"]}]}"#,
                "hooks[0].secrets_env[0]",
                "unset or empty",
            ),
            (
                r#"{"hooks": [{"secrets_env": ["1A"]}]}"#,
                "hooks[0].secrets_env[0]",
                "name of an environment variable",
            ),
            (r#"{"hooks": [{"secrets_env": ["LINE"]}]}"#, "hooks[0].secrets_env[0]", "line break"),
            (
                r#"{"hooks": [{"secrets_env": ["ACME", "B", "C", "D", "E"]}]}"#,
                "hooks[0].secrets_env",
                "at most 4",
            ),
            (
                r#"{"hooks": [{"secrets_env": ["ACME"], "secrets_from": "sidecar"}]}"#,
                "hooks[0]",
                "not both",
            ),
            (r#"{"hooks": [{"secrets_from": "file"}]}"#, "secrets_from", "expected `sidecar`"),
            (r#"{"hooks": [{"events": []}]}"#, "hooks[0].events", "leave it out"),
            (r#"{"hooks": [{"events": ["push"]}]}"#, "hooks[0].events[0]", "workflow_job.queued"),
            (
                r#"{"hooks": [{"events": ["workflow_job.queued", "workflow_job.completed"]}]}"#,
                "hooks[0].events",
                "workflow_job.in_progress is missing",
            ),
            (
                r#"{"hooks": [{"events": ["workflow_job.in_progress"]}]}"#,
                "hooks[0].events",
                "workflow_job.completed is missing",
            ),
            (
                r#"{"hooks": [{"allow_repositories": []}]}"#,
                "hooks[0].allow_repositories",
                "leave it out",
            ),
            (
                r#"{"hooks": [{"allow_repositories": ["a/*", "acme"]}]}"#,
                "hooks[0].allow_repositories[1]",
                "acme/*",
            ),
        ] {
            let [error] = errors(json).try_into().unwrap_or_else(|all| panic!("{json}: {all:?}"));
            assert!(error.starts_with(field), "{json}: {error}");
            assert!(error.contains(remedy), "{json}: {error}");
        }
    }

    #[test]
    fn invalid_utf_8_is_reported_with_its_position() {
        let error = Config::parse(b"{\"path\": \"\xff\"}", env).unwrap_err();
        assert_eq!(error.0, ["invalid UTF-8 at byte 10"]);
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let json = r#"{"path": "x", "max_body_bytes": 0,
            "hooks": [{"secrets_env": ["UNSET"], "allow_repositories": ["x"]}]}"#;
        assert_eq!(errors(json).len(), 4);
    }

    #[test]
    fn no_error_repeats_a_secret_whatever_field_it_was_written_to() {
        for json in [
            r#"{"path": "hunter2"}"#,
            r#"{"hooks": "hunter2"}"#,
            r#"{"hooks": ["hunter2"]}"#,
            r#"{"hooks": [{"name": "hunter2!"}]}"#,
            r#"{"hooks": [{"secrets_env": "hunter2"}]}"#,
            r#"{"hooks": [{"secrets_env": "x, expected hunter2"}]}"#,
            r#"{"hooks": [{"secrets_env": ["hunter2"]}]}"#,
            r#"{"hooks": [{"secrets_env": ["HUNTER2"]}]}"#,
            r#"{"hooks": [{"secrets_env": ["LINE"]}]}"#,
            r#"{"hooks": [{"allow_repositories": ["hunter2"]}]}"#,
            r#"{"max_body_bytes": "hunter2"}"#,
            r#"{"sidecar": "hunter2"}"#,
            r#"{"sidecar": {"cluster": "hunter2 "}}"#,
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert!(!error.to_lowercase().contains("hunter2"), "{error}");
        }
        let config = Config::parse(b"{}", |_| Some("hunter2".to_owned())).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
