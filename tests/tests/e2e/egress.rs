//! Hosts that jobs may connect to.

use std::collections::BTreeMap;
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
/// The ways that reach the pool's Envoy. The others fail before that, so that nobody can count them.
const COUNTED: [(&str, &str); 9] = [
    ("forbidden.test:443", "host"),
    ("forbidden.test", "host"),
    ("allowed.test:443", "server_name"),
    ("private.test:443", "address"),
    ("private.test", "address"),
    ("169.254.169.254", "host"),
    ("allowed.test:8443", "host"),
    ("allowed.test:8080", "host"),
    ("allowed.test.forbidden.test:443", "host"),
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
        let resolver = UdpSocket::bind((address, 53)).await?;
        servers.spawn(async move {
            let mut query = [0; 512];
            while let Ok((_, client)) = resolver.recv_from(&mut query).await {
                let _ = resolver.send_to(b"REACHED", client).await;
            }
        });
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
    let hosts = ["allowed.test", "forbidden.test", "allowed.test.forbidden.test"];
    let hosts = hosts.map(|host| format!("{host}:{address}"));
    Ok(Options::default()
        .sidecar("DOCKER_NETWORK", "")
        .sidecar("DOCKER_RUNNER_IMAGE", &hostile_image()?)
        .sidecar("DOCKER_COMMAND", "/usr/bin/bash,/ways_out.sh")
        .sidecar("DOCKER_EGRESS", "allowed.test,private.test")
        .sidecar("DOCKER_EGRESS_MODE", mode)
        .sidecar("DOCKER_EGRESS_IMAGE", &egress_image()?)
        .sidecar("DOCKER_EXTRA_HOSTS", &format!("{},private.test:172.17.0.1", hosts.join(",")))
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

/// Checks that only what is permitted was reached. Returns how many other ways were tried.
pub(crate) fn closed_ways(log: &str) -> usize {
    let ways: Vec<&str> = log.lines().filter(|line| line.starts_with("way ")).collect();
    let reached: Vec<&&str> = ways.iter().filter(|line| !line.ends_with(" closed")).collect();
    assert!(reached.is_empty(), "{reached:#?}");
    assert!(log.contains("permitted REACHED REACHED"), "{log}");
    ways.len()
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

/// Checks what is known of the connections that reached the pool's Envoy.
async fn is_counted(stack: &Stack) -> Result<()> {
    let counted = eventually("all that reached the Envoy is counted", async || {
        let denials = denials(stack).await?;
        let missing = COUNTED
            .iter()
            .find(|(host, reason)| !denials.contains_key(&((*host).into(), (*reason).into())));
        ensure!(missing.is_none(), "{missing:?}: {denials:?}");
        Ok(Some(denials))
    })
    .await?;
    for row in counted.values() {
        assert_eq!((&row["observed"], &row["pool"]), (&Value::Bool(false), &"default".into()));
        assert_eq!(row["repository"], "acme/app", "{row}");
        assert!(row["runner"].as_str().is_some_and(|it| it.starts_with("e2e-")), "{row}");
    }
    let metrics = String::from_utf8(stack.sidecar.get("/metrics").await?.body.into())?;
    for reason in ["host", "address", "server_name"] {
        let series = format!("pool=\"default\",reason=\"{reason}\",mode=\"enforce\"");
        assert!(metrics.contains(&series), "{series}");
    }
    let logged = ["a job's connection was refused", "forbidden.test", "acme/app"];
    assert!(stack.sidecar.log_lines(&logged)? > 0);
    Ok(())
}

/// Ends the job and its runner, which tries ways out instead of asking GitHub for a job. Returns the
/// instance.
pub(crate) async fn end(stack: &Stack, job: u64) -> Result<String> {
    stack.sandbox.cancel_job(job)?;
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
        ensure!(closed_ways(&log) >= 20, "{log}");

        // On a Swarm, it is in the log of the node's Envoy.
        if Swarm::from_environment()?.is_none() {
            is_counted(stack).await?;
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
