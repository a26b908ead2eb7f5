//! Checks the registry mirrors of the runners' own Docker Engines.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;

use super::report::Report;
use crate::{
    config::{Certificates, Config, DockerAccess},
    http_client::{HttpClient, USER_AGENT},
};

const LIMIT: Duration = Duration::from_secs(5);
/// What a registry says there is not needed.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

pub(super) async fn check(config: &Config, report: &mut Report) {
    let containers = config.pools.iter().map(|pool| &pool.container);
    let engines = containers.filter(|container| container.docker == DockerAccess::Dind);
    let mirrors: BTreeSet<&str> =
        engines.flat_map(|it| &it.registry_mirrors).map(String::as_str).collect();
    for mirror in mirrors {
        let check = format!("mirror {mirror}");
        match status(mirror).await {
            // A registry that wants a login does so here.
            Ok(StatusCode::OK | StatusCode::UNAUTHORIZED) => {
                report.ok(check, "answers as a registry");
            }
            Ok(status) => report.failed(
                check,
                format!(
                    "{status} for /v2/, which is not the answer of a registry: correct \
                     registry_mirrors, or the mirror"
                ),
            ),
            Err(cause) => report.warning(
                check,
                format!(
                    "{cause}. Unless runners reach it in another way than this machine, start it, \
                     or correct registry_mirrors: without it, they pull from Docker Hub"
                ),
            ),
        }
    }
}

/// A mirror's answer to the request by which Docker finds out whether it is a registry.
async fn status(mirror: &str) -> Result<StatusCode, String> {
    let url = format!("{}/v2/", mirror.trim_end_matches('/'));
    let url: Uri = url.parse().map_err(|_| "not a URL".to_owned())?;
    let client = HttpClient::new(&url, &Certificates::new(), None, LIMIT)?;
    let request = Request::get(&url).header(header::USER_AGENT, USER_AGENT);
    let request = request.body(Full::<Bytes>::default()).map_err(|error| error.to_string())?;
    let response = client.send_within(LIMIT, request, RESPONSE_BYTES_MAX).await;
    let response = response.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
    Ok(response.status())
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use serde_json::Value;
    use tokio::net::TcpListener;

    use super::*;

    /// The outcome and the message for a mirror at this address.
    async fn checked(mirror: &str) -> (String, String) {
        let mut config = Config::load(None, &|_| None).unwrap();
        let container = &mut config.pools[0].container;
        container.docker = DockerAccess::Dind;
        container.registry_mirrors = vec![mirror.to_owned()];
        let mut report = Report::default();
        check(&config, &mut report).await;
        let Value::Array(mut findings) = report.to_json() else { panic!() };
        let found = findings.remove(0);
        assert_eq!((findings.len(), &found["check"]), (0, &format!("mirror {mirror}").into()));
        let text = |name: &str| found[name].as_str().unwrap().to_owned();
        (text("outcome"), text("message"))
    }

    #[tokio::test]
    async fn each_mirror_is_asked_as_docker_asks_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Router::new().route("/v2/", get(|| async { StatusCode::UNAUTHORIZED }));
        tokio::spawn(axum::serve(listener, registry).into_future());
        for mirror in [format!("http://{address}"), format!("http://{address}/")] {
            assert_eq!(checked(&mirror).await.0, "ok");
        }

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = listener.local_addr().unwrap();
        let server = tokio::spawn(axum::serve(listener, Router::new()).into_future());
        let (outcome, message) = checked(&format!("http://{other}")).await;
        assert!(outcome == "failed" && message.starts_with("404 Not Found for /v2/"), "{message}");

        server.abort();
        let _ = server.await;
        let (outcome, message) = checked(&format!("http://{other}")).await;
        assert!(outcome == "warning" && message.contains("refused"), "{message}");
    }

    #[tokio::test]
    async fn mirrors_of_pools_without_an_engine_of_their_own_are_not_asked() {
        let mut config = Config::load(None, &|_| None).unwrap();
        config.pools[0].container.registry_mirrors = vec!["http://127.0.0.1:1".into()];
        let mut report = Report::default();
        check(&config, &mut report).await;
        assert_eq!(report.to_json(), serde_json::json!([]));
    }
}
