//! Whether a webhook would arrive: a ping is answered by the filter alone.

use anyhow::{Result, bail};
use http::StatusCode;

use super::report::Report;
use crate::{
    cli::delivery::{Answer, Delivery, webhook_secret, webhook_url},
    config::Config,
};

const CHECK: &str = "signed ping";

pub(super) async fn look(config: &Config, url: Option<&str>, report: &mut Report) {
    let url = match (webhook_url(config, url), webhook_secret(config)) {
        (Ok(url), Ok(_)) => url,
        (Err(missing), _) | (_, Err(missing)) => return report.skipped(CHECK, missing),
    };
    let payload = br#"{"zen":"edgerunner doctor"}"#.as_slice().into();
    match (Delivery { url, event: "ping", payload }).send(config).await {
        Ok(Answer { status: StatusCode::FORBIDDEN, .. }) => report.skipped(
            CHECK,
            format!(
                "{url} takes webhooks from GitHub's addresses alone: have GitHub send a ping with \
                 `edgerunner webhook ping`"
            ),
        ),
        answer => report.note(CHECK, answer.and_then(|answer| judge(url, &answer))),
    }
}

fn judge(url: &str, answer: &Answer) -> Result<String> {
    let remedy = match answer.status {
        StatusCode::OK if answer.body.contains("pong") => {
            return Ok(format!("the filter at {url} answers"));
        }
        StatusCode::UNAUTHORIZED => {
            "the filter has another secret: give Envoy and github.webhook_secret the same"
        }
        StatusCode::NOT_FOUND => {
            "no webhook is received on that path: it is /webhooks/github, with the hook's name \
             behind it if it has one"
        }
        StatusCode::SERVICE_UNAVAILABLE => "Envoy runs without the filter: see its log",
        _ => "something else answers there: does the URL lead to Envoy?",
    };
    bail!("{url} answered {}: {remedy}", answer.status)
}
