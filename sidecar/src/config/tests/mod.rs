//! Tests of the configuration, and the helpers that they share.

mod containers;
mod errors;
mod github;
mod kubernetes;
mod pools;
mod server;
mod settings;
mod swarm;

use std::{fs, path::PathBuf};

use secrecy::ExposeSecret as _;

use super::{Config, ConfigErrors, CredentialConfig, Identity, schema::Schema};

pub(super) const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../edgerunner.example.toml");
const SECRET: &str = "ghp_do_not_print_me";
const APP_KEY: &str = include_str!("../../github/test-app.pem");
const SCRIPT_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/tests/job-script.sh");
const APP_KEY_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/github/test-app.pem");

struct TempFile {
    dir: tempfile::TempDir,
}

impl TempFile {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("edgerunner.toml"), text).unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("edgerunner.toml")
    }
}

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let written = TempFile::new(text);
    Config::load(Some(&written.path()), &|name| variable(env, name))
}

fn variable(env: &[(&str, &str)], name: &str) -> Option<String> {
    env.iter().find_map(|(known, value)| (*known == name).then(|| (*value).to_owned()))
}

/// `line: setting: problem` or `VARIABLE: problem` of each error.
fn errors(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    let printed = load(text, env).unwrap_err().to_string();
    assert!(!printed.contains(SECRET), "{printed}");
    printed
        .lines()
        .map(|line| match line.split_once("edgerunner.toml:") {
            Some((_, rest)) => rest.to_owned(),
            None => line.to_owned(),
        })
        .collect()
}

/// Checks that there are errors that begin like these, and no others.
fn assert_errors(errors: &[String], expected: &[&str]) {
    let joined = errors.join("\n");
    for text in expected {
        let found = errors.iter().filter(|line| line.starts_with(text)).count();
        assert_eq!(found, 1, "{text}\nin\n{joined}");
    }
    assert_eq!(errors.len(), expected.len(), "{joined}");
}

fn no_variables(_: &str) -> Option<String> {
    None
}

fn ca_pem() -> String {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

fn token(credential: &CredentialConfig) -> &str {
    match &credential.identity {
        Identity::Token(token) => token.value.expose_secret(),
        Identity::App { .. } => panic!("an App"),
    }
}

const CREDENTIALS: &str = r#"
[[credentials]]
name = "acme"
targets = ["acme", "acme/*"]
token = "ghp_do_not_print_me"
[[credentials]]
name = "ghes"
targets = ["enterprise:corp"]
token_file = "FILE"
api_url = "https://ghe.example.com/api/v3"
"#;
