//! `edgerunner github-addresses`: tells Envoy whom to take webhooks from.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Args;

use super::runtime::wait_for;
use crate::{config::Config, github::GitHub};

#[derive(Args)]
pub(super) struct Destination {
    /// File that `envoy/production.yaml` reads; Envoy takes it up at once. Printed if left
    /// out.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Path of the webhooks; what comes to others is left alone.
    #[arg(long, default_value = "/webhooks/github", value_name = "PATH")]
    path: String,
}

pub(super) fn write(config: &Config, destination: &Destination) -> Result<()> {
    let addresses = ask(config)?;
    let text = list(&addresses, &destination.path)?;
    match &destination.output {
        None => print!("{text}"),
        Some(file) => {
            replace(file, &text).with_context(|| format!("cannot write {}", file.display()))?;
            println!("{}: {} ranges of addresses", file.display(), addresses.len());
        }
    }
    Ok(())
}

fn ask(config: &Config) -> Result<Vec<String>> {
    let credential = config
        .credentials
        .iter()
        .find(|credential| credential.api_url == config.github.api_url)
        .or(config.credentials.first())
        .context("github.token or github.app_id is needed to ask GitHub")?;
    let timeout = config.github.timeout();
    wait_for(async { Ok(GitHub::new(credential, timeout)?.webhook_addresses().await?) })
        .context("GitHub's addresses are not known, and nothing was written")
}

/// A filter that turns everybody else away.
fn list(addresses: &[String], path: &str) -> Result<String> {
    let addresses = addresses
        .iter()
        .map(|text| {
            let range = text.split_once('/').and_then(|(address, length)| {
                Some((address.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?))
            });
            let (address, length) =
                range.with_context(|| format!("{text:?} is no range of addresses"))?;
            Ok(format!(
                "                      - remote_ip: \
                 {{address_prefix: \"{address}\", prefix_len: {length}}}\n"
            ))
        })
        .collect::<Result<String>>()?;
    // Without any, Envoy would refuse the whole list.
    anyhow::ensure!(!addresses.is_empty(), "GitHub names no addresses, and nothing was written");
    let path = serde_json::json!(path);
    Ok(format!(
        r#"# Who may send webhooks: GitHub, by what it tells of itself. Written by
# `edgerunner github-addresses`.
resources:
  - "@type": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
    name: github_addresses
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
      rules:
        action: DENY
        policies:
          others:
            permissions:
              - url_path: {{path: {{prefix: {path}}}}}
            principals:
              - not_id:
                  or_ids:
                    ids:
{addresses}"#
    ))
}

/// In one step: Envoy watches for files that are renamed, and must not see half of one.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let mut next = file.as_os_str().to_owned();
    next.push(".new");
    fs::write(&next, text)?;
    fs::rename(next, file)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_no_list_of_addresses_is_not_written() {
        let list = |addresses: &[&str]| {
            let addresses: Vec<String> = addresses.iter().map(|text| (*text).into()).collect();
            super::list(&addresses, "/hooks").map_err(|error| error.to_string())
        };
        let text = list(&["192.30.252.0/22", "2a0a:a440::/29"]).unwrap();
        assert!(text.contains(r#"address_prefix: "2a0a:a440::", prefix_len: 29"#), "{text}");
        assert!(text.contains(r#"{prefix: "/hooks"}"#), "{text}");
        for wrong in [&["192.30.252.0"][..], &["1.2.3.4/x"], &["github.com/22"], &[]] {
            assert!(list(wrong).unwrap_err().contains("addresses"));
        }
    }
}
