//! What `init` says in the end: the files, and the commands to run next.

use std::path::Path;

use super::{
    answers::{Answers, Credential, Edge},
    envoy_files::FILTER,
    files::{File, Written},
};

/// `app_page`: of a GitHub App that was registered. `valid`: what `check` says.
pub(super) fn text(
    answers: &Answers,
    written: &Written,
    app_page: Option<&str>,
    valid: &str,
) -> String {
    let mut text = format!("Written to {}:\n", written.directory().display());
    let width = written.files().iter().map(|file| file.name().len()).max().unwrap_or_default();
    for file in written.files() {
        text.push_str(&format!("  {:width$}  {}\n", file.name(), file.about()));
    }
    text.push_str(valid);
    for note in notes(answers, app_page) {
        text.push_str(&format!("\n{note}\n"));
    }
    let commands = commands(answers, written);
    let count = commands.len();
    text.push_str(&format!(
        "\nNext, run these {count} commands, those that keep running in terminals of their own:\n"
    ));
    commands.iter().for_each(|command| text.push_str(&format!("  {command}\n")));
    text
}

/// What else has to be done.
fn notes(answers: &Answers, app_page: Option<&str>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(page) = app_page {
        notes.push(format!("Install the GitHub App, if you have not: {page}/installations/new"));
    }
    let has_envoy = !matches!(answers.edge, Edge::Polling);
    if has_envoy && !Path::new(FILTER).exists() {
        notes.push(format!(
            "Install the filter as {FILTER}, where Envoy's configuration expects it."
        ));
    }
    match &answers.edge {
        Edge::Proxy { url } => notes.push(format!(
            "Your tunnel or proxy has to pass {url} on to Envoy, which listens on 127.0.0.1:8080."
        )),
        Edge::Tls { url, .. } => notes.push(format!(
            "{url} has to lead to Envoy, which listens on port 8443 of all addresses."
        )),
        Edge::Polling => notes.push(
            "No webhook announces jobs: a job is found within a quarter of a minute in a \
             repository that had jobs today, and within three minutes in another. Its end is known \
             up to two minutes later, until when another runner may wait for it."
                .to_owned(),
        ),
    }
    if has_envoy
        && !matches!(answers.credential, Credential::App)
        && answers.place.webhook_targets().is_empty()
    {
        notes.push(
            "Create the webhook in the settings of the enterprise, with the event \"Workflow jobs\" \
             and the secret in webhook-secret."
                .to_owned(),
        );
    }
    notes
}

fn commands(answers: &Answers, written: &Written) -> Vec<String> {
    let quoted = |file: File| shell(&written.path(file).to_string_lossy());
    let edgerunner = format!("edgerunner --config {}", quoted(File::Configuration));
    let mut commands = vec![format!("{edgerunner} serve")];
    if matches!(answers.edge, Edge::Polling) {
        commands.push(format!("{edgerunner} doctor"));
        commands.push(format!("{edgerunner} jobs --watch"));
        return commands;
    }
    let (secret, envoy) = (quoted(File::WebhookSecret), quoted(File::Envoy));
    commands.push(format!("GITHUB_WEBHOOK_SECRET=$(cat {secret}) envoy -c {envoy}"));
    let targets = match answers.credential {
        // It has its webhook.
        Credential::App => Vec::new(),
        _ => answers.place.webhook_targets(),
    };
    if targets.is_empty() {
        commands.push(format!("{edgerunner} doctor"));
    }
    commands.extend(targets.iter().map(|it| format!("{edgerunner} webhook create {it}")));
    commands
}

/// A word for a shell.
fn shell(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::init::{files::NewFiles, place::Place};

    fn commands_for(credential: Credential, edge: Edge, place: Place) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let new = NewFiles::in_directory(&directory.path().join("it's")).unwrap();
        let written = new.write().unwrap();
        let root = directory.path().to_string_lossy().into_owned();
        let commands = commands(&Answers { place, credential, edge }, &written);
        commands.into_iter().map(|command| command.replace(&root, "")).collect()
    }

    #[test]
    fn three_commands_lead_to_a_job_and_none_has_a_secret() {
        let edge = || Edge::Proxy { url: "https://h.example.com".into() };
        let place = || Place::Repositories(vec!["acme/app".into()]);
        let token = || Credential::Token("sesame".to_owned().into());
        let found = commands_for(token(), edge(), place());
        assert_eq!(
            found,
            [
                r"edgerunner --config '/it'\''s/edgerunner.toml' serve",
                r"GITHUB_WEBHOOK_SECRET=$(cat '/it'\''s/webhook-secret') envoy -c '/it'\''s/envoy.yaml'",
                r"edgerunner --config '/it'\''s/edgerunner.toml' webhook create acme/app",
            ]
        );
        let found = commands_for(Credential::App, edge(), place());
        assert!(found.len() == 3 && found[2].ends_with(" doctor"), "{found:?}");
        let found = commands_for(token(), Edge::Polling, place());
        assert!(found.len() == 3 && !found.concat().contains("envoy"), "{found:?}");
        let enterprise = Place::Enterprise { slug: "corp".into(), repositories: Vec::new() };
        let found = commands_for(token(), edge(), enterprise);
        assert!(found.len() == 3 && found[2].ends_with(" doctor"), "{found:?}");
    }
}
