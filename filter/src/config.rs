//! The plugin configuration: strict JSON, read once when Envoy loads it.
//!
//! Secrets come from the environment or from the sidecar. No message here repeats a value, since
//! a secret may have been written where its variable's name belongs.

use std::{cell::RefCell, fmt, time::Duration};

use serde::Deserialize;

use edgerunner_proto::v1::Action;

use crate::{
    event, grpc_service,
    repository::RepositoryPattern,
    signature::{Secret, Verifier},
};

const DEFAULT_PATH: &str = "/webhooks/github";
/// The second holds the secret that is on its way out and may be unset.
const DEFAULT_SECRETS_ENV: [&str; 2] = ["GITHUB_WEBHOOK_SECRET", "GITHUB_WEBHOOK_SECRET_PREVIOUS"];
/// GitHub sends no more.
const MAX_BODY_BYTES: u64 = 25 * 1024 * 1024;
const DEFAULT_CLUSTER: &str = "edgerunner_sidecar";
const DEFAULT_TIMEOUT_MS: u64 = 5_000;
/// GitHub gives up after 10 s, part of which the body takes to arrive.
const MAX_TIMEOUT_MS: u64 = 8_000;
const MAX_NAME_BYTES: usize = 64;
/// One for now, one that is on its way out, and some to spare.
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
/// What metrics call the hook whose name is empty.
pub const DEFAULT_HOOK_LABEL: &str = "default";

/// The default has no hooks and so refuses everything.
#[derive(Debug, Default)]
pub struct Config {
    /// Path of the default hook; the others are one segment below it.
    pub path: String,
    pub hooks: Vec<Hook>,
    pub max_body_bytes: u64,
    /// Deliveries are checked and reported, and then pass on: nothing is refused, and
    /// nothing reaches the sidecar.
    pub dry_run: bool,
    pub sidecar: Sidecar,
}

#[derive(Debug)]
pub struct Hook {
    /// Last segment of the path; empty for the default hook.
    pub name: String,
    /// The current one first. Empty until the sidecar has told them.
    secrets: RefCell<Vec<Secret>>,
    /// Whether the sidecar tells the secrets.
    pub secrets_from_sidecar: bool,
    /// Those of `workflow_job` that reach the sidecar.
    actions: Vec<Action>,
    /// `None` allows every repository.
    pub allow_repositories: Option<Vec<RepositoryPattern>>,
}

#[derive(Debug, Default)]
pub struct Sidecar {
    /// The cluster, in the form that Envoy's gRPC call takes.
    pub grpc_service: String,
    pub timeout: Duration,
}

impl Hook {
    pub fn label(&self) -> &str {
        if self.name.is_empty() { DEFAULT_HOOK_LABEL } else { &self.name }
    }

    pub fn secrets(&self) -> usize {
        self.secrets.borrow().len()
    }

    /// `None` while there is no secret to verify with.
    pub fn verifier(&self) -> Option<Verifier> {
        let secrets = self.secrets.borrow();
        (!secrets.is_empty()).then(|| Verifier::new(&secrets))
    }

    /// What the sidecar tells. Those that cannot be used are left out; without any that
    /// can, the ones before stay.
    pub fn renew_secrets(&self, secrets: &[impl AsRef<[u8]>]) {
        let usable = secrets.iter().filter_map(|secret| Secret::new(secret.as_ref()));
        let usable: Vec<Secret> = usable.take(MAX_SECRETS).collect();
        if !usable.is_empty() {
            *self.secrets.borrow_mut() = usable;
        }
    }

    pub fn wants(&self, action: Action) -> bool {
        self.actions.contains(&action)
    }

    pub fn allows(&self, repository: &str) -> bool {
        self.allow_repositories
            .as_ref()
            .is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(repository)))
    }
}

