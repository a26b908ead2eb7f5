//! Hosts that jobs may connect to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptions, RemoveContainerOptionsBuilder,
};
use edgerunner_tests::tools::{egress_image, hostile_image};
use edgerunner_tests::{
    Authority, Internet, Options, Stack, Swarm, eventually, eventually_within, tls,
};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// All ways out are tried one after the other, and most of them have to run into a timeout.
const TRIED_WITHIN: Duration = Duration::from_secs(240);
/// The ways that the runner's network closes, so that nobody can count them.
const NOT_COUNTED: [&str; 16] = [
    "direct-https",
    "direct-http",
    "direct-metadata",
    "direct-host-docker0",
    "direct-host-bridge",
    "direct-host-ssh",
    "direct-ipv6",
    "direct-quic",
    "gateway-admin",
    "udp-resolver",
    "tcp-resolver",
    "dns-by-dockers-resolver",
    "dns-public-name",
    "no-variables",
    "no-variables-by-address",
    "route-by-proxy",
];
/// The ways that reach the pool's Envoy, with what is counted of each. `OUTSIDE` stands for the
/// address of the servers outside.
const COUNTED: [(&str, &str, &str); 40] = [
    ("connect-forbidden", "forbidden.test:443", "host"),
    ("http-forbidden", "forbidden.test", "host"),
    ("connect-address", "OUTSIDE:443", "host"),
    ("http-address", "OUTSIDE", "host"),
    ("other-server-name", "allowed.test:443", "server_name"),
    ("no-tls-in-tunnel", "allowed.test:443", "server_name"),
    ("private-name", "private.test:443", "address"),
    ("private-name-http", "private.test", "address"),
    ("metadata-by-proxy", "169.254.169.254", "host"),
    ("metadata-tunnel", "169.254.169.254:443", "host"),
    ("other-port", "allowed.test:8443", "host"),
    ("other-port-http", "allowed.test:8080", "host"),
    ("ssh-port", "allowed.test:22", "host"),
    ("final-dot", "forbidden.test.:443", "host"),
    ("upper-case", "FORBIDDEN.test:443", "host"),
    ("mapped-ipv6", "[::ffff:OUTSIDE]:443", "host"),
    ("loopback-number", "127.0.0.1", "host"),
    ("loopback-unchanged-number", "2130706433", "host"),
    ("host-docker0-by-proxy", "172.17.0.1", "host"),
    ("userinfo", "forbidden.test", "host"),
    ("below-a-name", "allowed.test.forbidden.test:443", "host"),
    ("http2-to-proxy", "forbidden.test", "host"),
    ("early-data", "allowed.test:443", "server_name"),
    ("host-header", "forbidden.test", "host"),
    ("permitted-host-header", "forbidden.test", "host"),
    ("permitted-host-of-tunnel", "forbidden.test:443", "host"),
    ("metadata-name", "metadata.test:443", "address"),
    ("metadata-name-http", "metadata.test", "address"),
    ("loopback-name", "loopback.test:443", "address"),
    ("loopback-name-http", "loopback.test", "address"),
    ("localhost", "localhost:9901", "host"),
    ("no-server-name", "allowed.test:443", "server_name"),
    ("resolver-by-tunnel", "OUTSIDE:53", "host"),
    ("resolver-by-name", "allowed.test:53", "host"),
    ("ipv6-by-proxy", "[2001:db8::1]", "host"),
    ("ipv6-tunnel", "[2001:db8::1]:443", "host"),
    ("ipv6-link-local", "[fe80::1]", "host"),
    ("same-connection", "forbidden.test", "host"),
    ("upgrade", "forbidden.test", "request"),
    ("socks", "", "request"),
];

/// Servers that stand for those on the Internet.
pub(crate) struct Outside {
    docker: bollard::Docker,
    internet: Internet,
    _servers: JoinSet<()>,
}

