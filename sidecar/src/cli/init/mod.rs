//! `edgerunner init`: asks for what `serve` and Envoy need, and writes their files. It changes no
//! file that exists.

mod answers;
mod app;
mod configuration;
mod envoy_files;
mod files;
mod form;
mod next_steps;
mod place;

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use ring::rand::{SystemRandom, generate};
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    ask::{Ask, Terminal},
    block_on::block_on,
    check,
    output::print,
};
use crate::{
    config::{Config, ConfigErrors, CredentialConfig, private_key_problem},
    github::GitHub,
};
use answers::{Answers, Credential, Edge};
use files::{File, NewFiles};
use place::Place;

/// Asks for what you leave out if there is a terminal.
#[derive(Args)]
pub(super) struct Arguments {
    /// Repository whose jobs to run. Repeat it for several.
    #[arg(long = "repository", value_name = "OWNER/NAME", value_parser = place::repository)]
    repositories: Vec<String>,
    /// Organization in which to register runners, for jobs of all its repositories or of those
    /// named with --repository.
    #[arg(long, value_name = "LOGIN", value_parser = place::login)]
    organization: Option<String>,
    /// Enterprise in which to register runners. It needs a classic token.
    #[arg(long, value_name = "SLUG", value_parser = place::login, conflicts_with = "organization")]
    enterprise: Option<String>,
    /// File that contains a token. The configuration will name it. Without it, the variable
    /// GITHUB_TOKEN is used if it is set.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Register a GitHub App with your browser, instead of using a token.
    #[arg(long, conflicts_with = "token_file")]
    app: bool,
    /// Port on 127.0.0.1 of the page that registers the App. By default, a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Public URL that GitHub sends webhooks to. Defaults to the variable GITHUB_WEBHOOK_URL.
    #[arg(long, value_name = "URL", value_parser = answers::webhook_url)]
    url: Option<String>,
    /// Certificate for that URL (PEM, with the whole chain), if Envoy is to terminate TLS itself.
    /// Without it, a tunnel or a proxy in front of Envoy does.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// GitHub cannot reach this machine: find jobs by polling alone, in the repositories that you
    /// name. They start up to some minutes later than with webhooks.
    #[arg(long, conflicts_with_all = ["url", "certificate"])]
    polling: bool,
    /// Directory to write to. It is created if it is missing.
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    directory: PathBuf,
    /// Base URL of GitHub's REST API. Defaults to the variable GITHUB_API_URL, then to
    /// https://api.github.com.
    #[arg(long, value_name = "URL")]
    api_url: Option<String>,
}

/// The environment, without what would stand in the way of the credential that is asked for.
struct Environment<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    api_url: Option<&'a str>,
}

impl Environment<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// The configuration of the environment alone, with this token.
    fn config(&self, token: &str) -> Result<Config> {
        let env = |name: &str| match name {
            "GITHUB_TOKEN" => Some(token.to_owned()),
            "GITHUB_TOKEN_FILE" | "GITHUB_APP_ID" => None,
            "GITHUB_APP_PRIVATE_KEY" | "GITHUB_APP_PRIVATE_KEY_FILE" => None,
            "GITHUB_API_URL" => self.api_url.map(str::to_owned).or_else(|| (self.env)(name)),
            _ => (self.env)(name),
        };
        Config::load(None, &env).map_err(invalid)
    }

    /// How to reach GitHub, and a token for it.
    fn credential(&self, token: &str) -> Result<(Config, CredentialConfig)> {
        let config = self.config(token)?;
        let credential = config.credentials.last().cloned();
        let credential = credential.context("the environment has no credential for GitHub")?;
        Ok((config, credential))
    }
}

fn invalid(errors: ConfigErrors) -> anyhow::Error {
    anyhow::Error::new(errors).context("invalid configuration")
}

impl Arguments {
    pub(super) fn run(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        let terminal = Terminal::find();
        let ask = terminal.as_ref().map(|terminal| terminal as &dyn Ask);
        let environment = Environment { env, api_url: self.api_url.as_deref() };
        let new = NewFiles::in_directory(&self.directory)?;
        // Before any question: it is always written.
        new.must_be_absent(&[File::Configuration])?;
        let answers = Answers::find(self, &environment, ask)?;
        new.must_be_absent(&answers.files())?;
        new.must_be_writable()?;
        envoy_files::check(&answers.edge, &new)?;
        let written = self.write(&answers, &environment, new)?;
        print(&written)
    }

    /// Gets the credential, writes all files, and checks them. Returns what to say.
    fn write(
        &self,
        answers: &Answers,
        environment: &Environment<'_>,
        mut new: NewFiles,
    ) -> Result<String> {
        // A token is needed only to have the rest read.
        let (config, server) = environment.credential("unused")?;
        let mut app_page = None;
        let (token_file, app_id, webhook_secret) = match &answers.credential {
            Credential::Token(token) => {
                test_token(environment, token, &answers.place)?;
                let file = new.add_secret(File::Token, token.expose_secret());
                (Some(file), None, None)
            }
            Credential::TokenFile { path, token } => {
                test_token(environment, token, &answers.place)?;
                (Some(path.clone()), None, None)
            }
            Credential::App => {
                let app = app::register(answers, &server, config.github.timeout(), self.port)?;
                if let Some(problem) = private_key_problem(&app.pem) {
                    bail!(
                        "GitHub has registered the App, but its private key is unusable: {problem}"
                    );
                }
                new.add_secret(File::AppKey, app.pem.expose_secret());
                app_page = Some(app.html_url);
                (None, Some(app.id), app.webhook_secret)
            }
        };
        if !matches!(answers.edge, Edge::Polling) {
            let secret = match webhook_secret {
                Some(secret) => secret,
                None => random_secret()?,
            };
            new.add_secret(File::WebhookSecret, secret.expose_secret());
        }
        envoy_files::add(&answers.edge, &mut new)?;
        let text =
            configuration::text(answers, &config.github, token_file.as_deref(), app_id, &new)?;
        new.add(File::Configuration, text);
        let written = new.write()?;

        let file = written.path(File::Configuration);
        let checked =
            Config::load_on_this_machine(Some(&file), environment.env, &super::variables());
        let valid = match checked {
            Ok(config) => check::describe(&config, Some(&file)),
            // The key of an App cannot be fetched again.
            Err(errors) if app_id.is_some() => {
                let kept = format!(
                    "the files are in {}, but the configuration is not valid",
                    written.directory().display()
                );
                return Err(anyhow::Error::new(errors).context(kept));
            }
            Err(errors) => {
                written.remove();
                return Err(invalid(errors).context("nothing was written"));
            }
        };
        Ok(next_steps::text(answers, &written, app_page.as_deref(), &valid))
    }
}

/// Fails unless GitHub lets the token register runners. It registers none.
fn test_token(environment: &Environment<'_>, token: &SecretString, place: &Place) -> Result<()> {
    let (config, credential) = environment.credential(token.expose_secret())?;
    let tested = block_on(async {
        let github = GitHub::new(&credential, config.github.timeout())?;
        github.token_info().await?;
        for target in place.targets() {
            github.registration_token(&target).await?;
        }
        Ok(())
    });
    tested.context("nothing was written")
}

fn random_secret() -> Result<SecretString> {
    Ok(hex::encode(random()?).into())
}

fn random() -> Result<[u8; 32]> {
    let random = generate::<[u8; 32]>(&SystemRandom::new());
    Ok(random.map_err(|_| anyhow!("the system has no random numbers"))?.expose())
}