/// All mistakes at once.
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
    hooks: Vec<RawHook>,
    max_body_bytes: u64,
    dry_run: bool,
    sidecar: RawSidecar,
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object such as {\"name\": \"acme\", \"secrets_env\": [\"ACME_WEBHOOK_SECRET\"]}"
)]
struct RawHook {
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
            hooks: vec![RawHook {
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
    /// `env` reads an environment variable. No configuration at all is `{}`.
    pub fn parse(json: &[u8], env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let json = str::from_utf8(json).map_err(|error| {
            ConfigError(vec![format!("not UTF-8 from byte {} on", error.valid_up_to())])
        })?;
        let json = if json.trim_ascii().is_empty() { "{}" } else { json };
        let raw: RawConfig = serde_json::from_str(json)
            .map_err(|error| ConfigError(vec![describe(json, &error)]))?;
        Checker { env, mistakes: Vec::new() }.check(raw)
    }

    pub fn hook(&self, name: &str) -> Option<usize> {
        self.hooks.iter().position(|hook| hook.name == name)
    }
}

/// serde quotes the offending value; what it expected is said without it.
fn describe(json: &str, error: &serde_json::Error) -> String {
    let text = event::message(error);
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

/// The last field that begins before the mistake. Only our own names are ever
/// told, since any other text could be a secret.
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
    mistakes: Vec<String>,
}

impl<E: Fn(&str) -> Option<String>> Checker<E> {
    fn check(mut self, mut raw: RawConfig) -> Result<Config, ConfigError> {
        self.check_path(&raw.path);
        if raw.max_body_bytes == 0 || raw.max_body_bytes > MAX_BODY_BYTES {
            self.mistake(format!("max_body_bytes: write 1 to {MAX_BODY_BYTES}"));
        }
        let sidecar = self.check_sidecar(&raw.sidecar);
        if raw.hooks.is_empty() {
            self.mistake("hooks: no hook; leave `hooks` out for the default one");
        }
        let mut hooks: Vec<Hook> = Vec::with_capacity(raw.hooks.len());
        for (index, hook) in std::mem::take(&mut raw.hooks).into_iter().enumerate() {
            let field = format!("hooks[{index}]");
            if hooks.iter().any(|earlier| earlier.name == hook.name) {
                self.mistake(format!("{field}.name: another hook has this name"));
            }
            hooks.push(self.check_hook(&field, hook));
        }
        if self.mistakes.is_empty() {
            let RawConfig { path, max_body_bytes, dry_run, .. } = raw;
            Ok(Config { path, hooks, max_body_bytes, dry_run, sidecar })
        } else {
            Err(ConfigError(self.mistakes))
        }
    }

    fn mistake(&mut self, text: impl Into<String>) {
        self.mistakes.push(text.into());
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
            self.mistake(format!(
                "path: write a plain path without trailing slash, such as {DEFAULT_PATH}"
            ));
        }
    }

    fn check_sidecar(&mut self, raw: &RawSidecar) -> Sidecar {
        if !(1..=MAX_TIMEOUT_MS).contains(&raw.timeout_ms) {
            self.mistake(format!(
                "sidecar.timeout_ms: write 1 to {MAX_TIMEOUT_MS}; GitHub gives up after 10 seconds"
            ));
        }
        let fits = (1..=grpc_service::MAX_CLUSTER_NAME).contains(&raw.cluster.len())
            && raw.cluster.bytes().all(|byte| byte.is_ascii_graphic());
        let grpc_service = fits.then(|| grpc_service::serialized(&raw.cluster)).flatten();
        if grpc_service.is_none() {
            self.mistake(format!(
                "sidecar.cluster: write the name of a cluster in Envoy's configuration, such as {DEFAULT_CLUSTER}"
            ));
        }
        Sidecar {
            grpc_service: grpc_service.unwrap_or_default(),
            timeout: Duration::from_millis(raw.timeout_ms),
        }
    }

    fn check_hook(&mut self, field: &str, raw: RawHook) -> Hook {
        let plain =
            raw.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !plain || raw.name.len() > MAX_NAME_BYTES {
            self.mistake(format!(
                "{field}.name: write up to {MAX_NAME_BYTES} letters, digits, - or _; it becomes the last part of the hook's path"
            ));
        }
        if raw.name == DEFAULT_HOOK_LABEL {
            self.mistake(format!(
                "{field}.name: metrics call the hook at the path itself `{DEFAULT_HOOK_LABEL}`; write \"\" for that one or choose another name"
            ));
        }
        let secrets_from_sidecar = raw.secrets_from.is_some();
        let secrets_env = format!("{field}.secrets_env");
        let secrets = match raw.secrets_env {
            Some(_) if secrets_from_sidecar => {
                self.mistake(format!(
                    "{field}: write secrets_env or \"secrets_from\": \"sidecar\", not both"
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
        Hook {
            name: raw.name,
            secrets: RefCell::new(secrets),
            secrets_from_sidecar,
            actions: self.check_events(&format!("{field}.events"), raw.events.as_deref()),
            allow_repositories: raw.allow_repositories.map(|patterns| {
                self.check_repositories(&format!("{field}.allow_repositories"), &patterns)
            }),
        }
    }

    /// `workflow_job` stands for all of its actions that mean something to us.
    fn check_events(&mut self, field: &str, events: Option<&[String]>) -> Vec<Action> {
        const ACTIONS: [Action; 3] = [Action::Queued, Action::InProgress, Action::Completed];
        let Some(events) = events else {
            return ACTIONS.into();
        };
        if events.is_empty() {
            self.mistake(format!("{field}: an empty list forwards nothing; leave it out for all"));
        }
        let mut wanted = Vec::with_capacity(ACTIONS.len());
        for (index, event) in events.iter().enumerate() {
            let chosen = match event.split_once('.') {
                None if event == EVENT => ACTIONS.as_slice(),
                Some((EVENT, "queued")) => &[Action::Queued],
                Some((EVENT, "in_progress")) => &[Action::InProgress],
                Some((EVENT, "completed")) => &[Action::Completed],
                _ => {
                    self.mistake(format!(
                        "{field}[{index}]: write {EVENT}, or {EVENT}.queued, {EVENT}.in_progress \
                         or {EVENT}.completed"
                    ));
                    &[]
                }
            };
            wanted.extend_from_slice(chosen);
        }
        wanted
    }

    /// The first variable must be set; those after it serve rotation.
    fn check_secrets(&mut self, field: &str, names: &[String]) -> Vec<Secret> {
        let mut secrets = Vec::with_capacity(names.len());
        if names.is_empty() {
            self.mistake(format!(
                "{field}: write the names of the environment variables that hold the hook's secrets, the current one first"
            ));
        }
        if names.len() > MAX_SECRETS {
            self.mistake(format!("{field}: write up to {MAX_SECRETS}"));
        }
        for (index, name) in names.iter().enumerate() {
            let field = format!("{field}[{index}]");
            if !is_variable_name(name) {
                self.mistake(format!(
                    "{field}: write the name of an environment variable (capital letters, digits, _), never the secret itself"
                ));
                continue;
            }
            let value = (self.env)(name).unwrap_or_default();
            if value.ends_with(['\n', '\r']) {
                self.mistake(format!(
                    "{field}: the secret in this variable ends in a line break; set it without one"
                ));
            }
            match Secret::new(value.as_bytes()) {
                Some(secret) => secrets.push(secret),
                None if index == 0 => {
                    // Only a name of our own is repeated: any other text
                    // could be a secret that strayed here.
                    let known = DEFAULT_SECRETS_ENV.iter().find(|known| *known == name);
                    let variable = known.map_or("this environment variable", |known| known);
                    self.mistake(format!(
                        "{field}: {variable} is unset or empty; set it for Envoy and list it under environment_variables.host_env_keys of the plugin's vm_config"
                    ));
                }
                None => {}
            }
        }
        secrets
    }

    fn check_repositories(&mut self, field: &str, patterns: &[String]) -> Vec<RepositoryPattern> {
        if patterns.is_empty() {
            self.mistake(format!(
                "{field}: an empty list allows nothing; leave it out to allow every repository"
            ));
        }
        let mut parsed = Vec::with_capacity(patterns.len());
        for (index, pattern) in patterns.iter().enumerate() {
            match RepositoryPattern::parse(pattern) {
                Some(pattern) => parsed.push(pattern),
                None => self.mistake(format!(
                    "{field}[{index}]: write owner/name or owner/*, such as acme/*"
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

    fn mistakes(json: &str) -> Vec<String> {
        parse(json).unwrap_err().0
    }

    #[test]
    fn nothing_at_all_is_the_default_hook() {
        for json in ["", "  \n", "{}"] {
            let config = parse(json).unwrap();
            assert_eq!(config.path, "/webhooks/github");
            assert_eq!(config.max_body_bytes, 26_214_400);
            assert_eq!(config.sidecar.timeout, Duration::from_secs(5));
            let service = "\x0a\x20\x0a\x12edgerunner_sidecar\x12\x0aedgerunner";
            assert_eq!(config.sidecar.grpc_service, service);
            let [hook] = config.hooks.as_slice() else { panic!() };
            assert_eq!((hook.name.as_str(), hook.label()), ("", "default"));
            assert_eq!(hook.secrets(), 1);
            assert!(hook.allows("any/thing"));
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
                           "events": ["workflow_job.queued", "workflow_job.completed"]},
                          {"name": "told", "secrets_from": "sidecar"}],
                "dry_run": true}"#,
        )
        .unwrap();
        assert!(config.dry_run);
        assert_eq!(config.path, "/gh");
        assert_eq!(config.max_body_bytes, 1000);
        assert_eq!(config.sidecar.timeout, Duration::from_millis(100));
        assert_eq!(config.hook("acme"), Some(1));
        assert_eq!(config.hook("other"), None);
        let acme = &config.hooks[1];
        assert_eq!((acme.label(), acme.secrets()), ("acme", 2));
        assert!(acme.allows("ACME/x") && acme.allows("b/c") && !acme.allows("b/d"));
        assert!(acme.wants(Action::Queued) && acme.wants(Action::Completed));
        assert!(!acme.wants(Action::InProgress) && config.hooks[0].wants(Action::InProgress));
        let told = &config.hooks[2];
        assert!(told.secrets_from_sidecar && told.verifier().is_none());
    }

    #[test]
    fn secrets_that_cannot_be_used_do_not_replace_those_that_can() {
        let config = parse(r#"{"hooks": [{"secrets_from": "sidecar"}]}"#).unwrap();
        let hook = &config.hooks[0];
        hook.renew_secrets(&[""]);
        assert!(hook.verifier().is_none());
        hook.renew_secrets(&["new", "", "old"]);
        assert_eq!(hook.secrets(), 2);
        hook.renew_secrets(&[] as &[&str]);
        assert_eq!(hook.secrets(), 2);
        hook.renew_secrets(&["1", "2", "3", "4", "5"]);
        assert_eq!(hook.secrets(), MAX_SECRETS);
    }

    #[test]
    fn the_default_pair_needs_its_first() {
        let error = Config::parse(b"{}", |name| {
            (name == "GITHUB_WEBHOOK_SECRET_PREVIOUS").then(|| "old".to_owned())
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("hooks[0].secrets_env[0]: GITHUB_WEBHOOK_SECRET is unset or empty"));
    }

    #[test]
    fn each_mistake_names_its_field_and_the_remedy() {
        for (json, field, remedy) in [
            ("null", "expected an object such as {}", "line 1 column 4"),
            ("{", "EOF while parsing an object", "line 1 column 1"),
            ("{} x", "trailing characters", "line 1 column 4"),
            (r#"{"pth": ""}"#, "unknown field `pth`", "expected one of `path`"),
            (r#"{"path": 1}"#, "path", "expected a string"),
            (r#"{"path": "x"}"#, "path", "such as /webhooks/github"),
            (r#"{"path": "/x/"}"#, "path", "without trailing slash"),
            (r#"{"path": "/"}"#, "path", "plain path"),
            (r#"{"path": "/x?y"}"#, "path", "plain path"),
            (r#"{"max_body_bytes": 0}"#, "max_body_bytes", "write 1 to 26214400"),
            (r#"{"max_body_bytes": 26214401}"#, "max_body_bytes", "write 1 to 26214400"),
            (r#"{"max_body_bytes": -1}"#, "max_body_bytes", "expected u64"),
            (r#"{"sidecar": "x"}"#, "sidecar", "expected an object such as {\"cluster\""),
            (
                r#"{"sidecar": {"timeout": 1}}"#,
                "sidecar: unknown field `timeout`",
                "expected `cluster` or `timeout_ms`",
            ),
            (r#"{"sidecar": {"timeout_ms": 8001}}"#, "sidecar.timeout_ms", "write 1 to 8000"),
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
            (r#"{"hooks": [{}, {}]}"#, "hooks[1].name", "another hook"),
            (r#"{"hooks": [{"name": "a"}]}"#, "hooks[0].secrets_env", "write the names"),
            (r#"{"hooks": [{"secrets_env": []}]}"#, "hooks[0].secrets_env", "write the names"),
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
                "write up to 4",
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
            let [mistake] =
                mistakes(json).try_into().unwrap_or_else(|all| panic!("{json}: {all:?}"));
            assert!(mistake.starts_with(field), "{json}: {mistake}");
            assert!(mistake.contains(remedy), "{json}: {mistake}");
        }
    }

    #[test]
    fn a_configuration_that_is_not_text_is_told_where() {
        let error = Config::parse(b"{\"path\": \"\xff\"}", env).unwrap_err();
        assert_eq!(error.0, ["not UTF-8 from byte 10 on"]);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let json = r#"{"path": "x", "max_body_bytes": 0,
            "hooks": [{"secrets_env": ["UNSET"], "allow_repositories": ["x"]}]}"#;
        assert_eq!(mistakes(json).len(), 4);
    }

    #[test]
    fn no_mistake_repeats_a_secret_whatever_field_it_strayed_into() {
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
