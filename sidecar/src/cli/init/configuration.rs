//! The text of the configuration.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::json;

use super::{
    answers::{Answers, Credential, Edge},
    envoy_files,
    files::{File, NewFiles},
};
use crate::config::GitHub;
use edgerunner_scheduler::plan::Scope;

/// Jobs at the same time, as in docs/getting-started.md.
const MAX: usize = 4;
/// Without webhooks: seconds between polls of a repository that has jobs. Those without are polled
/// ten times less often.
const POLL_SECONDS: u32 = 15;

/// `github`: settings of the environment, of which those about the server are kept. `token_file`
/// and `app_id`: the credential.
pub(super) fn text(
    answers: &Answers,
    github: &GitHub,
    token_file: Option<&Path>,
    app_id: Option<u64>,
    new: &NewFiles,
) -> Result<String> {
    let mut text = String::from(
        "# Written by `edgerunner init`. docs/configuration.md lists every setting.\n\n[github]\n",
    );
    let mut line = |name: &str, value: String| text.push_str(&format!("{name} = {value}\n"));
    let default = GitHub::default();
    if github.api_url != default.api_url {
        line("api_url", quoted(&github.api_url));
    }
    if let Some(web_url) = &github.web_url {
        line("web_url", quoted(web_url));
    }
    if let Some(file) = &github.ca_file {
        line("ca_file", path(file)?);
    }
    if github.allow_http {
        line("allow_http", "true".to_owned());
    }
    match (&answers.credential, token_file, app_id) {
        (Credential::App, _, Some(id)) => {
            line("app_id", quoted(id.to_string()));
            line("app_private_key_file", path(&new.path(File::AppKey))?);
        }
        (_, Some(file), _) => line("token_file", path(file)?),
        _ => {}
    }
    if let Some(url) = answers.edge.url() {
        line("webhook_url", quoted(url));
        line("webhook_secret_file", path(&new.path(File::WebhookSecret))?);
    }
    text.push_str("\n[runner]\n");
    let mut line = |name: &str, value: String| text.push_str(&format!("{name} = {value}\n"));
    match answers.place.scope() {
        Scope::Repository => {}
        Scope::Organization => line("scope", quoted("organization")),
        Scope::Enterprise => line("scope", quoted("enterprise")),
    }
    let patterns = answers.place.patterns();
    if !patterns.is_empty() {
        line("repositories", json!(patterns).to_string());
    }
    text.push_str(&format!("# Jobs at the same time.\nmax = {MAX}\n"));
    let store = path(&new.directory().join("edgerunner.db"))?;
    text.push_str(&format!("\n[store]\npath = {store}\n"));
    if let Some(socket) = envoy_files::socket(&answers.edge, new.directory()) {
        let address = quoted(format!("unix:{}", unquoted(&socket)?));
        text.push_str(&format!("\n[server]\ngrpc_address = {address}\n"));
    }
    match (&answers.edge, &answers.credential) {
        (Edge::Polling, _) => text.push_str(&format!(
            "\n# No webhook announces jobs: they are found by polling alone.\n\
             [missed_webhooks]\ninterval_seconds = {POLL_SECONDS}\n"
        )),
        (_, Credential::App) => {
            text.push_str("\n[missed_webhooks]\nhooks = [\"app/hook\"]\n");
        }
        _ => {}
    }
    Ok(text)
}

/// A text in JSON is one in TOML as well.
fn quoted(text: impl Serialize) -> String {
    json!(text).to_string()
}

fn path(path: &Path) -> Result<String> {
    Ok(quoted(unquoted(path)?))
}

fn unquoted(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{}: the path is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::init::place::Place, config::Config};

    fn place() -> Place {
        Place::Organization { login: "acme".into(), repositories: Vec::new() }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("to\"ken");
        std::fs::write(&token, "sesame").unwrap();
        let url = "https://h.example.com/webhooks/github";
        for edge in [
            Edge::Proxy { url: url.into() },
            Edge::Tls { url: url.into(), certificate: "/c".into(), key: "/k".into() },
            Edge::Polling,
        ] {
            let credential =
                Credential::TokenFile { path: token.clone(), token: "sesame".to_owned().into() };
            let answers = Answers { place: place(), credential, edge };
            let mut new = NewFiles::in_directory(&directory.path().join("new")).unwrap();
            new.add_secret(File::WebhookSecret, "open");
            let github =
                GitHub { api_url: "https://ghe.example.com/api/v3".into(), ..GitHub::default() };
            let text = text(&answers, &github, Some(&token), None, &new).unwrap();
            new.add(File::Configuration, text.clone());
            let written = new.write().unwrap();
            let file = written.path(File::Configuration);
            let config = Config::load_on_this_machine(Some(&file), &|_| None, &[]);
            let config = config.unwrap_or_else(|errors| panic!("{errors}\n{text}"));
            assert_eq!(config.credentials[0].api_url, "https://ghe.example.com/api/v3");
            assert_eq!(config.github.webhook_url.as_deref(), answers.edge.url());
            assert_eq!(config.planner_settings().pools[0].max, MAX);
            assert_eq!(
                config.planner_settings().pools[0].targets().first().unwrap().to_string(),
                "org:acme"
            );
            written.remove();
        }
    }
}
