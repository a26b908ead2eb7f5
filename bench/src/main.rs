//! The benchmarks behind `cargo xtask bench`, which builds and installs what they need
//! and passes it in variables.

mod bare;
mod burst;
mod compare;
mod debian_webhook;
mod delivery;
mod egress;
mod engines;
mod fastapi;
mod hash;
mod launch;
mod load;
mod machine;
mod memory;
mod parked;
mod pods;
mod pretended;
mod restart;
mod spread;
mod swarm;
mod table;
mod webhooks;

use anyhow::{Result, anyhow, bail};
use edgerunner_testkit::deployment::{Secrets, Settings};
use edgerunner_testkit::ports::Ports;
use edgerunner_testkit::programs::variable;
use edgerunner_testkit::{Deployment, Programs, workspace};
use tokio::signal::unix::{SignalKind, signal};

use engines::Engines;

#[tokio::main]
async fn main() -> Result<()> {
    let parts = variable("EDGERUNNER_BENCH_PARTS")?;
    // Memory is measured in a sidecar that has done nothing else.
    let (memory, others): (Vec<&str>, Vec<&str>) =
        parts.split(',').partition(|part| *part == "memory");
    let mut tables = vec![machine::describe()];
    let rounds: u32 = variable("EDGERUNNER_BENCH_ROUNDS")?.parse()?;
    // It has Engines of its own.
    let (swarm, others): (Vec<&str>, Vec<&str>) =
        others.into_iter().partition(|part| *part == "swarm");
    if !swarm.is_empty() {
        eprintln!("… swarm");
        tables.extend(Box::pin(swarm::measure(&Programs::from_environment()?, rounds)).await?);
    }
    let (pods, others): (Vec<&str>, Vec<&str>) =
        others.into_iter().partition(|part| *part == "kubernetes");
    if !pods.is_empty() {
        eprintln!("… kubernetes");
        tables.push(Box::pin(pods::measure(&Programs::from_environment()?, rounds)).await?);
    }
    // Its sidecar has a pool of another kind.
    let (egress, others): (Vec<&str>, Vec<&str>) =
        others.into_iter().partition(|part| *part == "egress");
    for (parts, envoy_workers) in [(others, machine::cores()), (egress, 1), (memory, 1)] {
        if !parts.is_empty() {
            run(&parts, envoy_workers, &mut tables).await?;
        }
    }
    let logs = workspace::shown(&directory());
    println!("\n{}\n\nlogs: {logs}", tables.join("\n\n"));
    Ok(())
}

fn directory() -> std::path::PathBuf {
    workspace::target().join("bench")
}

/// Runs these parts in one deployment, which it stops on errors and signals as well.
async fn run(parts: &[&str], envoy_workers: u32, tables: &mut Vec<String>) -> Result<()> {
    let programs = Programs::from_environment()?;
    let settings = Settings {
        ports: Ports::free()?,
        directory: directory(),
        instance: "bench".to_owned(),
        tls: false,
        envoy_workers,
        github: std::net::Ipv4Addr::LOCALHOST.into(),
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut deployment = Deployment::new(&programs, settings)?;
    let result = tokio::select! {
        result = Box::pin(measure(parts, &mut deployment, tables)) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow!("interrupted")),
    };
    deployment.stop().await;
    result
}

async fn measure(
    parts: &[&str],
    deployment: &mut Deployment,
    tables: &mut Vec<String>,
) -> Result<()> {
    let rounds: u32 = variable("EDGERUNNER_BENCH_ROUNDS")?.parse()?;
    let secrets = Secrets::random();
    if parts == ["egress"] {
        eprintln!("… egress");
        tables.push(Box::pin(egress::measure(deployment, &secrets, rounds)).await?);
        return Ok(());
    }
    let runners = [("RUNNER_MAX", burst::MAX.to_string())];
    deployment.start_with_sandbox(&secrets, &runners).await?;
    for part in parts {
        eprintln!("… {part}");
        if *part == "restart" {
            tables.push(Box::pin(restart::measure(deployment, &secrets)).await?);
            continue;
        }
        if *part == "launch" {
            tables.push(Box::pin(parked::measure(deployment, rounds)).await?);
        }
        let others = match *part {
            "webhooks" => Some(webhooks::start_others(deployment, &secrets).await?),
            _ => None,
        };
        let deployment = &*deployment;
        let engines = Engines::new(vec![deployment.containers.docker().clone()]);
        let part = async {
            match (*part, &others) {
                ("webhooks", Some(others)) => {
                    webhooks::measure(deployment, others, &secrets.webhook, rounds).await
                }
                ("hash", _) => hash::measure(deployment, &secrets.webhook, rounds).await,
                ("launch", _) => {
                    let titles = &launch::ON_ONE_ENGINE;
                    launch::measure(deployment, &engines, &secrets.token, rounds, titles).await
                }
                ("burst", _) => {
                    let burst = &burst::ON_ONE_ENGINE;
                    burst::measure(deployment, &engines, &secrets.token, burst).await
                }
                ("memory", _) => memory::measure(deployment).await,
                (other, _) => bail!("unknown part {other}"),
            }
        };
        // The numbers of a broken deployment would be worthless.
        tables.push(tokio::select! {
            table = part => table?,
            error = deployment.died() => return Err(error),
        });
    }
    Ok(())
}
