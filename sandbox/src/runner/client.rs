//! The runner's half of the protocol.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::Registering;
use crate::jitconfig::JitConfig;
use crate::job::Conclusion;
use crate::protocol::{
    Completion, JobMessage, OpenSession, Refusal, Registered, Renewal, SessionOpened, Written,
};

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not reached, or in no state to answer; worth another try.
    #[error("{0}")]
    Away(String),
    #[error("{0}")]
    Unauthorized(String),
    #[error("the session has ended")]
    SessionEnded,
    #[error("{0}")]
    Refused(String),
}

pub(super) struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    base: String,
    authorization: String,
}

/// Exchanges a registration token for a configuration.
pub(super) async fn register(registering: &Registering) -> Result<String, ClientError> {
    let client = Client {
        http: HttpClient::builder(TokioExecutor::new()).build_http(),
        base: format!("{}/_sandbox/runner", registering.origin),
        authorization: format!("RemoteAuth {}", registering.token),
    };
    let registered: Registered = client
        .ask(Method::POST, "register", Some(&registering.registration))
        .await
        .map_err(|error| match error {
            ClientError::SessionEnded => ClientError::Refused(
                "Http response code: NotFound from 'POST runner-registration': the token or the address is not known".to_owned(),
            ),
            other => other,
        })?
        .ok_or_else(|| ClientError::Refused("the registration has no answer".to_owned()))?;
    Ok(registered.encoded_jit_config)
}

impl Client {
    pub(super) fn new(config: &JitConfig) -> Self {
        let credentials = format!("{}:{}", config.credentials.data.client_id, config.rsa.d);
        Self {
            http: HttpClient::builder(TokioExecutor::new()).build_http(),
            base: config.credentials.data.authorization_url.clone(),
            authorization: format!("Basic {}", BASE64.encode(credentials)),
        }
    }

    pub(super) async fn open(&self, version: &str) -> Result<String, ClientError> {
        let opening = OpenSession { os: "Linux".to_owned(), version: version.to_owned() };
        let opened: Option<SessionOpened> =
            self.ask(Method::POST, "sessions", Some(&opening)).await?;
        opened
            .map(|opened| opened.session_id)
            .ok_or_else(|| ClientError::Refused("the session has no id".to_owned()))
    }

    /// `None` if there was none for as long as the request was held open.
    pub(super) async fn job(&self, session: &str) -> Result<Option<JobMessage>, ClientError> {
        self.ask(Method::GET, &format!("sessions/{session}/job"), None::<&()>).await
    }

    pub(super) async fn renew(&self, session: &str) -> Result<Renewal, ClientError> {
        let renewal =
            self.ask(Method::GET, &format!("sessions/{session}/renewal"), None::<&()>).await?;
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
        self.ask::<()>(Method::POST, &path, Some(&completion)).await?;
        Ok(())
    }

    pub(super) async fn log(
        &self,
        session: &str,
        job_id: u64,
        lines: Vec<String>,
    ) -> Result<(), ClientError> {
        let path = format!("sessions/{session}/log");
        self.ask::<()>(Method::POST, &path, Some(&Written { job_id, lines })).await?;
        Ok(())
    }

    pub(super) async fn close(&self, session: &str) -> Result<(), ClientError> {
        let path = format!("sessions/{session}");
        match self.ask::<()>(Method::DELETE, &path, None::<&()>).await {
            Ok(_) | Err(ClientError::SessionEnded | ClientError::Unauthorized(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Option<T>, ClientError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(refused)?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.base))
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "edgerunner-sandbox-runner")
            .body(Full::new(Bytes::from(body)))
            .map_err(refused)?;
        let response = self.http.request(request).await.map_err(away)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(away)?.to_bytes();
        if status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map(Some).map_err(refused);
        }
        let why = serde_json::from_slice(&body)
            .map_or_else(|_| status.to_string(), |refusal: Refusal| refusal.error);
        Err(match status {
            StatusCode::UNAUTHORIZED => ClientError::Unauthorized(why),
            StatusCode::NOT_FOUND => ClientError::SessionEnded,
            // The real runner also waits for its former session to lapse.
            StatusCode::CONFLICT => ClientError::Away(why),
            _ if status.is_server_error() => ClientError::Away(why),
            _ => ClientError::Refused(why),
        })
    }
}

fn away(error: impl std::error::Error) -> ClientError {
    ClientError::Away(error.to_string())
}

fn refused(error: impl std::error::Error) -> ClientError {
    ClientError::Refused(error.to_string())
}
