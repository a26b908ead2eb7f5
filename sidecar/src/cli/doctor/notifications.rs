//! Checks that the receiver of notifications can be reached. Sends it no message.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use super::report::Report;
use crate::{
    config::Config,
    http_client::{HttpClient, USER_AGENT},
    notifications::ATTEMPT_LIMIT,
};

const CHECK: &str = "notifications";
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

pub(super) async fn check(config: &Config, report: &mut Report) {
    let Some(receiver) = &config.notifications else { return };
    let host = receiver.url.host().unwrap_or_default();
    let request = Request::head(&receiver.url).header(http::header::USER_AGENT, USER_AGENT);
    let request = request.body(Full::<Bytes>::default()).map_err(|error| error.to_string());
    let client = HttpClient::new(&receiver.url, &Vec::new(), None, ATTEMPT_LIMIT);
    let (client, request) = match (client, request) {
        (Ok(client), Ok(request)) => (client, request),
        (Err(problem), _) | (_, Err(problem)) => return report.failed(CHECK, problem),
    };
    match client.send_within(ATTEMPT_LIMIT, request, RESPONSE_BYTES_MAX).await {
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
