//! The filter's SHA-256 by one worker of Envoy, compared with OpenSSL on the same core.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use edgerunner_testkit::deployment::envoy_arguments;
use edgerunner_testkit::envoy::Settings;
use edgerunner_testkit::envoy_config::{ENVOY_YAML, Sidecars};
use edgerunner_testkit::ports::local;
use edgerunner_testkit::{Deployment, Envoy};
use tokio::process::Command;

use crate::compare::{self, Plan, Side};
use crate::delivery::{Factory, Kind, LARGE_BYTES};
use crate::load::Expected;
use crate::spread::Spread;
use crate::table::table;

// The filter, its route, and what follows the filter in `envoy.yaml`.
const FILTER: &str = "- name: edgerunner\n                    typed_config:\n";
const ROUTER: &str = "- name: envoy.filters.http.router\n";
const ROUTE: &str = "route:\n                            cluster: nowhere\n                            timeout: 5s\n";
/// Reads bodies in place of the filter.
const BUFFER: &str = r#"- name: envoy.filters.http.buffer
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
                      max_request_bytes: 27262976
                  "#;
/// The filter's response to a wrong signature, and that of Envoy without the filter.
const ANSWER: &str = r#"direct_response: { status: 401, body: { inline_string: rejected } }
"#;

pub(crate) async fn measure(deployment: &Deployment, secret: &str, rounds: u32) -> Result<String> {
    let openssl = openssl(rounds).await?;
    let plain = without_filter(ENVOY_YAML)?;
    let filter = start(deployment, secret, "envoy-filter", None).await?;
    let plain = start(deployment, secret, "envoy-plain", Some(plain)).await?;
    let sides = [&filter, &plain].map(|envoy| Side {
        name: String::new(),
        address: envoy.address(),
        processes: vec![envoy.process()],
        kind: Kind::Large,
        expected: Expected(401, "rejected"),
    });
    let mut factory = Factory::new(secret)?;
    let plan = Plan { connections: 1, requests: 16, rounds };
    let results = compare::run(&mut factory, &sides, &plan).await?;

    let [filter, plain] = results.as_slice() else {
        anyhow::bail!("a side is missing");
    };
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let bytes = LARGE_BYTES as f64;
    let per_second = |us: f64| bytes / us;
    let hashed = per_second(filter.all_cpu_us() - plain.all_cpu_us());
    let mut table = table(["bodies of 20 MiB, CPU time of one worker", "MB/s"]);
    let mut row = |name: &str, value: f64| {
        table.add_row([name.to_owned(), format!("{value:.0}")]);
    };
    row("Envoy without the filter: reads them", per_second(plain.all_cpu_us()));
    row("with the filter: reads and hashes them", per_second(filter.all_cpu_us()));
    row("the filter alone: copies and hashes them", hashed);
    row("OpenSSL: hashes 16 KiB repeatedly", openssl);
    let ratio = hashed / openssl;
    table.add_row(["  the filter compared with OpenSSL".to_owned(), format!("{ratio:.2} ×")]);
    Ok(table.to_string())
}

/// An Envoy of one worker with the deployment's sidecar.
async fn start(
    deployment: &Deployment,
    secret: &str,
    name: &str,
    configuration: Option<String>,
) -> Result<Envoy> {
    let directory = deployment.settings.directory.join(name);
    std::fs::create_dir_all(&directory)?;
    let sidecars = Sidecars::Plain(vec![local(deployment.settings.ports.grpc)]);
    let settings = Settings {
        configuration,
        environment: vec![("GITHUB_WEBHOOK_SECRET".to_owned(), secret.to_owned())],
        arguments: envoy_arguments(1),
        ..Settings::new(&directory, sidecars)?
    };
    let envoy = Envoy::spawn(&deployment.programs, settings)?;
    envoy.ready().await?;
    Ok(envoy)
}

/// The configuration with an Envoy that reads bodies and responds itself.
fn without_filter(shipped: &str) -> Result<String> {
    let parts = (|| {
        let (before, rest) = shipped.split_once(FILTER)?;
        let (_, rest) = rest.split_once(ROUTER)?;
        let (between, after) = rest.split_once(ROUTE)?;
        Some([before, BUFFER, ROUTER, between, ANSWER, after].concat())
    })();
    parts.context("envoy.yaml no longer has the filter before the router")
}

/// MB of SHA-256 per second.
async fn openssl(rounds: u32) -> Result<f64> {
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let mut command = Command::new(Path::new("openssl"));
        command.args(["speed", "-seconds", "1", "-bytes", "16384", "-evp", "sha256"]);
        let output = command.kill_on_drop(true).output().await.context("cannot run openssl")?;
        ensure!(output.status.success(), "openssl: {output:?}");
        let output = String::from_utf8_lossy(&output.stdout);
        // "sha256         1807370.34k"
        let rate = output.lines().last().and_then(|line| {
            line.strip_prefix("sha256")?.trim().strip_suffix('k')?.parse::<f64>().ok()
        });
        rates.push(rate.with_context(|| format!("no rate in {output}"))? / 1_000.0);
    }
    Ok(Spread::of(&rates).median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_works_without_the_filter() {
        let text = without_filter(ENVOY_YAML).unwrap();
        assert!(!text.contains("wasm.v3"));
        assert!(text.contains("filters.http.buffer"));
        assert!(text.contains("inline_string: rejected"));
    }
}
