//! What the person wants, from flags, the environment and answers.

use std::path::{Path, PathBuf, absolute};

use anyhow::{Context as _, Result, anyhow, bail};
use http::{Uri, uri::Scheme};
use secrecy::SecretString;

use super::{Arguments, Environment, files::File, place::Place};
use crate::{
    cli::ask::Ask,
    config::{is_loopback, token_problem, url_problem},
    secret::read_secret,
};

/// The path of the webhook in the files for Envoy.
const HOOK_PATH: &str = "/webhooks/github";

#[derive(Debug)]
pub(super) struct Answers {
    pub(super) place: Place,
    pub(super) credential: Credential,
    pub(super) edge: Edge,
}

#[derive(Debug)]
pub(super) enum Credential {
    /// To be written to a file.
    Token(SecretString),
    TokenFile {
        path: PathBuf,
        token: SecretString,
    },
    /// To be registered.
    App,
}

/// How GitHub reaches this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    /// Through a tunnel or a proxy that has the certificate.
    Proxy { url: String },
    /// Envoy has the certificate.
    Tls { url: String, certificate: PathBuf, key: PathBuf },
    /// Not at all.
    Polling,
}

impl Edge {
    /// Where GitHub sends webhooks.
    pub(super) fn url(&self) -> Option<&str> {
        match self {
            Self::Proxy { url } | Self::Tls { url, .. } => Some(url),
            Self::Polling => None,
        }
    }
}

/// Checks the URL of the webhook, and adds the path if it has none.
pub(super) fn webhook_url(text: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('/');
    let example = "such as https://hooks.example.com/webhooks/github";
    if let Some(problem) = url_problem(text) {
        return Err(format!("{problem}, {example}"));
    }
    let uri: Uri = text.parse().map_err(|_| format!("write a URL, {example}"))?;
    if uri.scheme() != Some(&Scheme::HTTPS) && !uri.host().is_some_and(is_loopback) {
        return Err(format!("GitHub must reach it over HTTPS: write https://, {example}"));
    }
    match uri.path() {
        "" | "/" => Ok(format!("{text}{HOOK_PATH}")),
        HOOK_PATH => Ok(text.to_owned()),
        _ => Err(format!("its path has to be {HOOK_PATH}, as in Envoy's file")),
    }
}

/// Checks a token as far as that is possible without GitHub.
fn token(text: &str) -> Result<(), String> {
    let problem = token_problem(&text.into()).map(str::to_owned);
    match problem.or_else(|| text.is_empty().then(|| "write the token".to_owned())) {
        Some(problem) => Err(problem),
        None => Ok(()),
    }
}

fn is_file(text: &str) -> Result<(), String> {
    match Path::new(text).is_file() {
        true => Ok(()),
        false => Err(format!("there is no file {text}")),
    }
}

impl Answers {
    pub(super) fn find(
        arguments: &Arguments,
        environment: &Environment<'_>,
        ask: Option<&dyn Ask>,
    ) -> Result<Self> {
        let place = Place::find(arguments, ask)?;
        let by_app = place.as_ref().is_none_or(|it| it.owner().is_some());
        if arguments.app && !by_app {
            bail!("a GitHub App cannot register runners of an enterprise: use a classic token");
        }
        let credential = credential(arguments, environment, by_app, ask)?;
        let edge = edge(arguments, environment, ask)?;
        let missing = [
            (place.is_none(), "--repository OWNER/NAME, --organization LOGIN or --enterprise SLUG"),
            (credential.is_none(), "--token-file FILE, the variable GITHUB_TOKEN, or --app"),
            (edge.is_none(), "--url URL, or --polling"),
        ];
        let missing: Vec<&str> =
            missing.into_iter().filter(|(is_missing, _)| *is_missing).map(|it| it.1).collect();
        let (Some(mut place), Some(credential), Some(edge)) = (place, credential, edge) else {
            bail!("there is no terminal to ask on; these are missing: {}", missing.join("; "));
        };
        if let (Edge::Polling, Some(ask)) = (&edge, ask) {
            place.name_repositories(ask)?;
        }
        if edge == Edge::Polling && place.repositories().is_empty() {
            bail!("only repositories that are named can be polled: give each with --repository");
        }
        if let Some(repository) = place.foreign_repository() {
            bail!("{repository} does not belong to the organization: leave one of the two out");
        }
        Ok(Self { place, credential, edge })
    }

    /// The files that will be written.
    pub(super) fn files(&self) -> Vec<File> {
        let mut files = vec![File::Configuration];
        match &self.credential {
            Credential::Token(_) => files.push(File::Token),
            Credential::TokenFile { .. } => {}
            Credential::App => files.push(File::AppKey),
        }
        match &self.edge {
            Edge::Polling => {}
            Edge::Proxy { .. } => files.extend([File::WebhookSecret, File::Envoy]),
            Edge::Tls { .. } => files.extend([
                File::WebhookSecret,
                File::Envoy,
                File::EnvoyCertificate,
                File::GithubAddresses,
            ]),
        }
        files
    }
}