impl Outside {
    pub(crate) async fn start() -> Result<Self> {
        let docker = bollard::Docker::connect_with_defaults()?;
        let name = format!("edgerunner-tests-{}", uuid::Uuid::new_v4().simple());
        let internet = Internet::start(docker.clone(), &name).await?;
        let address = internet.address;
        let mut servers = JoinSet::new();
        let acceptor = tls::acceptor(&Authority::new()?.issue("allowed.test")?)?;
        for (port, is_tls) in [(53, false), (80, false), (8080, false), (443, true), (8443, true)] {
            let listener = TcpListener::bind((address, port)).await?;
            let acceptor = acceptor.clone();
            servers.spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        // A client that a test refuses may hang up at any moment.
                        let _ = match is_tls {
                            false => answer(stream).await,
                            true => match acceptor.accept(stream).await {
                                Ok(stream) => answer(stream).await,
                                Err(error) => Err(error),
                            },
                        };
                    });
                }
            });
        }
        for port in [53, 443] {
            let socket = UdpSocket::bind((address, port)).await?;
            servers.spawn(async move {
                let mut query = [0; 512];
                while let Ok((_, client)) = socket.recv_from(&mut query).await {
                    let _ = socket.send_to(b"REACHED", client).await;
                }
            });
        }
        Ok(Self { docker, internet, _servers: servers })
    }

    /// Removes the network, and what the sidecar leaves for later launches.
    pub(crate) async fn end(self, instance: &str) -> Result<()> {
        let label = format!("dev.edgerunner.egress={instance}");
        let filters = || [("label".to_owned(), vec![label.clone()])];
        let listed = ListContainersOptionsBuilder::new().all(true).filters(&filters().into());
        for container in self.docker.list_containers(Some(listed.build())).await? {
            let id = container.id.context("no ID")?;
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            self.docker.remove_container(&id, Some(options)).await?;
        }
        let listed = ListNetworksOptions { filters: Some(filters().into()) };
        for network in self.docker.list_networks(Some(listed)).await? {
            self.docker.remove_network(&network.id.context("no ID")?).await?;
        }
        self.internet.end().await
    }
}

/// Answers one request.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await?;
    let response = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nREACHED";
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

/// A pool whose runners are hostile.
pub(crate) fn options(outside: &Outside, mode: &str) -> Result<Options> {
    let address = outside.internet.address;
    let outside = ["allowed.test", "forbidden.test", "allowed.test.forbidden.test"];
    let closed =
        ["private.test:172.17.0.1", "metadata.test:169.254.169.254", "loopback.test:127.0.0.1"];
    let hosts = outside.map(|host| format!("{host}:{address}")).join(",");
    Ok(Options::default()
        .sidecar("DOCKER_NETWORK", "")
        .sidecar("DOCKER_RUNNER_IMAGE", &hostile_image()?)
        .sidecar("DOCKER_COMMAND", "/usr/bin/bash,/ways_out.sh")
        .sidecar("DOCKER_EGRESS", "allowed.test,private.test,metadata.test,loopback.test")
        .sidecar("DOCKER_EGRESS_MODE", mode)
        .sidecar("DOCKER_EGRESS_IMAGE", &egress_image()?)
        .sidecar("DOCKER_EXTRA_HOSTS", &format!("{hosts},{}", closed.join(",")))
        .sidecar("RUNNER_STARTING_TIMEOUT_SECONDS", "600")
        .sidecar("RUNNER_STOP_GRACE_SECONDS", "1")
        .file(&format!("[docker]\nenv = {{ OUTSIDE = \"{address}\" }}\n")))
}

/// What the runner has printed once it has tried everything.
pub(crate) async fn tried(stack: &Stack) -> Result<String> {
    eventually_within(TRIED_WITHIN, "the runner has tried all ways out", async || {
        let runner = stack.containers.running().await?.into_iter().next().context("no runner")?;
        let names = runner.names.unwrap_or_default();
        let name = names.first().context("no name")?.trim_start_matches('/').to_owned();
        let log = stack.sidecar.print(&["runners", "logs", &name]).await?;
        Ok(log.lines().any(|line| line == "end").then_some(log))
    })
    .await
}

/// Checks that only what is permitted was reached. Returns which other ways were tried.
pub(crate) fn closed_ways(log: &str) -> BTreeSet<&str> {
    let ways: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("way ")).collect();
    let reached: Vec<&&str> = ways.iter().filter(|way| !way.ends_with(" closed")).collect();
    assert!(reached.is_empty(), "{reached:#?}");
    assert!(log.contains("permitted REACHED REACHED"), "{log}");
    ways.into_iter().filter_map(|way| way.strip_suffix(" closed")).collect()
}

/// How many connections there were, by host and reason.
pub(crate) async fn denials(stack: &Stack) -> Result<BTreeMap<(String, String), Value>> {
    let rows: Vec<Value> = serde_json::from_value(stack.sidecar.json(&["egress"]).await?)?;
    let key = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        (text("host"), text("reason"))
    };
    Ok(rows.into_iter().map(|row| (key(&row), row)).collect())
}

