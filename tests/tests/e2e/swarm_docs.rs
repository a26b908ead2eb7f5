//! `docs/swarm.md` and `packaging/swarm/`: three Engines become a Swarm as they say.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edgerunner_sandbox::{JobRequest, JobStatus, Sandbox, Settings};
use edgerunner_testkit::postgres::{PASSWORD, Postgres};
use edgerunner_testkit::programs::{self, LAUNCHER_IMAGE};
use edgerunner_testkit::swarm::Node;
use edgerunner_testkit::{tls, workspace};
use edgerunner_tests::tools::swarm_programs;
use edgerunner_tests::{
    Authority, Cluster, Containers, Options, RUNNER_IMAGE, SECRET, Stack, TOKEN, eventually,
    eventually_within,
};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::documents;

const ENVOY_IMAGE: &str = "edgerunner-envoy:local";
const API_TOKEN: &str = "api-token-sesame";
const INSTANCE: &str = "stack";
/// The writer and a reader.
const SESSIONS_MIN: u32 = 2;
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
/// Envoy, its health check, and the first job.
const STACK_LIMIT: Duration = Duration::from_secs(120);

/// Types `docker …` on a node.
async fn docker(node: &Node, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Output> {
    let mut command = programs::command("docker".as_ref());
    command
        .args(arguments)
        .env("DOCKER_HOST", node.docker_host())
        .envs(variables.iter().copied())
        .kill_on_drop(true);
    let output = timeout(COMMAND_LIMIT, command.output()).await;
    let output = output.with_context(|| format!("docker {arguments:?} is still running"))??;
    ensure!(output.status.success(), "docker {arguments:?}: {output:?}");
    Ok(output)
}

/// Engines that are no Swarm yet become one by the commands of the document.
async fn follow_the_document(cluster: &Cluster) -> Result<()> {
    for node in &cluster.nodes {
        docker(node, &["swarm", "leave", "--force"], &[]).await?;
    }
    let (first, others) = cluster.nodes.split_first().context("no node")?;
    let init = documents::swarm("docker swarm init")?;
    let init = init.replace("10.0.0.1", &first.address().to_string());
    let words: Vec<&str> = init.split_whitespace().skip(1).collect();
    let printed = String::from_utf8(docker(first, &words, &[]).await?.stdout)?;
    let join = printed.lines().find_map(|line| line.trim().strip_prefix("docker "));
    let join: Vec<&str> = join.context("no command to join")?.split_whitespace().collect();
    for node in others {
        docker(node, &join, &[]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn from_one_machine_to_three() -> Result<()> {
    let images = [RUNNER_IMAGE, LAUNCHER_IMAGE];
    let cluster = Cluster::start(&swarm_programs()?, 1, 2, &images).await?;
    follow_the_document(&cluster).await?;
    let configuration = documents::swarm("[swarm]")?;
    let configuration = configuration.replace("registry.example.com/edgerunner:1", LAUNCHER_IMAGE);
    let options = Options::default()
        .swarm(&cluster.swarm())
        .file(&configuration)
        .sidecar("SERVER_API_TOKEN", API_TOKEN);
    Stack::run(options, async |stack| {
        let jobs: Vec<u64> = (0..3).map(|_| stack.queue(1.0)).collect();
        for job in jobs {
            stack.completed(job).await?;
        }
        let nodes = stack.sidecar.print(&["nodes"]).await?;
        for node in &cluster.nodes {
            ensure!(nodes.contains(node.name()), "{nodes}");
        }
        // It fails for what the test lacks: a public URL and permissions at GitHub.
        let doctor = String::from_utf8(stack.sidecar.run(&["doctor"]).await?.stdout)?;
        for text in
            ["1 managers, 3 of 3 nodes ready", "1: the loss of one stops launches", "3 nodes"]
        {
            ensure!(doctor.contains(text), "no `{text}` in\n{doctor}");
        }
        a_drained_node_finishes_its_runners(stack, &cluster).await
    })
    .await;
    Ok(())
}

async fn a_drained_node_finishes_its_runners(stack: &Stack, cluster: &Cluster) -> Result<()> {
    let busy = stack.queue(8.0);
    let job = stack.in_progress(busy).await?;
    let runner = job.runner.context("no runner")?.runner_name;
    stack.busy(busy).await?;
    // GitHub's webhook may come before Swarm says where the runner is.
    let node = eventually("its node is known", async || {
        let status = stack.sidecar.status().await?;
        let mut runners = status["runners"].as_array().context("no runners")?.iter();
        let its = runners.find(|it| it["name"] == *runner).context("no runner")?;
        Ok(its["node"].as_str().map(str::to_owned))
    })
    .await?;
    let drained = stack.sidecar.print(&["nodes", "drain", &node]).await?;
    ensure!(drained.contains("its runner finishes"), "{drained}");
    let others: Vec<u64> = (1..cluster.nodes.len()).map(|_| stack.queue(0.5)).collect();
    for job in others {
        let runner = stack.completed(job).await?.runner.context("no runner")?.runner_name;
        let record = stack.sidecar.get(&format!("/api/v1/runners/{runner}")).await?.json()?;
        ensure!(record["node"] != node, "{record}");
    }
    let done = stack.completed(busy).await?;
    ensure!(done.conclusion == Some(edgerunner_sandbox::Conclusion::Success), "{done:?}");
    stack.sidecar.print(&["nodes", "resume", &node]).await?;
    Ok(())
}

/// A stack with the sandbox in GitHub's place. Ends with it.
struct Deployed {
    sandbox: Sandbox,
    directory: TempDir,
}

impl Deployed {
    /// Writes what a user puts next to the stack's file. Webhooks go to the first node.
    async fn new(cluster: &Cluster) -> Result<Self> {
        let authority = Authority::new()?;
        let settings = Settings {
            tokens: vec![TOKEN.to_owned()],
            webhook_secret: SECRET.to_owned(),
            webhook_roots: tls::roots(&authority.certificate)?,
            ..Settings::default()
        };
        let listener = TcpListener::bind((cluster.swarm().gateway, 0)).await?;
        let deployed =
            Self { sandbox: Sandbox::start(listener, settings)?, directory: TempDir::new()? };
        // What a user changes in it: where GitHub is, and the runner's image.
        let settings = deployed
            .shipped("edgerunner.toml")?
            .replace("memory_mib = 4096", "memory_mib = 512")
            .replace("cpus = 2", "cpus = 1");
        let github = deployed.sandbox.url();
        let settings = format!(
            "{settings}runner_image = \"{RUNNER_IMAGE}\"\npull_policy = \"never\"\nnetwork = \"host\"\n\
             [github]\napi_url = \"{github}\"\nweb_url = \"{github}\"\nallow_http = true\n\
             [scheduler]\ninstance = \"{INSTANCE}\"\n"
        );
        deployed.write("edgerunner.toml", &settings)?;
        deployed.write("github-token", TOKEN)?;
        deployed.write("webhook-secret", SECRET)?;
        let address = cluster.nodes[0].outside_address().to_string();
        let identity = authority.issue(&address)?;
        deployed.write("tls.crt", &identity.certificate)?;
        deployed.write("tls.key", &identity.key)?;
        deployed.sandbox.set_webhook_url(format!("https://{address}:443/webhooks/github"));
        Ok(deployed)
    }

    fn shipped(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(workspace::root().join("packaging/swarm").join(name))?)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.directory.path().join(name), text)?)
    }

    /// Runs `docker stack deploy` on this node.
    async fn deploy(&self, node: &Node, name: &str, more: &[(&str, &str)]) -> Result<()> {
        let file = self.directory.path().join(name).display().to_string();
        // Nothing of it is in a registry.
        let deploy =
            ["stack", "deploy", "--resolve-image", "never", "--compose-file", &file, "edgerunner"];
        let images =
            [("EDGERUNNER_IMAGE", LAUNCHER_IMAGE), ("EDGERUNNER_ENVOY_IMAGE", ENVOY_IMAGE)];
        docker(node, &deploy, &[&images, more].concat()).await?;
        Ok(())
    }

    /// Queues jobs until one is served: while Envoy is not there yet, webhooks are lost.
    async fn serves_a_job(&self, node: &Node) -> Result<()> {
        let served = eventually_within(STACK_LIMIT, "a job is served", async || {
            let job = JobRequest { seconds: 0.1, ..JobRequest::default() };
            let job = self.sandbox.queue_job(&job);
            tokio::time::sleep(Duration::from_secs(5)).await;
            let job = self.sandbox.job(job).context("no such job")?;
            Ok((job.status == JobStatus::Completed).then_some(()))
        })
        .await;
        if served.is_err() {
            for service in ["edgerunner_edgerunner", "edgerunner_envoy"] {
                for command in [
                    &["service", "ps", "--no-trunc", service],
                    &["service", "logs", "--raw", service],
                ] {
                    let output = docker(node, command, &[]).await;
                    eprintln!("{command:?}: {output:?}");
                }
            }
        }
        served
    }

    /// Waits until no runner is left.
    async fn end(self, cluster: &Cluster) -> Result<()> {
        let containers = Containers::watch_swarm(&cluster.swarm().engines, INSTANCE)?;
        eventually_within(STACK_LIMIT, "its runners are gone", async || {
            Ok(containers.list().await?.is_empty().then_some(()))
        })
        .await?;
        self.sandbox.shutdown().await;
        Ok(())
    }
}

async fn label(node: &Node, labelled: &str) -> Result<()> {
    docker(node, &["node", "update", "--label-add", "edgerunner=true", labelled], &[]).await?;
    Ok(())
}

#[tokio::test]
async fn the_stack_of_the_documentation_serves_a_job() -> Result<()> {
    let images = [RUNNER_IMAGE, LAUNCHER_IMAGE, ENVOY_IMAGE];
    let cluster = Cluster::start(&swarm_programs()?, 1, 2, &images).await?;
    let deployed = Deployed::new(&cluster).await?;
    deployed.write("stack.yaml", &deployed.shipped("stack.yaml")?)?;
    let first = &cluster.nodes[0];
    label(first, first.name()).await?;
    deployed.deploy(first, "stack.yaml", &[]).await?;
    deployed.serves_a_job(first).await?;
    deployed.end(&cluster).await
}

#[tokio::test]
async fn two_managers_serve_jobs_and_one_may_be_lost() -> Result<()> {
    const STACK: &str = "high-availability.yaml";
    let images = [RUNNER_IMAGE, LAUNCHER_IMAGE, ENVOY_IMAGE];
    let mut cluster = Cluster::start(&swarm_programs()?, 3, 0, &images).await?;
    let postgres = Postgres::start()?;
    let database = postgres.database()?;
    // The server listens on the loopback interface only.
    let relay = TcpListener::bind((cluster.swarm().gateway, 0)).await?;
    let address = relay.local_addr()?;
    let url = postgres.url_of("secured", "127.0.0.1", &database);
    let url = url.replace(&format!("127.0.0.1:{}", postgres.port()), &address.to_string());
    let deployed = Deployed::new(&cluster).await?;
    deployed.write("postgres-password", PASSWORD)?;
    // Encryption needs modules that the kernel may lack.
    let stack = deployed.shipped(STACK)?.replace("    driver_opts: {encrypted: \"\"}\n", "");
    deployed.write(STACK, &stack)?;
    let test = async {
        for name in [cluster.nodes[0].name(), cluster.nodes[1].name()] {
            label(&cluster.nodes[0], name).await?;
        }
        let url = format!("{url}?sslmode=disable");
        deployed.deploy(&cluster.nodes[0], STACK, &[("STORE_URL", &url)]).await?;
        deployed.serves_a_job(&cluster.nodes[0]).await?;
        eventually_within(STACK_LIMIT, "both sidecars know Postgres", async || {
            let sessions = "SELECT count(DISTINCT client_port) FROM pg_stat_activity";
            let sessions: u32 = postgres
                .sql(&database, &format!("{sessions} WHERE usename = 'secured'"))?
                .parse()?;
            Ok((sessions >= 2 * SESSIONS_MIN).then_some(()))
        })
        .await?;
        // With everything on it, whether it planned or not.
        drop(cluster.nodes.remove(1));
        deployed.serves_a_job(&cluster.nodes[0]).await?;
        deployed.end(&cluster).await
    };
    tokio::select! {
        tested = test => tested,
        error = pass_on(relay, postgres.port()) => error,
    }
}

/// Passes connections on to Postgres. Returns only if it fails.
async fn pass_on(relay: TcpListener, port: u16) -> Result<()> {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (mut from, _) = relay.accept().await?;
        connections.spawn(async move {
            let mut to = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            copy_bidirectional(&mut from, &mut to).await
        });
    }
}
