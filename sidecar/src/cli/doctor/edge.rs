//! Whether a webhook would arrive: a ping is answered by the filter alone.

use http::StatusCode;

use super::report::Report;
use crate::{
    cli::delivery::{Delivery, webhook_secret, webhook_url},
    config::Config,
};

const CHECK: &str = "signed ping";

pub(super) async fn look(config: &Config, url: Option<&str>, report: &mut Report) {
    let url = match (webhook_url(config, url), webhook_secret(config)) {
        (Ok(url), Ok(_)) => url,
        (Err(missing), _) | (_, Err(missing)) => return report.skipped(CHECK, missing),
    };
    let payload = br#"{"zen":"edgerunner doctor"}"#.as_slice().into();
    let answer = match (Delivery { url, event: "ping", payload }).send(config).await {
        Ok(answer) => answer,
        Err(error) => return report.failed(CHECK, format!("{error:#}")),
    };
    let told = format!("{url} answered {}", answer.status);
    match answer.status {
        StatusCode::OK if answer.body.contains("pong") => {
            report.ok(CHECK, format!("the filter at {url} answers"));
        }
        StatusCode::OK => report.failed(CHECK, format!("{told}, but is not the filter")),
        // Whether it would let GitHub in cannot be told from here.
        StatusCode::FORBIDDEN => report.skipped(CHECK, format!("{told}: {}", answer.remedy())),
        _ => report.failed(CHECK, format!("{told}: {}", answer.remedy())),
    }
}
