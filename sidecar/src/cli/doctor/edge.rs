//! Checks that a webhook would arrive, by a ping, which the filter answers itself.

use http::StatusCode;

use super::{envoy, report::Report};
use crate::{
    cli::signed_webhook::{SignedWebhook, webhook_secret, webhook_url},
    config::Config,
};

const CHECK: &str = "signed ping";

pub(super) async fn check(config: &Config, url: Option<&str>, report: &mut Report) {
    let url = match (webhook_url(config, url), webhook_secret(config)) {
        (Ok(url), Ok(_)) => url,
        (Err(missing), _) | (_, Err(missing)) => return report.skipped(CHECK, missing),
    };
    let payload = br#"{"zen":"edgerunner doctor"}"#.as_slice().into();
    let ping = SignedWebhook { url, event: "ping", payload };
    let response = match ping.send(config).await {
        Ok(response) => response,
        Err(error) => return report.failed(CHECK, format!("{error:#}")),
    };
    let status = format!("{url} responded with {}", response.status);
    match response.status {
        StatusCode::OK if response.body.contains("pong") => {
            report.ok(CHECK, format!("the filter at {url} responds"));
            envoy::check(&response.body, report);
        }
        StatusCode::OK => report.failed(CHECK, format!("{status}, but it is not the filter")),
        // It may still accept requests from GitHub.
        StatusCode::FORBIDDEN => report.skipped(CHECK, format!("{status}: {}", response.remedy())),
        _ => report.failed(CHECK, format!("{status}: {}", response.remedy())),
    }
}
