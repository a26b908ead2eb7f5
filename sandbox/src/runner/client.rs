//! The runner's side of the runner protocol.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::client::legacy::connect::HttpConnector;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::config::TokenRegistration;
use crate::assertion::{self, Padding};
use crate::http_client::HttpClient;
use crate::jit_config::JitConfig;
use crate::job::Conclusion;
use crate::protocol::{
    ASSERTION_TYPE, Acknowledgement, AcquireJob, Agent, BrokerSession, CompleteJob, ErrorKind,
    ErrorResponse, JobMessage, JobReference, JobRenewed, Message, POLL_TIMEOUT,
    RegistrationResponse, RenewJob, SANDBOX_VARIABLE, ServiceError, TokenError, TokenResponse,
};

/// Longer than the broker holds any request open.
const TIMEOUT: Duration = POLL_TIMEOUT.saturating_add(Duration::from_secs(30));
/// Names this process, so that the sandbox knows when another one uses its configuration.
static USER_AGENT: LazyLock<String> =
    LazyLock::new(|| format!("edgerunner-sandbox-runner ({})", uuid::Uuid::new_v4()));

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// GitHub is unreachable or temporarily unavailable; retry.
    #[error("{0}")]
    Unavailable(String),
    /// The registration was removed.
    #[error("{0}")]
    NotRegistered(String),
    /// GitHub no longer accepts this version of the runner.
    #[error("{0}")]
    VersionTooOld(String),
    #[error("the session has ended")]
    SessionEnded,
    /// GitHub no longer wants this runner to run the job.
    #[error("{0}")]
    JobNotFound(String),
    #[error("{0}")]
    Rejected(String),
}

pub(super) struct Client<'a> {
    http: HttpClient<HttpConnector>,
    config: &'a JitConfig,
    version: &'static str,
    /// The current access token.
    token: Mutex<Option<String>>,
}

/// A job that the run service has handed out.
pub(super) struct AcquiredJob {
    pub(super) job: JobMessage,
    run_service_url: String,
    plan_id: String,
    job_id: String,
    /// The job's own access token.
    token: String,
    results_url: String,
}

/// Exchanges a registration token for a configuration.
pub(super) async fn register(registration: &TokenRegistration) -> Result<String, ClientError> {
    let request = Request::post(format!("{}/_sandbox/runner/register", registration.origin))
        .header(header::AUTHORIZATION, format!("RemoteAuth {}", registration.token))
        .header(header::CONTENT_TYPE, "application/json");
    let body = serde_json::to_vec(&registration.request).map_err(rejected)?;
    let http = HttpClient::without_tls();
    let response = send(&http, request, body).await?;
    if response.status == StatusCode::NOT_FOUND {
        return Err(ClientError::Rejected(
            "Http response code: NotFound from 'POST runner-registration': unknown registration token or URL".to_owned(),
        ));
    }
    if !response.status.is_success() {
        let message = serde_json::from_slice(&response.body)
            .map_or_else(|_| response.status.to_string(), |it: ErrorResponse| it.error);
        return Err(match response.status {
            status if status.is_server_error() => ClientError::Unavailable(message),
            _ => ClientError::Rejected(message),
        });
    }
    let response: RegistrationResponse =
        serde_json::from_slice(&response.body).map_err(rejected)?;
    Ok(response.encoded_jit_config)
}

impl<'a> Client<'a> {
    pub(super) fn new(config: &'a JitConfig, version: &'static str) -> Self {
        Self { http: HttpClient::without_tls(), config, version, token: Mutex::new(None) }
    }

    /// Opens a session, and returns its id.
    pub(super) async fn open(&self) -> Result<String, ClientError> {
        let runner = &self.config.runner;
        let session = BrokerSession {
            session_id: uuid::Uuid::nil().to_string(),
            owner_name: format!("{} (PID: {})", runner.agent_name, std::process::id()),
            agent: Agent {
                id: runner.agent_id.parse().map_err(rejected)?,
                name: runner.agent_name.clone(),
                version: self.version.to_owned(),
                os_description: "Linux".to_owned(),
                ephemeral: runner.is_ephemeral(),
            },
            use_fips_encryption: false,
        };
        let opened: BrokerSession =
            self.call(Method::POST, &self.broker("session"), Some(&session)).await?;
        Ok(opened.session_id)
    }