fn credential(
    arguments: &Arguments,
    environment: &Environment<'_>,
    by_app: bool,
    ask: Option<&dyn Ask>,
) -> Result<Option<Credential>> {
    if arguments.app {
        // It would be used in place of the App.
        for name in ["GITHUB_TOKEN", "GITHUB_TOKEN_FILE"] {
            if environment.get(name).is_some() {
                bail!("the variable {name} is set and would be used instead of the App: unset it");
            }
        }
        return Ok(Some(Credential::App));
    }
    let named = arguments.token_file.clone();
    let named = named.or_else(|| environment.get("GITHUB_TOKEN_FILE").map(PathBuf::from));
    if let Some(path) = named {
        return token_in(&path).map(Some);
    }
    if let Some(text) = environment.get("GITHUB_TOKEN") {
        token(&text).map_err(|problem| anyhow!("GITHUB_TOKEN: {problem}"))?;
        return Ok(Some(Credential::Token(text.into())));
    }
    let Some(ask) = ask else { return Ok(None) };
    let ways = [
        "Paste a token",
        "Name a file that contains a token",
        "Register a GitHub App with a browser",
    ];
    let ways = if by_app { &ways[..] } else { &ways[..2] };
    Ok(Some(match ask.choose("How does edgerunner log in to GitHub?", ways)? {
        0 => Credential::Token(
            ask.secret("Token that may register runners (it is not shown)", &token)?,
        ),
        1 => token_in(Path::new(&ask.text("File", &is_file)?))?,
        _ => Credential::App,
    }))
}

fn token_in(path: &Path) -> Result<Credential> {
    let shown = path.display();
    let text = read_secret(path).map_err(|problem| anyhow!("{shown}: {problem}"))?;
    token(&text).map_err(|problem| anyhow!("{shown}: {problem}"))?;
    let path = absolute(path).with_context(|| format!("{shown}: no absolute path"))?;
    Ok(Credential::TokenFile { path, token: text.into() })
}

fn edge(
    arguments: &Arguments,
    environment: &Environment<'_>,
    ask: Option<&dyn Ask>,
) -> Result<Option<Edge>> {
    if arguments.polling {
        return Ok(Some(Edge::Polling));
    }
    let mut url = arguments.url.clone();
    if url.is_none()
        && let Some(text) = environment.get("GITHUB_WEBHOOK_URL")
    {
        let checked = webhook_url(&text);
        url = Some(checked.map_err(|problem| anyhow!("GITHUB_WEBHOOK_URL: {problem}"))?);
    }
    let files = arguments.certificate.clone().zip(arguments.key.clone());
    match (url, files, ask) {
        (Some(url), Some((certificate, key)), _) => tls(url, &certificate, &key).map(Some),
        (Some(url), None, _) => Ok(Some(Edge::Proxy { url })),
        (None, files, Some(ask)) => ask_edge(ask, files).map(Some),
        (None, _, None) => Ok(None),
    }
}

fn ask_edge(ask: &dyn Ask, files: Option<(PathBuf, PathBuf)>) -> Result<Edge> {
    let ways = [
        "Through a tunnel or a proxy that has the certificate",
        "Directly: Envoy has the certificate",
        "Not at all: find jobs by polling",
    ];
    let way = match files {
        Some(_) => 1,
        None => ask.choose("How does GitHub reach this machine?", &ways)?,
    };
    if way > 1 {
        return Ok(Edge::Polling);
    }
    let check = |text: &str| webhook_url(text).map(drop);
    let url = ask.text("Public URL, such as https://hooks.example.com", &check)?;
    let url = webhook_url(&url).map_err(|problem| anyhow!(problem))?;
    if way == 0 {
        return Ok(Edge::Proxy { url });
    }
    let (certificate, key) = match files {
        Some(files) => files,
        None => (
            ask.text("File with the certificate and its chain (PEM)", &is_file)?.into(),
            ask.text("File with its private key (PEM)", &is_file)?.into(),
        ),
    };
    tls(url, &certificate, &key)
}

