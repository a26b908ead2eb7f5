//! Requests to the HTTP API of a running sidecar.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::block_on::block_on;
use crate::{
    config::{Config, url_problem},
    http_client::{HttpClient, HttpError},
};

const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// For a connection, and for the whole request: a person is waiting.
const LIMIT: Duration = Duration::from_secs(10);

/// A running sidecar. Changes need `server.api_token`.
#[derive(Clone)]
pub(super) struct Client {
    /// Without a trailing slash.
    url: String,
    token: Option<SecretString>,
    limit: Duration,
}

/// Checks the value of `--server`.
pub(super) fn server_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    match url_problem(url) {
        None => Ok(url.to_owned()),
        Some(problem) => Err(format!("{problem}, such as http://127.0.0.1:8081")),
    }
}

impl Client {
    /// `server`: the URL to use instead of the configured address.
    pub(super) fn new(config: &Config, server: Option<&str>) -> Self {
        let configured = || format!("http://{}", config.server.http_address);
        let url = server.map_or_else(configured, str::to_owned);
        Self { url, token: config.server.api_token.clone(), limit: LIMIT }
    }

    /// Without a trailing slash. The status page is there as well.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn get(&self, path: &str) -> Result<Value> {
        json(&self.request(Method::GET, path, None)?)
    }

    pub(super) fn text(&self, path: &str) -> Result<String> {
        let text = self.request(Method::GET, path, None)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        json(&self.request(Method::POST, path, Some(body))?)
    }

    pub(super) fn delete(&self, path: &str) -> Result<Value> {
        json(&self.request(Method::DELETE, path, None)?)
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes> {
        let url = format!("{}{path}", self.url);
        let mut request = Request::builder().method(&method).uri(&url);
        if method != Method::GET {
            let token = self.token.as_ref().context(
                "set server.api_token, SERVER_API_TOKEN or SERVER_API_TOKEN_FILE to the token \
                 that `edgerunner serve` uses",
            )?;
            let bearer = format!("Bearer {}", token.expose_secret());
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let body = match body {
            None => Full::default(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Full::from(body.to_string())
            }
        };
        block_on(self.call(&url, request.body(body)?))
    }

    /// The body of a successful response.
    async fn call(&self, url: &str, request: Request<Full<Bytes>>) -> Result<Bytes> {
        let client = HttpClient::new(request.uri(), &Vec::new(), None, self.limit);
        let client = client.map_err(|problem| anyhow!(problem))?;
        let response = client.send_within(self.limit, request, RESPONSE_BYTES_MAX).await;
        let response = match response {
            Ok(response) => response,
            Err(error @ HttpError::TimedOut(_)) => {
                return Err(error).with_context(|| {
                    format!(
                        "no response from {url} in time: `edgerunner serve` hangs or is \
                             overloaded, or something else listens there; check its log"
                    )
                });
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "no response from {url}: is `edgerunner serve` running, and is this \
                             its server.http_address? Name another with --server"
                    )
                });
            }
        };
        let (status, body) = (response.status(), response.into_body());
        if status.is_success() {
            return Ok(body);
        }
        let response = serde_json::from_slice::<Value>(&body).ok();
        match response.as_ref().and_then(|response| response["error"].as_str()) {
            Some(error) => bail!("{error} ({status} from {url})"),
            None => bail!("{status} from {url}: is edgerunner listening there?"),
        }
    }
}

fn json(body: &[u8]) -> Result<Value> {
    serde_json::from_slice(body).context("the sidecar's response is not JSON")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_sidecar_that_does_not_answer_is_named_after_the_time_limit() {
        // Connections are accepted by the system, and nobody reads them.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = Config::load(None, &|_| None).unwrap();
        let client = Client::new(&config, Some(&url));
        assert_eq!(client.limit, LIMIT);
        let client = Client { limit: Duration::from_millis(50), ..client };
        let error = format!("{:#}", client.get("/api/v1/status").unwrap_err());
        assert!(error.contains(&format!("{url}/api/v1/status")), "{error}");
        assert!(error.contains("in time") && error.contains("no answer within 50ms"), "{error}");
    }

    #[test]
    fn a_server_is_named_by_an_http_or_https_url() {
        assert_eq!(server_url("http://edge:8081/").unwrap(), "http://edge:8081");
        assert_eq!(
            server_url("https://edge.example/runners").unwrap(),
            "https://edge.example/runners"
        );
        for wrong in ["edge:8081", "127.0.0.1:8081", "ftp://edge", "http://me:pw@edge", ""] {
            assert!(server_url(wrong).is_err(), "{wrong}");
        }
    }
}