    pub(super) async fn close(&self) -> Result<(), ClientError> {
        match self.call::<Option<Value>>(Method::DELETE, &self.broker("session"), NOTHING).await {
            Ok(_) | Err(ClientError::SessionEnded | ClientError::NotRegistered(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits for a message. Returns `None` if there was none while the request was held open.
    pub(super) async fn message(
        &self,
        session: &str,
        busy: bool,
    ) -> Result<Option<Message>, ClientError> {
        let status = if busy { "Busy" } else { "Online" };
        let version = self.version;
        let query = format!(
            "message?sessionId={session}&status={status}&runnerVersion={version}&os=Linux&architecture=X64&disableUpdate=true"
        );
        self.call(Method::GET, &self.broker(&query), NOTHING).await
    }

    pub(super) async fn acknowledge(
        &self,
        session: &str,
        job: &JobReference,
    ) -> Result<(), ClientError> {
        let version = self.version;
        let query = format!(
            "acknowledge?sessionId={session}&status=Online&runnerVersion={version}&os=Linux&architecture=X64"
        );
        let body = Acknowledgement { runner_request_id: job.runner_request_id.clone() };
        self.call::<Option<Value>>(Method::POST, &self.broker(&query), Some(&body)).await?;
        Ok(())
    }

    pub(super) async fn acquire(&self, job: JobReference) -> Result<AcquiredJob, ClientError> {
        let JobReference { run_service_url, runner_request_id, .. } = job;
        let body = AcquireJob { job_message_id: runner_request_id };
        let url = format!("{run_service_url}acquirejob");
        let message: Value = self.call(Method::POST, &url, Some(&body)).await?;
        let text = |pointer: &str| {
            let value = message.pointer(pointer).and_then(Value::as_str);
            value
                .map(str::to_owned)
                .ok_or_else(|| ClientError::Rejected(format!("the job message has no {pointer}")))
        };
        let for_sandbox = text(&format!("/variables/{SANDBOX_VARIABLE}/value"))?;
        Ok(AcquiredJob {
            job: serde_json::from_str(&for_sandbox).map_err(rejected)?,
            plan_id: text("/plan/planId")?,
            job_id: text("/jobId")?,
            token: text("/resources/endpoints/0/authorization/parameters/AccessToken")?,
            results_url: text("/variables/system.github.results_endpoint/value")?,
            run_service_url,
        })
    }

    pub(super) async fn renew(&self, job: &AcquiredJob) -> Result<(), ClientError> {
        let body = RenewJob { plan_id: job.plan_id.clone(), job_id: job.job_id.clone() };
        let url = format!("{}renewjob", job.run_service_url);
        self.call_with::<JobRenewed>(&job.token, Method::POST, &url, Some(&body)).await?;
        Ok(())
    }

    pub(super) async fn complete(
        &self,
        job: &AcquiredJob,
        conclusion: Conclusion,
    ) -> Result<(), ClientError> {
        let body = CompleteJob {
            plan_id: job.plan_id.clone(),
            job_id: job.job_id.clone(),
            conclusion: result(conclusion).into(),
        };
        let url = format!("{}completejob", job.run_service_url);
        self.call_with::<Option<Value>>(&job.token, Method::POST, &url, Some(&body)).await?;
        Ok(())
    }

    /// Appends lines to the step's log.
    pub(super) async fn log(&self, job: &AcquiredJob, lines: &[String]) -> Result<(), ClientError> {
        let method = "twirp/results.services.receiver.Receiver/GetStepLogsSignedBlobURL";
        let body = json!({
            "workflow_run_backend_id": job.plan_id,
            "workflow_job_run_backend_id": job.job_id,
            "step_backend_id": uuid::Uuid::nil().to_string(),
        });
        let url = format!("{}{method}", job.results_url);
        let signed: Value = self.call_with(&job.token, Method::POST, &url, Some(&body)).await?;
        let url = signed["logs_url"].as_str().unwrap_or_default();
        let request = Request::put(format!("{url}&comp=appendblock"));
        let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let response = send(&self.http, request, text.into_bytes()).await?;
        match response.status.is_success() {
            true => Ok(()),
            false => Err(error_of(&response)),
        }
    }

    fn broker(&self, path: &str) -> String {
        format!("{}/{path}", self.config.runner.server_url_v2.trim_end_matches('/'))
    }

    /// A call with the runner's own token, which is renewed if it is rejected.
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let known = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(token) = known {
            match self.call_with(&token, method.clone(), url, body).await {
                Err(ClientError::NotRegistered(_)) => {}
                other => return other,
            }
        }
        let token = self.new_token().await?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        self.call_with(&token, method, url, body).await
    }

    async fn call_with<T: DeserializeOwned>(
        &self,
        token: &str,
        method: Method,
        url: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json");
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(rejected)?,
            None => Vec::new(),
        };
        let response = send(&self.http, request, body).await?;
        if !response.status.is_success() {
            return Err(error_of(&response));
        }
        let json = if response.body.is_empty() { b"null" } else { &*response.body };
        serde_json::from_slice(json).map_err(rejected)
    }

    async fn new_token(&self) -> Result<String, ClientError> {
        let data = &self.config.credentials.data;
        let padding = match data.require_fips_cryptography.eq_ignore_ascii_case("true") {
            true => Padding::Pss,
            false => Padding::Pkcs1,
        };
        let url = &data.authorization_url;
        let assertion =
            assertion::sign(&self.config.rsa, padding, &data.client_id, url).map_err(rejected)?;
        let request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        // Neither needs escaping in a form, except for the colons, which are allowed as they are.
        let form = format!(
            "grant_type=client_credentials&client_assertion_type={ASSERTION_TYPE}&client_assertion={assertion}"
        );
        let response = send(&self.http, request, form.into_bytes()).await?;
        if response.status.is_success() {
            let token: TokenResponse = serde_json::from_slice(&response.body).map_err(rejected)?;
            return Ok(token.access_token);
        }
        match serde_json::from_slice::<TokenError>(&response.body) {
            Ok(error) if error.error == "invalid_client" => {
                Err(ClientError::NotRegistered(REGISTRATION_DELETED.to_owned()))
            }
            Ok(error) => Err(ClientError::Rejected(error.error_description)),
            Err(_) => Err(error_of(&response)),
        }
    }
}

const NOTHING: Option<&()> = None;
const REGISTRATION_DELETED: &str =
    "The runner registration has been deleted from the server, please re-configure.";

struct Response {
    status: StatusCode,
    body: Bytes,
}

async fn send(
    http: &HttpClient<HttpConnector>,
    request: http::request::Builder,
    body: Vec<u8>,
) -> Result<Response, ClientError> {
    let request = request
        .header(header::USER_AGENT, USER_AGENT.as_str())
        .body(Full::new(Bytes::from(body)))
        .map_err(rejected)?;
    let response = http
        .send(request, TIMEOUT)
        .await
        .map_err(|error| ClientError::Unavailable(error.to_string()))?;
    Ok(Response { status: response.status(), body: response.into_body() })
}

fn error_of(response: &Response) -> ClientError {
    let error = serde_json::from_slice::<ServiceError>(&response.body).ok();
    let kind = error.as_ref().and_then(|error| error.error_kind);
    let message = error.map_or_else(|| response.status.to_string(), |error| error.error_message);
    match (response.status, kind) {
        (_, Some(ErrorKind::RunnerNotFound)) => {
            ClientError::NotRegistered("The runner no longer exists on the server.".to_owned())
        }
        (_, Some(ErrorKind::RunnerVersionTooOld)) => ClientError::VersionTooOld(message),
        (_, Some(ErrorKind::RunnerSessionInvalid)) => ClientError::SessionEnded,
        (StatusCode::UNAUTHORIZED, _) => ClientError::NotRegistered(message),
        // The real runner also waits until its previous session has expired.
        (StatusCode::CONFLICT, _) => ClientError::Unavailable(message),
        (StatusCode::NOT_FOUND, _) => ClientError::JobNotFound(message),
        (status, _) if status.is_server_error() => ClientError::Unavailable(message),
        _ => ClientError::Rejected(message),
    }
}

/// The open-source runner's name for a conclusion, if it has one.
fn result(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Success => "succeeded",
        Conclusion::Failure => "failed",
        Conclusion::Cancelled => "canceled",
        other => other.as_str(),
    }
}

fn rejected(error: impl std::fmt::Display) -> ClientError {
    ClientError::Rejected(error.to_string())
}
