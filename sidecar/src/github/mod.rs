//! The part of GitHub's REST API that runners need.

mod budget;
mod client;
pub(crate) mod clients;
mod deliveries;
mod error;
mod etag_cache;
mod groups;
mod identity;
mod page;
mod pause;
mod proxy;
mod rate_limit;
mod registration;
mod runs;
mod secret;
#[cfg(test)]
mod tests;
mod tls;
mod token_cache;
mod token_info;
mod webhook_id;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use self::budget::Budget;
use self::client::{Answer, Client};
pub(crate) use self::deliveries::Delivery;
pub(crate) use self::error::{Cause, Error};
use self::groups::Groups;
pub(crate) use self::identity::{Identity, private_key_problem};
pub(crate) use self::proxy::Proxy;
pub(crate) use self::runs::{ListedJob, RunStatus};
pub(crate) use self::secret::Secret;
pub(crate) use self::tls::client_config;
pub(crate) use self::tls::{Certificates, read_ca};
use self::token_cache::TokenCache;
pub(crate) use self::token_info::{Rights, TokenInfo};
pub(crate) use self::webhook_id::WebhookId;
pub(crate) use self::webhooks::Webhook;
use edgerunner_scheduler::model::Target;

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(crate) struct Settings {
    /// Of the credential, in metrics.
    pub name: String,
    /// `https://api.github.com`, or `https://<host>/api/v3` of an Enterprise Server.
    pub api_url: String,
    pub identity: Identity,
    /// Of CAs that are trusted beside the system's.
    pub ca: Certificates,
    /// For an `api_url` with TLS.
    pub proxy: Option<Proxy>,
    /// For one call, from sending to the end of its answer.
    pub timeout: Duration,
}

#[derive(Clone)]
pub(crate) struct GitHub {
    client: Client,
    registration_tokens: Arc<TokenCache<Target>>,
    groups: Arc<Groups>,
}

#[derive(Clone, Debug)]
pub(crate) struct NewRunner {
    pub name: String,
    /// All of them: GitHub implies none here, not even `self-hosted`.
    pub labels: Vec<String>,
    pub group: RunnerGroup,
    pub work_folder: String,
}

/// A runner group of an organization or enterprise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunnerGroup {
    /// 1 is Default, which is the only one of a repository.
    Id(u64),
    Name(String),
}

