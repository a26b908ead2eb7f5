//! The runner's side of the runner protocol.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::client::legacy::connect::HttpConnector;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::TokenRegistration;
use crate::http_client::HttpClient;
use crate::jit_config::JitConfig;
use crate::job::Conclusion;
use crate::protocol::{
    Completion, ErrorResponse, JobMessage, LogLines, OpenSession, POLL_TIMEOUT,
    RegistrationResponse, Renewal, SessionOpened,
};

/// Longer than the sandbox holds any request open.
const TIMEOUT: Duration = POLL_TIMEOUT.saturating_add(Duration::from_secs(30));

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// GitHub is unreachable or temporarily unavailable; retry.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Unauthorized(String),
    #[error("the session has ended")]
    SessionEnded,
    #[error("{0}")]
    Rejected(String),
}

pub(super) struct Client {
    http: HttpClient<HttpConnector>,
    base: String,
    authorization: String,
}

/// Exchanges a registration token for a configuration.
pub(super) async fn register(registration: &TokenRegistration) -> Result<String, ClientError> {
    let client = Client {
        http: HttpClient::without_tls(),
        base: format!("{}/_sandbox/runner", registration.origin),
        authorization: format!("RemoteAuth {}", registration.token),
    };
    let response: RegistrationResponse = client
        .call(Method::POST, "register", Some(&registration.request))
        .await
        .map_err(|error| match error {
            ClientError::SessionEnded => ClientError::Rejected(
                "Http response code: NotFound from 'POST runner-registration': unknown registration token or URL".to_owned(),
            ),
            other => other,
        })?
        .ok_or_else(|| ClientError::Rejected("the registration response is empty".to_owned()))?;
    Ok(response.encoded_jit_config)
}

impl Client {
    pub(super) fn new(config: &JitConfig) -> Self {
        let credentials = format!("{}:{}", config.credentials.data.client_id, config.rsa.d);
        Self {
            http: HttpClient::without_tls(),
            base: config.credentials.data.authorization_url.clone(),
            authorization: format!("Basic {}", BASE64.encode(credentials)),
        }
    }

    pub(super) async fn open(&self, version: &str) -> Result<String, ClientError> {
        let opening = OpenSession { os: "Linux".to_owned(), version: version.to_owned() };
        let opened: Option<SessionOpened> =
            self.call(Method::POST, "sessions", Some(&opening)).await?;
        opened
            .map(|opened| opened.session_id)
            .ok_or_else(|| ClientError::Rejected("the session response is empty".to_owned()))
    }

    /// Waits for a job. Returns `None` if none was assigned while the request was held open.
    pub(super) async fn job(&self, session: &str) -> Result<Option<JobMessage>, ClientError> {
        self.call(Method::GET, &format!("sessions/{session}/job"), None::<&()>).await
    }

    pub(super) async fn renew(&self, session: &str) -> Result<Renewal, ClientError> {
        let renewal =
            self.call(Method::GET, &format!("sessions/{session}/renewal"), None::<&()>).await?;
        Ok(renewal.unwrap_or(Renewal { cancelled: false }))
    }

    pub(super) async fn complete(
        &self,
        session: &str,
        job_id: u64,
        conclusion: Conclusion,
    ) -> Result<(), ClientError> {
        let path = format!("sessions/{session}/complete");
        let completion = Completion { job_id, conclusion };
        self.call::<()>(Method::POST, &path, Some(&completion)).await?;
        Ok(())
    }

    pub(super) async fn log(
        &self,
        session: &str,
        job_id: u64,
        lines: Vec<String>,
    ) -> Result<(), ClientError> {
        let path = format!("sessions/{session}/log");
        self.call::<()>(Method::POST, &path, Some(&LogLines { job_id, lines })).await?;
        Ok(())
    }

    pub(super) async fn close(&self, session: &str) -> Result<(), ClientError> {
        let path = format!("sessions/{session}");
        match self.call::<()>(Method::DELETE, &path, None::<&()>).await {
            Ok(_) | Err(ClientError::SessionEnded | ClientError::Unauthorized(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Option<T>, ClientError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(rejected)?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.base))
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "edgerunner-sandbox-runner")
            .body(Full::new(Bytes::from(body)))
            .map_err(rejected)?;
        let response = self
            .http
            .send(request, TIMEOUT)
            .await
            .map_err(|error| ClientError::Unavailable(error.to_string()))?;
        let (status, body) = (response.status(), response.into_body());
        if status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map(Some).map_err(rejected);
        }
        let message = serde_json::from_slice(&body)
            .map_or_else(|_| status.to_string(), |response: ErrorResponse| response.error);
        Err(match status {
            StatusCode::UNAUTHORIZED => ClientError::Unauthorized(message),
            StatusCode::NOT_FOUND => ClientError::SessionEnded,
            // The real runner also waits until its previous session has expired.
            StatusCode::CONFLICT => ClientError::Unavailable(message),
            _ if status.is_server_error() => ClientError::Unavailable(message),
            _ => ClientError::Rejected(message),
        })
    }
}

fn rejected(error: impl std::error::Error) -> ClientError {
    ClientError::Rejected(error.to_string())
}
