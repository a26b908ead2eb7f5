//! `edgerunner egress`, with `suggest` and `github`.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    client::Client,
    github_addresses,
    output::{Output, Table, Width, age, names_in, parse, print, printable},
};
use crate::{
    config::{Config, EgressHost},
    control::{clock, snapshot::DenialView},
    github::GitHub,
    provider::egress::DenialReason,
};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Print the hosts that jobs connected to and that `egress` does not name, in the form of the
    /// configuration file. Check each one before you add it.
    Suggest {
        /// Only those of this pool.
        #[arg(long, value_name = "NAME")]
        pool: Option<String>,
    },
    /// Print the hosts that GitHub's runners and its own actions need, from GitHub's list, in the
    /// form of the configuration file.
    Github,
}

impl Arguments {
    /// `github` calls GitHub instead.
    pub(super) fn calls_sidecar(&self) -> bool {
        !matches!(self.command, Some(Command::Github))
    }

    pub(super) fn run(&self, config: &Config, client: &Client) -> Result<()> {
        match &self.command {
            None => self.output.show(
                || client.get("/api/v1/egress"),
                |denials| names_in(denials, "host"),
                table,
            ),
            Some(Command::Suggest { pool }) => {
                let denials: Vec<DenialView> = parse(client.get("/api/v1/egress")?)?;
                print(&suggestion(&denials, pool.as_deref()))
            }
            Some(Command::Github) => print(&list(&github_hosts(config)?, "GitHub's own list")),
        }
    }
}

fn table(denials: &Value, width: Width) -> Result<String> {
    let denials: Vec<DenialView> = parse(denials.clone())?;
    if denials.is_empty() {
        return Ok("No connection was refused, and none would be.\n".into());
    }
    let names = ["POOL", "HOST", "REASON", "MODE", "COUNT", "LAST", "REPOSITORY", "JOB", "RUNNER"];
    let mut table = Table::new(names, &[2, 3]).cut(&[(1, 24), (6, 14)]).optional(&[8, 7, 3]);
    let now = clock::now().wall;
    for denial in denials {
        table.push([
            denial.pool,
            denial.host,
            denial.reason,
            if denial.observed { "observed" } else { "refused" }.to_owned(),
            denial.connections.to_string(),
            age(denial.last_ms, now),
            denial.repository.unwrap_or_default(),
            denial.job_id.map(|id| id.to_string()).unwrap_or_default(),
            denial.runner.unwrap_or_default(),
        ]);
    }
    Ok(table.within(width))
}

/// What to add to the `egress` of each pool.
fn suggestion(denials: &[DenialView], pool: Option<&str>) -> String {
    let mut pools: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    let mut others = 0;
    for denial in denials.iter().filter(|denial| pool.is_none_or(|pool| pool == denial.pool)) {
        // What is closed for another reason stays closed.
        match entry(&denial.host).filter(|_| denial.reason == DenialReason::Host.as_str()) {
            Some(host) => {
                *pools.entry(&denial.pool).or_default().entry(host).or_default() +=
                    denial.connections;
            }
            None => others += 1,
        }
    }
    let mut text = String::new();
    for (pool, hosts) in pools {
        _ = writeln!(
            text,
            "# Add to the pool {}, if its jobs may connect there:",
            printable(pool.to_owned())
        );
        text += "egress = [\n";
        for (host, connections) in hosts {
            _ = writeln!(text, "  \"{host}\",  # {connections} times");
        }
        text += "]\n";
    }
    if text.is_empty() {
        text = "# Nothing to add: jobs connected to no other hosts.\n".to_owned();
    }
    if others > 0 {
        text += "# Others cannot be permitted, such as addresses: see `edgerunner egress`.\n";
    }
    text
}

/// The host as an entry of `egress`, without a standard port; `None` if it cannot be one.
fn entry(host: &str) -> Option<String> {
    let name = host.strip_suffix(":443").or_else(|| host.strip_suffix(":80")).unwrap_or(host);
    Some(EgressHost::parse(name).ok()?.to_string())
}

fn list(hosts: &[String], source: &str) -> String {
    let mut text = format!("# From {source}.\negress = [\n");
    for host in hosts {
        // One that cannot be an entry, such as `*.example.*`, is for people to judge.
        match EgressHost::parse(host) {
            Ok(host) => _ = writeln!(text, "  \"{host}\","),
            Err(_) => _ = writeln!(text, "  # not a host name: {}", printable(host.clone())),
        }
    }
    text + "]\n"
}

fn github_hosts(config: &Config) -> Result<Vec<String>> {
    let failed = "cannot get GitHub's hosts";
    let ask = async |github: GitHub| github.actions_hosts().await;
    let hosts = github_addresses::ask(config, failed, ask)?;
    ensure!(
        !hosts.is_empty(),
        "this GitHub server lists no hosts: use egress_mode = \"observe\" and `edgerunner egress \
         suggest`"
    );
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(pool: &str, host: &str, reason: &str, connections: u64) -> DenialView {
        DenialView {
            pool: pool.into(),
            host: host.into(),
            reason: reason.into(),
            observed: true,
            connections,
            first_ms: 1,
            last_ms: 2,
            runner: Some("edge-1".into()),
            job_id: Some(7),
            repository: Some("acme/app".into()),
        }
    }

    #[test]
    fn what_was_seen_becomes_a_list_for_the_configuration() {
        let denials = [
            denial("a", "Files.example:443", "host", 3),
            denial("a", "files.example:80", "host", 2),
            denial("a", "registry.example:5000", "host", 1),
            denial("a", "10.0.0.1:443", "host", 1),
            denial("a", "inner.example:443", "address", 9),
            denial("b", "b.example", "host", 1),
        ];
        let expected = "# Add to the pool a, if its jobs may connect there:\negress = [\n  \
                        \"files.example\",  # 5 times\n  \"registry.example:5000\",  # 1 times\n]\n\
                        # Others cannot be permitted, such as addresses: see `edgerunner egress`.\n";
        assert_eq!(suggestion(&denials, Some("a")), expected);
        assert_eq!(suggestion(&denials, None).matches("egress = [").count(), 2);
        assert!(suggestion(&[], None).starts_with("# Nothing to add"));
        let text = suggestion(&denials, Some("b"));
        assert!(text.parse::<toml::Table>().is_ok(), "{text}");
    }

    #[test]
    fn githubs_list_becomes_one_for_the_configuration() {
        let hosts = ["*.actions.githubusercontent.com", "github.com", "*"].map(str::to_owned);
        let text = list(&hosts, "GitHub");
        assert!(text.contains("  \"*.actions.githubusercontent.com\",\n  \"github.com\",\n"));
        assert!(text.contains("# not a host name: *\n"));
        assert_eq!(text.parse::<toml::Table>().unwrap()["egress"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn denials_are_listed_with_their_job() {
        let rows = serde_json::to_value([denial("a", "a.example:443", "host", 3)]).unwrap();
        let text = anstream::adapter::strip_str(&table(&rows, Width::FULL).unwrap()).to_string();
        for word in ["a.example:443", "observed", "acme/app", "edge-1"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(
            table(&Value::Array(Vec::new()), Width::FULL).unwrap().starts_with("No connection")
        );
    }
}
