//! Everything on this machine, and a first job on its way through it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::build::Profile;
use crate::docker;
use crate::image;
use crate::journey::Journey;
use crate::ports::{Ports, STANDARD, STANDARD_TLS, local};
use crate::programs::{Programs, Secrets};
use crate::sandbox::Sandbox;
use crate::stack::Stack;
use crate::stop::{Interrupted, Stop};
use crate::workspace;

/// Enough to try things by hand, and threads are not free.
const ENVOY_WORKERS: u32 = 1;

const FIRST_JOB_TIMEOUT: Duration = Duration::from_secs(90);

/// With one of these in the environment there is a GitHub to talk to.
const CREDENTIALS: [&str; 3] = ["GITHUB_TOKEN", "GITHUB_TOKEN_FILE", "GITHUB_APP_ID"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Use the sandbox in GitHub's place even with credentials in the environment
    #[arg(long)]
    sandbox: bool,
    /// End once the first job of the sandbox has gone its whole way
    #[arg(long)]
    once: bool,
    /// Build without optimization: sooner there, slower at work
    #[arg(long)]
    dev: bool,
    /// Start envoy/production.yaml: webhooks by HTTPS, with a certificate for this run alone
    #[arg(long)]
    tls: bool,
    /// Listen on ports that are free now instead of 8080 (8443 with --tls), 8081, 8082,
    /// 9901 and 50051
    #[arg(long)]
    free_ports: bool,
}

pub(crate) async fn run(stop: &Stop, args: Args) -> Result<()> {
    let sandbox = args.sandbox || !CREDENTIALS.iter().any(|name| is_set(name));
    if !sandbox {
        if !is_set("GITHUB_WEBHOOK_SECRET") {
            bail!(
                "there are credentials for GitHub in the environment but no GITHUB_WEBHOOK_SECRET; \
                 set it to the secret of your webhook, or use `--sandbox` to leave GitHub alone"
            );
        }
        if args.once {
            bail!("--once waits for a job of the sandbox: use it with --sandbox");
        }
    }
    let standard = if args.tls { STANDARD_TLS } else { STANDARD };
    if !args.free_ports {
        standard.check(sandbox)?;
    }
    let profile = if args.dev { Profile::Dev } else { Profile::Release };
    let programs = Programs::get(stop, profile).await?;
    let ports = if args.free_ports { Ports::free()? } else { standard };
    let directory = directory(&args, &ports)?;
    // Last, so that only what follows has to see that it is stopped.
    let engine = docker::engine(stop).await?;
    let instance = match std::env::var("SCHEDULER_INSTANCE") {
        Ok(id) if !sandbox => id,
        // The same in every run at this place: what a run that was killed has
        // left behind is then known by the next one.
        _ => format!("up-{}", ports.http),
    };
    let mut stack = Stack::new(engine, ports, directory, instance);

    let result = async {
        if args.tls {
            stack.use_tls(&programs)?;
        }
        if sandbox {
            image::build(stop, stack.engine(), profile).await?;
            stack.start_with_sandbox(stop, &programs, &Secrets::random(), ENVOY_WORKERS).await?;
            follow(stop, &stack, args.once).await
        } else {
            stack.start_with_github(stop, &programs, ENVOY_WORKERS).await?;
            print_github(&stack);
            stop.or(async { Err(stack.died().await) }).await
        }
    }
    .await;

    if !args.once {
        eprintln!("\nstopping");
    }
    stack.end().await;
    match result {
        // From here on it is the ordinary way to end.
        Err(error) if error.is::<Interrupted>() && !args.once => Ok(()),
        result => result,
    }
}

/// Runs beside each other must not write over each other's files.
fn directory(args: &Args, ports: &Ports) -> Result<PathBuf> {
    let mut directory = workspace::target().join("up");
    if args.free_ports {
        directory.push(ports.http.to_string());
    }
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Queues a first job and tells what becomes of it and of all later ones.
async fn follow(stop: &Stop, stack: &Stack, once: bool) -> Result<()> {
    let sandbox = Sandbox::at(local(stack.ports().sandbox));
    let mut journey = Journey::new(sandbox);
    println!("\nA first job:");
    let first = async {
        sandbox.queue(&first_job()).await?;
        while !journey.over() {
            journey.look(stack).await?;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        anyhow::Ok(())
    };
    let first = async {
        tokio::select! {
            first = tokio::time::timeout(FIRST_JOB_TIMEOUT, first) => first.with_context(|| format!(
                "the first job has not gone its way after {FIRST_JOB_TIMEOUT:?}; the logs in {} may tell why",
                workspace::shown(stack.directory())
            ))?,
            error = stack.died() => Err(error),
        }
    };
    stop.or(first).await?;
    if once {
        return Ok(());
    }

    print_sandbox(stack);
    let others = async {
        loop {
            journey.look(stack).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    stop.or(async {
        tokio::select! {
            result = others => result,
            error = stack.died() => Err(error),
        }
    })
    .await
}

fn first_job() -> Value {
    json!({ "repository": "acme/app", "labels": ["self-hosted"], "seconds": 3 })
}

fn print_sandbox(stack: &Stack) {
    let ports = stack.ports();
    println!(
        "
edgerunner is up, with a sandbox in GitHub's place.

  status page      http://{}/
  Envoy's admin    http://{}/
  sandbox          http://{sandbox}/_sandbox/
  webhooks go to   {webhook_url}
  logs             {}/*.log

Queue another job:

  curl -s http://{sandbox}/_sandbox/jobs -d '{}'
{}
Ctrl-C ends everything.
",
        local(ports.http),
        local(ports.envoy_admin),
        workspace::shown(stack.directory()),
        first_job(),
        over_tls(stack),
        webhook_url = stack.webhook_url(),
        sandbox = local(ports.sandbox),
    );
}

fn print_github(stack: &Stack) {
    let ports = stack.ports();
    println!(
        "
edgerunner is up and talks to GitHub.

  status page      http://{}/
  Envoy's admin    http://{}/
  logs             {}/*.log

Let your webhook (content type application/json, event \"Workflow jobs\", the
secret of GITHUB_WEBHOOK_SECRET) reach {}, for instance through a
tunnel, and queue a job whose labels a pool has.
{}
Ctrl-C ends everything, runners at work included.
",
        local(ports.http),
        local(ports.envoy_admin),
        workspace::shown(stack.directory()),
        stack.webhook_url(),
        over_tls(stack),
    );
}

/// How to see for oneself; nothing without TLS.
fn over_tls(stack: &Stack) -> String {
    let Some(ca) = stack.ca() else { return String::new() };
    format!(
        "
Send something yourself (401: it is not signed):

  curl -i --cacert {} {} -H 'content-type: application/json' -d '{{}}'
",
        workspace::shown(&ca),
        stack.webhook_url(),
    )
}
