//! The configurations for production: TLS, allowed senders, and ways to the sidecar.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use edgerunner_tests::{Answer, Authority, Edge, Options, Stack, Webhook, eventually};

fn wrong(job: u64) -> Webhook {
    Webhook::job(job).signed_with("another secret")
}

async fn accepts_only_genuine_deliveries(stack: &Stack) -> Result<()> {
    let envoy = &stack.envoy;
    assert_eq!(accepted(&envoy.send(&Webhook::job(1)).await?), (202, "accepted"));
    assert_eq!(accepted(&envoy.send_http2_over_tls(&Webhook::job(2)).await?), (202, "accepted"));
    assert_eq!(accepted(&envoy.send(&wrong(3)).await?), (401, "signature_mismatch"));
    assert_eq!(accepted(&envoy.send_http2_over_tls(&wrong(3)).await?), (401, "signature_mismatch"));
    Ok(())
}

fn accepted(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.outcome())
}

#[tokio::test]
async fn a_sidecar_behind_a_unix_socket_is_reached_over_tls() {
    Stack::run(Options::default().edge(Edge::UnixSocket), async |stack| -> Result<()> {
        accepts_only_genuine_deliveries(stack).await?;
        // The socket of a killed process does not keep the next one from starting.
        stack.sidecar.kill().await?;
        stack.sidecar.start().await?;
        eventually("the sidecar accepts deliveries again", async || {
            let answer = stack.send(&Webhook::job(4)).await?;
            Ok((answer.status == 202).then_some(()))
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn mutual_tls_keeps_others_from_the_sidecar() {
    Stack::run(Options::default().edge(Edge::Production), async |stack| -> Result<()> {
        accepts_only_genuine_deliveries(stack).await?;
        let ca = fs::read_to_string(stack.envoy.etc().join("tls/sidecar/ca.crt"))?;
        let other = Authority::new()?.issue("edgerunner")?;
        for (who, identity) in [("nobody", None), ("another CA", Some(&other))] {
            let answer = stack.sidecar.health_over_tls(&ca, identity).await;
            ensure!(answer.is_err(), "{who} was answered: {answer:?}");
        }
        eventually("the sidecar logs both", async || {
            Ok((stack.sidecar.log_lines(&["TLS handshake failed"])? == 2).then_some(()))
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn certificates_are_replaced_under_load_and_no_delivery_is_lost() {
    Stack::run(Options::default().edge(Edge::Production), async |stack| -> Result<()> {
        let (_, first) = stack.envoy.send_over_tls(&Webhook::job(1)).await?;
        let (replaced, accepted) = (AtomicBool::new(false), AtomicU32::new(0));
        let load = async {
            let mut after = 0;
            for job in 2.. {
                let (answer, shown) = stack.envoy.send_over_tls(&Webhook::job(job)).await?;
                ensure!(answer.status == 202, "{answer:?}");
                accepted.fetch_add(1, Ordering::Relaxed);
                after += u32::from(shown != first);
                if after == 20 {
                    break;
                }
            }
            ensure!(replaced.load(Ordering::Relaxed), "a new certificate before it was installed");
            anyhow::Ok(())
        };
        let replace = async {
            eventually("some have been accepted", async || {
                Ok((accepted.load(Ordering::Relaxed) > 20).then_some(()))
            })
            .await?;
            replaced.store(true, Ordering::Relaxed);
            stack.envoy.renew_certificate()
        };
        tokio::try_join!(load, replace)?;
        Ok(())
    })
    .await;
}

/// The file that `edgerunner github-addresses` writes, with these addresses.
fn only(etc: &Path, addresses: &[(&str, u8)]) -> Result<()> {
    let addresses: Vec<String> = addresses
        .iter()
        .map(|(prefix, len)| {
            format!("{{remote_ip: {{address_prefix: {prefix:?}, prefix_len: {len}}}}}")
        })
        .collect();
    let text = format!(
        r#"
resources:
  - "@type": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
    name: github_addresses
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
      rules:
        action: DENY
        policies:
          others:
            permissions: [{{url_path: {{path: {{prefix: /webhooks/github}}}}}}]
            principals: [{{not_id: {{or_ids: {{ids: [{}]}}}}}}]
"#,
        addresses.join(", ")
    );
    let next = etc.join("next.yaml");
    fs::write(&next, text)?;
    fs::rename(next, etc.join("github_addresses.yaml"))?;
    Ok(())
}

/// A request through a load balancer, with this sender.
fn forwarded(job: u64) -> Webhook {
    Webhook::job(job).header("x-forwarded-for", "192.30.252.7")
}

#[tokio::test]
async fn senders_outside_githubs_addresses_are_rejected() {
    Stack::run(Options::default().edge(Edge::UnixSocket), async |stack| -> Result<()> {
        accepts_only_genuine_deliveries(stack).await?;
        only(&stack.envoy.etc(), &[("192.30.252.0", 22), ("2a0a:a440::", 29)])?;
        eventually("the list is in use", async || {
            Ok((stack.send(&Webhook::job(10)).await?.status == 403).then_some(()))
        })
        .await?;
        assert_eq!(stack.envoy.send_http2_over_tls(&wrong(11)).await?.status, 403);
        assert_eq!(stack.send(&forwarded(12)).await?.status, 403, "anyone can send this header");
        assert_eq!(stack.send(&Webhook::job(13).path("/other")).await?.status, 404);
        // The sandbox's /meta names the loopback interface.
        let list = stack.envoy.etc().join("github_addresses.yaml");
        let list = list.to_str().context("a path that is not UTF-8")?;
        let printed = stack.sidecar.print(&["github-addresses", "--output", list]).await?;
        assert!(printed.contains("2 IP ranges"), "{printed}");
        eventually("the new list is in use", async || {
            Ok((stack.send(&Webhook::job(14)).await?.status == 202).then_some(()))
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn a_trusted_load_balancer_may_name_the_sender() {
    let options = Options::default()
        .edge(Edge::UnixSocket)
        .envoy_configuration("                use_remote_address: true\n", "")
        .envoy_configuration(
            "                # original_ip_detection_extensions:\n                #   - name: envoy.http.original_ip_detection.xff\n                #     typed_config:\n                #       \"@type\": type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig\n                #       xff_trusted_cidrs:\n                #         cidrs: [{address_prefix: 10.0.0.0, prefix_len: 8}]\n",
            "                original_ip_detection_extensions:\n                  - name: envoy.http.original_ip_detection.xff\n                    typed_config:\n                      \"@type\": type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig\n                      xff_trusted_cidrs:\n                        cidrs: [{address_prefix: 127.0.0.0, prefix_len: 8}]\n",
        );
    Stack::run(options, async |stack| -> Result<()> {
        only(&stack.envoy.etc(), &[("192.30.252.0", 22)])?;
        eventually("the list is in use", async || {
            Ok((stack.send(&Webhook::job(1)).await?.status == 403).then_some(()))
        })
        .await?;
        assert_eq!(stack.send(&forwarded(2)).await?.status, 202);
        let other = Webhook::job(3).header("x-forwarded-for", "203.0.113.9");
        assert_eq!(stack.send(&other).await?.status, 403);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn deliveries_beyond_the_rate_limit_are_answered_429() {
    let options = Options::default()
        .edge(Edge::UnixSocket)
        .envoy_configuration("max_tokens: 5000", "max_tokens: 3")
        .envoy_configuration("tokens_per_fill: 2500", "tokens_per_fill: 1")
        .envoy_configuration("fill_interval: 1s", "fill_interval: 3600s");
    Stack::run(options, async |stack| -> Result<()> {
        for job in 1..=3 {
            assert_eq!(stack.send(&Webhook::job(job)).await?.status, 202);
        }
        assert_eq!(stack.send(&Webhook::job(4)).await?.status, 429);
        // Other paths are not limited.
        assert_eq!(stack.send(&Webhook::job(5).path("/other")).await?.status, 404);
        Ok(())
    })
    .await;
}