#[derive(Clone, Debug)]
pub(crate) struct JitRunner {
    pub id: u64,
    pub encoded_jit_config: SecretString,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegisteredRunner {
    pub id: u64,
    pub name: String,
    pub online: bool,
    pub busy: bool,
    pub labels: Vec<String>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page<T> {
    pub items: Vec<T>,
    /// Path of the next one.
    pub next: Option<String>,
    /// GitHub had nothing new, which cost nothing of the budget.
    pub unchanged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    Removed,
    NotFound,
    /// It runs a job: GitHub keeps it, and so must we.
    Busy,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct JobStatus {
    pub status: JobProgress,
    pub conclusion: Option<String>,
    pub runner_name: Option<String>,
    #[serde(default = "first_attempt")]
    pub run_attempt: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobProgress {
    Queued,
    InProgress,
    Completed,
    /// Held back by GitHub (`waiting`, `pending`, `requested`): needs no runner yet.
    #[serde(other)]
    Held,
}

impl GitHub {
    /// Starts a background task: call it inside a Tokio runtime.
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
        let client = Client::new(settings)?;
        let registration_tokens = Arc::new(TokenCache::new());
        Ok(Self { client, registration_tokens, groups: Arc::new(Groups::new()) })
    }

    /// Registers a runner for one job. If the answer is lost the runner may be
    /// registered all the same, under its name.
    pub(crate) async fn jit_config(
        &self,
        target: &Target,
        runner: &NewRunner,
    ) -> Result<JitRunner, Error> {
        match self.register(target, runner).await {
            Err(taken) if taken.cause == Cause::NameTaken => {
                self.free_name(target, &runner.name, taken).await?;
                self.register(target, runner).await
            }
            result => result,
        }
    }

    /// A name is made for one runner alone, so whatever bears it already is a registration
    /// whose answer was lost on its way: unless it is up.
    async fn free_name(&self, target: &Target, name: &str, taken: Error) -> Result<(), Error> {
        match self.runner_named(target, name).await? {
            Some(runner) if runner.online || runner.busy => Err(taken),
            Some(runner) => match self.remove_runner(target, runner.id).await? {
                Removal::Busy => Err(taken),
                Removal::Removed | Removal::NotFound => Ok(()),
            },
            None => Ok(()),
        }
    }

    async fn register(&self, target: &Target, runner: &NewRunner) -> Result<JitRunner, Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            name: &'a str,
            labels: &'a [String],
            runner_group_id: u64,
            work_folder: &'a str,
        }
        #[derive(Deserialize)]
        struct Reply {
            runner: Registered,
            encoded_jit_config: SecretString,
        }
        #[derive(Deserialize)]
        struct Registered {
            id: u64,
        }
        let NewRunner { name, labels, group, work_folder } = runner;
        let (runner_group_id, in_group) = match group {
            RunnerGroup::Id(id) => (*id, String::new()),
            RunnerGroup::Name(group) => {
                (self.group_id(target, group).await?, format!(" in group {group}"))
            }
        };
        let call = format!("JIT configuration of runner {name} for {target}{in_group}");
        let path = format!("{}/generate-jitconfig", runners_path(target));
        let request = Request { name, labels, runner_group_id, work_folder };
        let body = serde_json::to_vec(&request)
            .map_err(|error| Error::new(Cause::Invalid, &call, error))?;
        let answer = self.client.send(&call, Method::POST, &path, Some(body), target).await?;
        let reply = self.client.read(&call, &answer, StatusCode::CREATED);
        if let (Err(error), RunnerGroup::Name(group)) = (&reply, group)
            && matches!(error.cause, Cause::Forbidden | Cause::NotFound | Cause::Invalid)
        {
            self.groups.forget(target, group);
        }
        let Reply { runner, encoded_jit_config } = reply?;
        Ok(JitRunner { id: runner.id, encoded_jit_config })
    }

    /// Kept until GitHub refuses it.
    pub(crate) async fn group_id(&self, target: &Target, name: &str) -> Result<u64, Error> {
        self.groups.id(&self.client, target, name).await
    }

    /// Good for any number of runners until shortly before it expires, so it is
    /// kept; callers who ask at the same time share one call.
    pub(crate) async fn registration_token(&self, target: &Target) -> Result<SecretString, Error> {
        let (client, asked) = (self.client.clone(), target.clone());
        let request = || registration::request(client, asked);
        self.registration_tokens.get(target.clone(), request).await
    }

    pub(crate) async fn runners(&self, target: &Target) -> Result<Vec<RegisteredRunner>, Error> {
        self.list(&format!("list of the runners of {target}"), target, "").await
    }

    pub(crate) async fn runner_named(
        &self,
        target: &Target,
        name: &str,
    ) -> Result<Option<RegisteredRunner>, Error> {
        let call = format!("search for runner {name} of {target}");
        let found = self.list(&call, target, &format!("name={}&", segment(name))).await?;
        // An older Enterprise Server lists them all.
        Ok(found.into_iter().find(|runner| runner.name.eq_ignore_ascii_case(name)))
    }

    async fn list(
        &self,
        call: &str,
        target: &Target,
        filter: &str,
    ) -> Result<Vec<RegisteredRunner>, Error> {
        #[derive(Deserialize)]
        struct Reply {
            runners: Vec<Listed>,
        }
        #[derive(Deserialize)]
        struct Listed {
            id: u64,
            name: String,
            status: String,
            busy: bool,
            labels: Vec<Label>,
        }
        #[derive(Deserialize)]
        struct Label {
            name: String,
        }
        let path = format!("{}?{filter}per_page=100", runners_path(target));
        let pages: Vec<Reply> = self.client.pages(call, path, target).await?;
        let listed = pages.into_iter().flat_map(|page| page.runners);
        let runners = listed.map(|runner| RegisteredRunner {
            id: runner.id,
            name: runner.name,
            online: runner.status == "online",
            busy: runner.busy,
            labels: runner.labels.into_iter().map(|label| label.name).collect(),
        });
        Ok(runners.collect())
    }

    pub(crate) async fn remove_runner(&self, target: &Target, id: u64) -> Result<Removal, Error> {
        let call = format!("removal of runner {id} of {target}");
        let path = format!("{}/{id}", runners_path(target));
        let answer = self.client.send(&call, Method::DELETE, &path, None, target).await?;
        match answer.status {
            StatusCode::NO_CONTENT => Ok(Removal::Removed),
            StatusCode::NOT_FOUND => Ok(Removal::NotFound),
            StatusCode::UNPROCESSABLE_ENTITY => Ok(Removal::Busy),
            _ => Err(self.client.error(&call, &answer)),
        }
    }

    /// The addresses that webhooks come from, `ADDRESS/PREFIX_LENGTH` each.
    pub(crate) async fn webhook_addresses(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Reply {
            hooks: Vec<String>,
        }
        let (call, path) = ("GitHub's own addresses", "/meta");
        let answer = match &*self.client.tokens {
            identity::Tokens::App(app) => app.ask(&self.client, call, Method::GET, path).await?,
            identity::Tokens::Personal(token) => {
                self.client.exchange_in_time(call, &Method::GET, path, None, &token.get()).await?
            }
        };
        let reply: Reply = self.client.read(call, &answer, StatusCode::OK)?;
        Ok(reply.hooks)
    }

    /// `None`: GitHub does not have the job any more. To a token that may not read a
    /// repository's Actions GitHub denies every job in the same words; that is an error.
    pub(crate) async fn job(
        &self,
        owner: &str,
        repository: &str,
        job_id: u64,
    ) -> Result<Option<JobStatus>, Error> {
        let call = format!("status of job {job_id} of {owner}/{repository}");
        let actions = format!("{}/actions", repository_path(owner, repository));
        let path = format!("{actions}/jobs/{job_id}");
        let target = &Target::Repository { owner: owner.into(), name: repository.into() };
        let answer = self.client.send(&call, Method::GET, &path, None, target).await?;
        if answer.status == StatusCode::NOT_FOUND {
            let runs = format!("{actions}/runs?per_page=1");
            let may_read = self.client.send(&call, Method::GET, &runs, None, target).await?;
            return match may_read.status {
                StatusCode::OK => Ok(None),
                _ => Err(self.client.error(&call, &answer)),
            };
        }
        self.client.read(&call, &answer, StatusCode::OK).map(Some)
    }

    /// What is left of each budget, by account: an App has one of its own, under an empty
    /// name, and one for each account it is installed at; a token has one.
    pub(crate) fn budgets(&self) -> Vec<(String, Budget)> {
        self.client.budgets.all()
    }

    pub(crate) fn budget(&self, account: &str) -> Option<Budget> {
        self.client.budgets.of(account)
    }

    /// The account whose budget a call for a target counts against.
    pub(crate) fn account(&self, target: &Target) -> String {
        self.client.tokens.account(target)
    }

    fn page<Reply: DeserializeOwned, T>(
        &self,
        call: &str,
        answer: &Answer,
        items: impl FnOnce(Reply) -> Vec<T>,
    ) -> Result<Page<T>, Error> {
        let reply = self.client.read(call, answer, StatusCode::OK)?;
        let next = page::next(&answer.headers, self.client.base());
        let next = next.map_err(|what| Error::unexpected(call, what))?;
        Ok(Page { items: items(reply), next, unchanged: answer.unchanged })
    }
}

fn base_url(url: &str) -> Result<Uri, Error> {
    let uri: Option<Uri> = url.parse().ok();
    uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
        .filter(|uri| {
            uri.query().is_none()
                && !uri.authority().is_some_and(|name| name.as_str().contains('@'))
        })
        .ok_or_else(|| {
            Error::new(
                Cause::Invalid,
                "configuration",
                "api_url is not a URL such as https://api.github.com or https://<host>/api/v3",
            )
        })
}

fn runners_path(target: &Target) -> String {
    format!("{}/runners", actions_path(target))
}

fn actions_path(target: &Target) -> String {
    match target {
        Target::Repository { owner, name } => {
            format!("{}/actions", repository_path(owner, name))
        }
        Target::Organization(name) => format!("/orgs/{}/actions", segment(name)),
        Target::Enterprise(name) => format!("/enterprises/{}/actions", segment(name)),
    }
}

fn repository_path(owner: &str, name: &str) -> String {
    format!("/repos/{}/{}", segment(owner), segment(name))
}

fn segment(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, SEGMENT)
}

fn first_attempt() -> u32 {
    1
}
