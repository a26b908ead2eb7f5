//! Sends webhooks the way GitHub does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::RootCertStore;

use crate::delivery::PendingDelivery;
use crate::http_client::{HttpClient, HttpError};
use crate::signature;

pub(crate) struct Sender {
    client: HttpClient<HttpsConnector<HttpConnector>>,
}

/// One attempt to deliver an event, and how it ended.
pub(crate) struct DeliveryAttempt {
    pub started: Instant,
    pub duration: Duration,
    pub request_headers: BTreeMap<String, String>,
    pub status: String,
    pub status_code: u16,
    pub response_headers: BTreeMap<String, String>,
    pub response_body: Option<String>,
}

impl Sender {
    pub(crate) fn new(roots: RootCertStore) -> Self {
        Self { client: HttpClient::with_roots(roots) }
    }

    pub(crate) async fn send(
        &self,
        delivery: &PendingDelivery,
        url: &str,
        secret: &str,
        timeout: Duration,
    ) -> DeliveryAttempt {
        let started = Instant::now();
        let failed = |headers: &HeaderMap, status_code, status| DeliveryAttempt {
            started,
            duration: started.elapsed(),
            request_headers: header_map(headers),
            status,
            status_code,
            response_headers: BTreeMap::new(),
            response_body: None,
        };
        let request = match request(delivery, url, secret) {
            Ok(request) => request,
            Err(error) => return failed(&HeaderMap::new(), 502, error.to_string()),
        };
        let headers = request.headers().clone();
        if delivery.lost {
            return failed(&headers, 502, "failed to connect to host".to_owned());
        }
        match self.client.send(request, timeout).await {
            Err(error @ HttpError::Timeout) => failed(&headers, 504, error.to_string()),
            Err(error) => failed(&headers, 502, error.to_string()),
            Ok(response) => DeliveryAttempt {
                started,
                duration: started.elapsed(),
                request_headers: header_map(&headers),
                status: status_text(response.status()),
                status_code: response.status().as_u16(),
                response_headers: header_map(response.headers()),
                response_body: Some(String::from_utf8_lossy(response.body()).into_owned()),
            },
        }
    }
}

fn request(
    delivery: &PendingDelivery,
    url: &str,
    secret: &str,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let event = &delivery.event;
    Request::post(url)
        .header("user-agent", "GitHub-Hookshot/edb0a01")
        .header("accept", "*/*")
        .header("content-type", "application/json")
        .header("x-github-delivery", &event.guid)
        .header("x-github-event", event.name)
        .header("x-github-hook-id", event.hook_id)
        .header("x-github-hook-installation-target-id", event.target_id)
        .header("x-github-hook-installation-target-type", event.target_type)
        .header("x-hub-signature", signature::sha1(secret, &event.payload))
        .header("x-hub-signature-256", signature::sha256(secret, &event.payload))
        .body(Full::new(event.payload.clone()))
}

/// GitHub shows `OK` for every 2xx.
fn status_text(status: StatusCode) -> String {
    if status.is_success() {
        "OK".to_owned()
    } else {
        format!("Invalid HTTP Response: {}", status.as_u16())
    }
}

fn header_map(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers
        .iter()
        .map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}
