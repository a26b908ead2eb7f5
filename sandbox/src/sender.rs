//! Sends webhooks the way GitHub does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::Utc;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};

use crate::delivery::{Delivery, Outgoing};
use crate::state::State;

/// So much of an answer is kept.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

pub(crate) struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What became of one attempt.
pub(crate) struct Sent {
    started: Instant,
    request_headers: BTreeMap<String, String>,
    status: String,
    status_code: u16,
    response_headers: BTreeMap<String, String>,
    response_body: Option<String>,
    duration: Duration,
}

impl Sender {
    pub(crate) fn new(roots: RootCertStore) -> Self {
        let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Self { client: Client::builder(TokioExecutor::new()).build(connector.build()) }
    }

    pub(crate) async fn send(
        &self,
        out: &Outgoing,
        url: &str,
        secret: &str,
        timeout: Duration,
    ) -> Sent {
        let started = Instant::now();
        let request = match request(out, url, secret) {
            Ok(request) => request,
            Err(error) => return Sent::failed(started, HeaderMap::new(), 502, error.to_string()),
        };
        let headers = request.headers().clone();
        if out.lost {
            let status = "failed to connect to host".to_owned();
            return Sent::failed(started, headers, 502, status);
        }
        let exchange = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| format!("failed to connect to host: {error}"))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, RESPONSE_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| format!("the answer could not be read: {error}"))?
                .to_bytes();
            Ok::<_, String>((head, body))
        };
        match tokio::time::timeout(timeout, exchange).await {
            Err(_) => Sent::failed(started, headers, 504, "timed out".to_owned()),
            Ok(Err(error)) => Sent::failed(started, headers, 502, error),
            Ok(Ok((head, body))) => Sent {
                duration: started.elapsed(),
                started,
                request_headers: text(&headers),
                status: status_text(head.status),
                status_code: head.status.as_u16(),
                response_headers: text(&head.headers),
                response_body: Some(String::from_utf8_lossy(&body).into_owned()),
            },
        }
    }
}

impl Sent {
    fn failed(started: Instant, headers: HeaderMap, status_code: u16, status: String) -> Self {
        Self {
            started,
            request_headers: text(&headers),
            status,
            status_code,
            response_headers: BTreeMap::new(),
            response_body: None,
            duration: started.elapsed(),
        }
    }
}

impl State {
    pub(crate) fn record(&mut self, out: Outgoing, sent: Sent) {
        let event = out.event;
        let earlier = self.deliveries.iter().filter(|delivery| delivery.guid == event.guid);
        let attempt = u32::try_from(earlier.count()).unwrap_or(u32::MAX).saturating_add(1);
        let since = chrono::Duration::from_std(sent.started.elapsed()).unwrap_or_default();
        let delivery = Delivery {
            id: self.next_delivery_id(),
            guid: event.guid.clone(),
            attempt,
            redelivery: out.redelivery,
            event: event.name.to_owned(),
            action: event.action.map(str::to_owned),
            repository: event.repository.clone(),
            job_id: event.job_id,
            delivered_at: Utc::now() - since,
            duration: sent.duration.as_secs_f64(),
            status: sent.status,
            status_code: sent.status_code,
            request_headers: sent.request_headers,
            response_headers: sent.response_headers,
            response_body: sent.response_body,
            source: event,
        };
        tracing::info!(
            delivery = %delivery.guid,
            event = %delivery.event,
            action = delivery.action.as_deref().unwrap_or_default(),
            job = delivery.job_id.unwrap_or_default(),
            status_code = delivery.status_code,
            status = %delivery.status,
            "webhook sent"
        );
        self.deliveries.push(delivery);
    }
}

fn request(out: &Outgoing, url: &str, secret: &str) -> Result<Request<Full<Bytes>>, http::Error> {
    let event = &out.event;
    Request::post(url)
        .header("user-agent", "GitHub-Hookshot/edb0a01")
        .header("accept", "*/*")
        .header("content-type", "application/json")
        .header("x-github-delivery", &event.guid)
        .header("x-github-event", event.name)
        .header("x-github-hook-id", event.hook_id)
        .header("x-github-hook-installation-target-id", event.target_id)
        .header("x-github-hook-installation-target-type", event.target_type)
        .header("x-hub-signature", format!("sha1={}", sha1_mac(secret, &event.payload)))
        .header("x-hub-signature-256", format!("sha256={}", sha256_mac(secret, &event.payload)))
        .body(Full::new(event.payload.clone()))
}

fn sha256_mac(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

fn sha1_mac(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// GitHub shows `OK` for every 2xx.
fn status_text(status: StatusCode) -> String {
    if status.is_success() {
        "OK".to_owned()
    } else {
        format!("Invalid HTTP Response: {}", status.as_u16())
    }
}

fn text(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers
        .iter()
        .map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}
