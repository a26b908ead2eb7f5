//! Kills of the sidecar.

use std::time::Duration;

use anyhow::Result;
use edgerunner_tests::{Options, Podman, Sidecar, Stack};
use fastrand::Rng;
use tokio::time::sleep;

use crate::account::Account;
use crate::figures::Figures;
use crate::load;
use crate::plan::Plan;

const MAX: usize = 4;

/// The sidecar is killed at random moments, including its start.
pub(crate) async fn run(plan: &Plan) -> Figures {
    run_with(plan, Options::default()).await
}

/// The same with runners on Podman.
pub(crate) async fn run_on_podman(plan: &Plan) -> Figures {
    let podman = Podman::new().await.expect("Podman");
    run_with(plan, Options::default().podman(&podman)).await
}

async fn run_with(plan: &Plan, options: Options) -> Figures {
    let options = options.sidecar("RUNNER_MAX", &MAX.to_string());
    Stack::run(options, async |stack| {
        let mut account = Account::open(MAX);
        let mut random = plan.random();
        for _ in 0..plan.pick(6, 50) {
            let Stack { sandbox, sidecar, .. } = stack;
            let load = load::stream(sandbox, random.fork());
            tokio::select! {
                killed = kill(sidecar, &mut random) => killed?,
                never = load => match never {},
            }
            account.faults += 1;
        }
        stack.sidecar.ready().await?;
        account.close(stack).await
    })
    .await
}

async fn kill(sidecar: &mut Sidecar, random: &mut Rng) -> Result<()> {
    if random.bool() {
        sidecar.ready().await?;
    }
    sleep(Duration::from_millis(random.u64(0..=900))).await;
    sidecar.kill().await?;
    sidecar.spawn()
}