fn tls(url: String, certificate: &Path, key: &Path) -> Result<Edge> {
    let known = |path: &Path| -> Result<PathBuf> {
        is_file(&path.to_string_lossy()).map_err(|problem| anyhow!(problem))?;
        absolute(path).with_context(|| format!("{}: no absolute path", path.display()))
    };
    Ok(Edge::Tls { url, certificate: known(certificate)?, key: known(key)? })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::cli::{arguments, ask::Check};

    /// Answers in their order.
    struct Script(RefCell<Vec<&'static str>>);

    impl Script {
        fn next(&self, question: &str) -> &'static str {
            let mut answers = self.0.borrow_mut();
            assert!(!answers.is_empty(), "an unexpected question: {question}");
            answers.remove(0)
        }
    }

    impl Ask for Script {
        fn choose(&self, question: &str, answers: &[&str]) -> Result<usize> {
            let answer = self.next(question);
            Ok(answers.iter().position(|it| it.starts_with(answer)).expect(answer))
        }

        fn text(&self, question: &str, check: Check<'_>) -> Result<String> {
            let answer = self.next(question);
            check(answer).map_err(|problem| anyhow!(problem))?;
            Ok(answer.to_owned())
        }

        fn secret(&self, question: &str, check: Check<'_>) -> Result<SecretString> {
            self.text(question, check).map(SecretString::from)
        }
    }

    fn find(
        options: &[&str],
        env: &[(&str, &str)],
        answers: Option<&[&'static str]>,
    ) -> Result<Answers> {
        let arguments: Arguments = arguments(options)?;
        let env = |name: &str| {
            let set = env.iter().find(|(set, _)| *set == name);
            set.map(|(_, value)| (*value).to_owned())
        };
        let script = answers.map(|answers| Script(RefCell::new(answers.to_vec())));
        let ask = script.as_ref().map(|script| script as &dyn Ask);
        let found = Answers::find(&arguments, &Environment { env: &env, api_url: None }, ask);
        assert!(found.is_err() || script.is_none_or(|it| it.0.borrow().is_empty()));
        found
    }

    fn problem(options: &[&str], env: &[(&str, &str)]) -> String {
        format!("{:#}", find(options, env, None).unwrap_err())
    }

    #[test]
    fn without_a_terminal_all_that_is_missing_is_named() {
        let all = problem(&[], &[]);
        for text in ["--repository OWNER/NAME", "--token-file FILE", "--url URL, or --polling"] {
            assert!(all.contains(text), "{all}");
        }
        let some = problem(&["--repository", "acme/app"], &[("GITHUB_TOKEN", "t")]);
        assert!(some.contains("--polling") && !some.contains("--repository"), "{some}");
    }

    #[test]
    fn flags_and_the_environment_answer_everything() {
        let env = [("GITHUB_TOKEN", "sesame"), ("GITHUB_WEBHOOK_URL", "https://h.example.com")];
        let found = find(&["--organization", "acme"], &env, None).unwrap();
        assert_eq!(found.place.patterns(), ["acme/*"]);
        assert!(matches!(found.credential, Credential::Token(_)));
        let url = "https://h.example.com/webhooks/github".to_owned();
        assert_eq!(found.edge, Edge::Proxy { url });
        let files = [File::Configuration, File::Token, File::WebhookSecret, File::Envoy];
        assert_eq!(found.files(), files);
    }

    #[test]
    fn a_person_is_asked_for_what_flags_leave_out() {
        let answers =
            ["A repository", "acme/app", "Paste", "sesame", "Through", "https://h.example.com"];
        let found = find(&[], &[], Some(&answers)).unwrap();
        assert_eq!(found.place.patterns(), ["acme/app"]);
        assert_eq!(found.edge.url(), Some("https://h.example.com/webhooks/github"));

        let answers = ["An organization", "acme", "Register", "Not at all", "acme/app, acme/lib"];
        let found = find(&[], &[], Some(&answers)).unwrap();
        assert_eq!(found.place.patterns(), ["acme/app", "acme/lib"]);
        assert!(matches!(found.credential, Credential::App));
        assert_eq!(found.files(), [File::Configuration, File::AppKey]);

        let found = find(&["--repository", "acme/app", "--app"], &[], Some(&["Not at all"]));
        assert_eq!(found.unwrap().edge, Edge::Polling);
    }

    #[test]
    fn answers_that_cannot_work_are_refused_with_a_reason() {
        let polling = ["--organization", "acme", "--polling"];
        let token = [("GITHUB_TOKEN", "sesame")];
        assert!(problem(&polling, &token).contains("only repositories that are named"));
        let app = ["--enterprise", "corp", "--app", "--url", "https://h.example.com"];
        assert!(problem(&app, &[]).contains("classic token"));
        let app = ["--repository", "acme/app", "--app", "--polling"];
        assert!(problem(&app, &token).contains("GITHUB_TOKEN is set"));
        let other = ["--organization", "acme", "--repository", "corp/app", "--polling"];
        assert!(problem(&other, &token).contains("corp/app does not belong"));
        let absent = ["--repository", "acme/app", "--token-file", "/nowhere/token", "--polling"];
        assert!(problem(&absent, &[]).contains("/nowhere/token: cannot read that file"));
        let quoted =
            problem(&["--repository", "acme/app", "--polling"], &[("GITHUB_TOKEN", "\"t\"")]);
        assert!(quoted.contains("without quotes"), "{quoted}");
        let no_key = problem(&["--repository", "acme/app", "--certificate", "x"], &token);
        assert!(no_key.contains("--key"), "{no_key}");
    }

    #[test]
    fn a_webhook_url_has_https_and_the_path_of_the_filter() {
        for (text, expected) in [
            ("https://h.example.com", "https://h.example.com/webhooks/github"),
            ("https://h.example.com/", "https://h.example.com/webhooks/github"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/webhooks/github"),
        ] {
            assert_eq!(webhook_url(text).as_deref(), Ok(expected));
        }
        for (text, expected) in [
            ("h.example.com", "begins with https://"),
            ("http://h.example.com", "over HTTPS"),
            ("https://h.example.com/hook", "its path has to be"),
            ("https://me:pw@h.example.com", "without user and password"),
        ] {
            assert!(webhook_url(text).unwrap_err().contains(expected), "{text}");
        }
    }
}
