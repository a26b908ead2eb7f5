//! The time of a download through the Envoy of a pool with `egress`, compared with a container that
//! downloads the same directly.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions,
};
use edgerunner_testkit::containers::labelled;
use edgerunner_testkit::deployment::Secrets;
use edgerunner_testkit::programs::variable;
use edgerunner_testkit::{Authority, Deployment, Internet, eventually_within, tls};
use futures_util::TryStreamExt as _;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::spread::Spread;
use crate::table::table;

const NAME: &str = "download.test";
const BYTES: u64 = 100_000_000;
const CHUNK: usize = 64 * 1024;
/// Of a network of 1 Gbit/s, without the headers of its packets.
const PACE: f64 = 118e6;
/// The ports of the server, with their rate in bytes a second.
const SERVERS: [(u16, Option<f64>); 2] = [(443, Some(PACE)), (8443, None)];
const LIMIT: Duration = Duration::from_secs(300);
/// Not with the name of the deployment's instance, whose networks are removed.
const NETWORK: &str = "edgerunner-internet";
/// Of the container that downloads directly.
const LABEL: (&str, &str) = ("dev.edgerunner.bench", "egress");

pub(crate) async fn measure(
    deployment: &mut Deployment,
    secrets: &Secrets,
    rounds: u32,
) -> Result<String> {
    let outside = Outside::start(deployment.containers.docker().clone()).await?;
    let result = compare(deployment, secrets, rounds, &outside).await;
    // Also after an error.
    outside.end(deployment).await?;
    result
}

async fn compare(
    deployment: &mut Deployment,
    secrets: &Secrets,
    rounds: u32,
    outside: &Outside,
) -> Result<String> {
    let image = variable("EDGERUNNER_HOSTILE_IMAGE")?;
    let host = format!("{NAME}:{}", outside.internet.address);
    let permitted = SERVERS.map(|(port, _)| format!("{NAME}:{port}")).join(",");
    let script = script(rounds);
    let settings = [
        ("DOCKER_NETWORK", String::new()),
        ("DOCKER_RUNNER_IMAGE", image.clone()),
        ("DOCKER_COMMAND", format!("/usr/bin/bash,-c,{script}")),
        ("DOCKER_EGRESS", permitted),
        ("DOCKER_EGRESS_IMAGE", variable("EDGERUNNER_EGRESS_IMAGE")?),
        ("DOCKER_EXTRA_HOSTS", host.clone()),
    ];
    let directly = outside.directly(&image, &script, host).await?;
    deployment.start_with_sandbox(secrets, &settings).await?;
    deployment.sandbox().queue(&json!({ "seconds": 600.0 })).await?;
    let through = eventually_within(LIMIT, "a runner downloads", async || {
        let running = deployment.containers.running().await?;
        let runner = running.into_iter().find(|it| it.image.as_ref() == Some(&image));
        let Some(id) = runner.and_then(|runner| runner.id) else {
            return Ok(None);
        };
        outside.times(&id).await
    })
    .await?;

    let mut table = table(["100 MB over TLS", "directly", "through Envoy", "ratio"]);
    for (index, (_, pace)) in SERVERS.iter().enumerate() {
        let of = |times: &[f64]| {
            Spread::of(
                &times.iter().copied().skip(index).step_by(SERVERS.len()).collect::<Vec<_>>(),
            )
        };
        let (directly, through) = (of(&directly), of(&through));
        table.add_row([
            if pace.is_some() { "by a server at 1 Gbit/s" } else { "as fast as this machine is" }
                .to_owned(),
            format!("{:.2} s", directly.median),
            format!("{:.2} s", through.median),
            format!("{:.2}", through.median / directly.median),
        ]);
    }
    Ok(table.to_string())
}

/// Prints the seconds of each download, from the servers in turns, and `end`. Has no comma.
fn script(rounds: u32) -> String {
    let curl = "curl -sSk -o /dev/null -w '%{time_total}\\n' https://";
    let downloads = SERVERS.map(|(port, _)| format!("{curl}{NAME}:{port}/")).join("; ");
    format!("for ((i = 0; i < {rounds}; i++)); do {downloads}; done; echo end; sleep 600")
}

/// Servers that stand for one on the Internet.
struct Outside {
    docker: Docker,
    internet: Internet,
    _servers: JoinSet<()>,
}

impl Outside {
    async fn start(docker: Docker) -> Result<Self> {
        let internet = Internet::start(docker.clone(), NETWORK).await?;
        let acceptor = tls::acceptor(&Authority::new()?.issue(NAME)?)?;
        let mut servers = JoinSet::new();
        for (port, pace) in SERVERS {
            let listener = TcpListener::bind((internet.address, port)).await?;
            let acceptor = acceptor.clone();
            servers.spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            // The client notices an answer that ends too soon.
                            let _ = Box::pin(send(stream, pace)).await;
                        }
                    });
                }
            });
        }
        Ok(Self { docker, internet, _servers: servers })
    }

    /// The times of the downloads of a container in Docker's default network.
    async fn directly(&self, image: &str, script: &str, host: String) -> Result<Vec<f64>> {
        let command = ["/usr/bin/bash", "-c", script];
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(command.map(str::to_owned).to_vec()),
            labels: Some(HashMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())])),
            host_config: Some(HostConfig {
                extra_hosts: Some(vec![host]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let id = self.docker.create_container(None::<CreateContainerOptions>, body).await?.id;
        self.docker.start_container(&id, None::<StartContainerOptions>).await?;
        eventually_within(LIMIT, "a container downloads", async || self.times(&id).await).await
    }

    /// What the script has printed, once it has ended.
    async fn times(&self, container: &str) -> Result<Option<Vec<f64>>> {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
        let log: Vec<_> = self.docker.logs(container, Some(options)).try_collect().await?;
        let log: String = log.iter().map(ToString::to_string).collect();
        let Some(times) = log.strip_suffix("end\n") else {
            return Ok(None);
        };
        let times = times.lines().map(str::parse).collect::<Result<Vec<f64>, _>>();
        let times = times.with_context(|| format!("not times: {log}"))?;
        ensure!(times.len() % SERVERS.len() == 0, "too few downloads: {log}");
        Ok(Some(times))
    }

    /// Removes the network, and all containers that use it or lead to it.
    async fn end(self, deployment: &Deployment) -> Result<()> {
        deployment.containers.remove_all().await?;
        for container in labelled(&self.docker, &format!("{}={}", LABEL.0, LABEL.1)).await? {
            let id = container.id.context("no ID")?;
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            self.docker.remove_container(&id, Some(options)).await?;
        }
        self.internet.end().await
    }
}

/// Answers one request, with so many bytes a second at most.
async fn send(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    pace: Option<f64>,
) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await?;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let (chunk, begun) = ([0; CHUNK], Instant::now());
    let mut sent = 0;
    while sent < BYTES {
        let next = usize::try_from(BYTES - sent).unwrap_or(CHUNK).min(CHUNK);
        stream.write_all(&chunk[..next]).await?;
        sent += next as u64;
        if let Some(pace) = pace {
            let due = Duration::from_secs_f64(sent as f64 / pace);
            // Timers count whole milliseconds: one for several chunks.
            if due > begun.elapsed() + Duration::from_millis(1) {
                sleep(due - begun.elapsed()).await;
            }
        }
    }
    stream.shutdown().await
}
