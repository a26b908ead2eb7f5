//! Checks that the receiver of notifications can be reached. Sends it no message.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use super::report::Report;
use crate::{config::Config, http_client::USER_AGENT, notifications::Receiver};

const CHECK: &str = "notifications";

pub(super) async fn check(config: &Config, report: &mut Report) {
    let Some(configured) = &config.notifications else { return };
    let host = configured.url.host().unwrap_or_default();
    let request = Request::head(&configured.url).header(http::header::USER_AGENT, USER_AGENT);
    let request = request.body(Full::<Bytes>::default()).map_err(|error| error.to_string());
    let (receiver, request) = match (Receiver::new(&configured.url), request) {
        (Ok(receiver), Ok(request)) => (receiver, request),
        (Err(problem), _) | (_, Err(problem)) => return report.failed(CHECK, problem),
    };
    match receiver.send(request).await {
        // What a receiver of messages responds to this says nothing about them.
        Ok(_) => report.ok(CHECK, format!("{host} responds; no message was sent")),
        Err(error) => report.failed(
            CHECK,
            format!(
                "no response from {host}: {error}; correct notifications.url, or permit \
                 connections there"
            ),
        ),
    }
}
