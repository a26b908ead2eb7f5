//! Registration of a GitHub App from a manifest: calls that need no token.

use std::{
    fmt::Display,
    time::{Duration, SystemTime},
};

use http::{Method, Request, StatusCode, Uri, header, uri::InvalidUri};
use http_body_util::Full;
use secrecy::SecretString;
use serde::{Deserialize, de::DeserializeOwned};

use super::{Error, ErrorKind, path, response::Response};
use crate::{
    config::CredentialConfig,
    http_client::{HttpClient, HttpError, USER_AGENT},
};

/// An App has a key of 2 KB and a description.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// A GitHub App that GitHub has just registered. GitHub shows the secrets only once.
#[derive(Deserialize)]
pub(crate) struct NewApp {
    pub id: u64,
    /// Its page, below which it can be installed.
    pub html_url: String,
    /// The private key.
    pub pem: SecretString,
    /// `None` if the App has no webhook.
    pub webhook_secret: Option<SecretString>,
}

/// Whether an account is an organization, not a person. GitHub wants no token for that.
pub(crate) async fn is_organization(
    server: &CredentialConfig,
    login: &str,
    timeout: Duration,
) -> Result<bool, Error> {
    #[derive(Deserialize)]
    struct Reply {
        r#type: String,
    }
    let call = format!("looking up the account {login}");
    let path = format!("/users/{}", path::segment(login));
    let response = send(server, &call, Method::GET, &path, timeout).await?;
    match response.status {
        StatusCode::OK => read::<Reply>(&call, &response).map(|it| it.r#type == "Organization"),
        StatusCode::NOT_FOUND => {
            let problem = "GitHub has no such account (404); check the name";
            Err(Error::new(ErrorKind::NotFound, &call, problem))
        }
        _ => Err(Error::from_response(&call, &response, false, SystemTime::now())),
    }
}

/// Exchanges the code that GitHub sent along with the browser. GitHub wants no token for that.
pub(crate) async fn register_app(
    server: &CredentialConfig,
    code: &str,
    timeout: Duration,
) -> Result<NewApp, Error> {
    let call = "registering the GitHub App";
    let path = format!("/app-manifests/{}/conversions", path::segment(code));
    let response = send(server, call, Method::POST, &path, timeout).await;
    let response = response.map_err(|error| error.redacted(code))?;
    match response.status {
        StatusCode::CREATED => read(call, &response),
        StatusCode::NOT_FOUND => {
            let problem = "GitHub does not know the code (404): it is used up, older than an hour, \
                           or incomplete; begin again";
            Err(Error::new(ErrorKind::NotFound, call, problem))
        }
        _ => {
            let error = Error::from_response(call, &response, false, SystemTime::now());
            Err(error.redacted(code))
        }
    }
}

/// Sends a request without a token: that of `server` is not used.
async fn send(
    server: &CredentialConfig,
    call: &str,
    method: Method,
    path: &str,
    timeout: Duration,
) -> Result<Response, Error> {
    let invalid = |problem: &dyn Display| Error::new(ErrorKind::Invalid, call, problem);
    let url = format!("{}{path}", server.api_url.trim_end_matches('/'));
    let url: Uri = url.parse().map_err(|error: InvalidUri| invalid(&error))?;
    let client = HttpClient::new(&url, &server.ca, server.proxy.as_ref(), timeout)
        .map_err(|problem| invalid(&problem))?;
    let request = Request::builder()
        .method(method)
        .uri(&url)
        .header(header::ACCEPT, "application/vnd.github+json")
        .header(header::USER_AGENT, USER_AGENT)
        .header("x-github-api-version", "2022-11-28")
        .header(header::CONTENT_LENGTH, 0)
        .body(Full::default())
        .map_err(|error| invalid(&error))?;
    match client.send_within(timeout, request, RESPONSE_BYTES_MAX).await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            Ok(Response {
                status: head.status,
                headers: head.headers,
                body,
                unchanged: false,
                moved: None,
                token: SecretString::default(),
            })
        }
        Err(HttpError::TimedOut(limit)) => Err(Error::timed_out(call, limit)),
        Err(error) => Err(Error::unreachable(call, &error)),
    }
}

fn read<T: DeserializeOwned>(call: &str, response: &Response) -> Result<T, Error> {
    serde_json::from_slice(&response.body).map_err(|error| {
        // serde's message may quote a value, and the body may have a private key.
        let (line, column) = (error.line(), error.column());
        let problem =
            format_args!("a body that GitHub does not document (line {line}, column {column})");
        Error::unexpected(call, problem)
    })
}