/// Checks what is known of the connections that reached the pool's Envoy: each was counted once.
async fn is_counted(stack: &Stack, outside: Ipv4Addr) -> Result<()> {
    let mut expected: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (_, host, reason) in COUNTED {
        let host = host.replace("OUTSIDE", &outside.to_string());
        *expected.entry((host, reason.to_owned())).or_default() += 1;
    }
    let counted = eventually("all that reached the Envoy is counted", async || {
        let denials = denials(stack).await?;
        let found: BTreeMap<_, _> = denials
            .iter()
            .map(|(key, row)| (key.clone(), row["connections"].as_u64().unwrap_or_default()))
            .collect();
        ensure!(found == expected, "{found:#?} instead of {expected:#?}");
        Ok(Some(denials))
    })
    .await?;
    for row in counted.values() {
        assert_eq!((&row["observed"], &row["pool"]), (&Value::Bool(false), &"default".into()));
        assert_eq!(row["repository"], "acme/app", "{row}");
        assert!(row["runner"].as_str().is_some_and(|it| it.starts_with("e2e-")), "{row}");
    }
    let metrics = stack.sidecar.metrics().await?;
    for reason in ["host", "address", "server_name", "request"] {
        let count = COUNTED.iter().filter(|(_, _, it)| *it == reason).count();
        let labels = format!(r#"{{pool="default",reason="{reason}",mode="enforce"}}"#);
        let sample = format!("edgerunner_egress_denied_total{labels} {count}\n");
        ensure!(metrics.contains(&sample), "no {sample} in {metrics}");
    }
    let logged = ["a job's connection was refused", "forbidden.test", "acme/app"];
    assert!(stack.sidecar.log_lines(&logged)? > 0);
    Ok(())
}

/// Ends the job and its runner, which tries ways out instead of asking GitHub for a job. Returns the
/// instance.
pub(crate) async fn end(stack: &Stack, job: u64) -> Result<String> {
    stack.sandbox.cancel_job(job)?;
    // It would launch another runner for a job that still waits.
    stack.known_as_completed(job).await?;
    for container in stack.containers.list().await? {
        stack.containers.remove(&container).await?;
    }
    Ok(stack.containers.instance().to_owned())
}

#[tokio::test]
async fn a_hostile_job_finds_no_way_out_and_what_it_tries_is_counted() {
    let outside = Outside::start().await.expect("a network");
    let options = options(&outside, "enforce").expect("images");
    let instance = Stack::run(options, async |stack| -> Result<String> {
        let id = stack.queue(600.0);
        let log = tried(stack).await?;
        let ways: BTreeSet<&str> =
            COUNTED.iter().map(|(way, ..)| *way).chain(NOT_COUNTED).collect();
        assert_eq!(closed_ways(&log), ways);
        println!("{} ways out were tried, {} of them counted", ways.len(), COUNTED.len());

        // On a Swarm, it is in the log of the node's Envoy.
        if Swarm::from_environment()?.is_none() {
            is_counted(stack, outside.internet.address).await?;
        }
        end(stack, id).await
    })
    .await;
    outside.end(&instance).await.expect("the network is removed");
}

#[tokio::test]
async fn what_is_observed_is_permitted_and_suggested_and_private_addresses_stay_closed() {
    let outside = Outside::start().await.expect("a network");
    let options = options(&outside, "observe").expect("images");
    let instance = Stack::run(options, async |stack| -> Result<String> {
        let id = stack.queue(600.0);
        let log = tried(stack).await?;
        for (way, state) in [
            ("connect-forbidden", "reached"),
            ("http-forbidden", "reached"),
            ("direct-https", "closed"),
            ("no-variables", "closed"),
            ("dns-by-dockers-resolver", "closed"),
            ("private-name", "closed"),
            ("private-name-http", "closed"),
            ("metadata-by-proxy", "closed"),
            ("host-docker0-by-proxy", "closed"),
            ("loopback-number", "closed"),
            ("metadata-name", "closed"),
            ("loopback-name-http", "closed"),
        ] {
            assert!(log.contains(&format!("way {way} {state}")), "{way}: {log}");
        }
        eventually("what was observed is suggested", async || {
            let suggestion = stack.sidecar.print(&["egress", "suggest"]).await?;
            ensure!(suggestion.contains("\"forbidden.test\""), "{suggestion}");
            ensure!(!suggestion.contains("private.test"), "{suggestion}");
            Ok(Some(()))
        })
        .await?;
        end(stack, id).await
    })
    .await;
    outside.end(&instance).await.expect("the network is removed");
}
