//! An existing Envoy, set up as the README says.

use anyhow::{Context as _, Result};
use edgerunner_tests::{Options, Stack, Webhook};

const README: &str = include_str!("../../../README.md");

/// An Envoy that serves something else.
const THEIRS: &str = r#"
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 9901}}
static_resources:
  listeners:
    - address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: theirs
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                route_config:
                  virtual_hosts:
                    - name: theirs
                      domains: ["*"]
                      routes:
                        - match: {prefix: /}
                          direct_response: {status: 200, body: {inline_string: theirs}}
  clusters:
    - name: theirs
      connect_timeout: 1s
"#;

/// The README's block for a list.
fn piece(list: &str) -> Result<&'static str> {
    let (_, rest) = README
        .split_once(&format!("<!-- own Envoy: {list} -->\n```yaml\n"))
        .with_context(|| format!("the README has nothing for {list}"))?;
    Ok(rest.split_once("```").context("a block without an end")?.0)
}

/// Pastes the block as the first item of a list, with the list's indentation.
fn pasted(configuration: &str, list: &str) -> Result<String> {
    let heading = format!("{list}:\n");
    let (before, after) = configuration.split_once(&heading).context("no such list")?;
    let indent = after.len() - after.trim_start().len();
    let piece: String =
        piece(list)?.lines().map(|line| format!("{:indent$}{line}\n", "")).collect();
    Ok([before, &heading, &piece, after].concat())
}

#[tokio::test]
async fn an_existing_envoy_serves_webhooks_as_well() -> Result<()> {
    let mut configuration = THEIRS.to_owned();
    for list in ["http_filters", "routes", "clusters"] {
        configuration = pasted(&configuration, list)?;
    }
    Stack::run(Options::default().own_envoy(configuration), async |stack| -> Result<()> {
        let job = stack.queue(0.1);
        stack.completed(job).await?;
        let forged = Webhook::job(1).signed_with("another secret");
        assert_eq!(stack.send(&forged).await?.outcome(), "signature_mismatch");
        let large = Webhook::new("workflow_job", vec![b' '; 20 << 20]);
        assert_eq!(stack.send(&large).await?.outcome(), "payload_malformed");
        let theirs = stack.send(&Webhook::job(2).path("/elsewhere")).await?;
        assert_eq!((theirs.status, &theirs.body[..]), (200, &b"theirs"[..]));
        Ok(())
    })
    .await;
    Ok(())
}
