//! Parked runners while the sidecar is killed, their containers end, and GitHub drops their
//! registrations.

use std::time::Duration;

use anyhow::Result;
use edgerunner_tests::{Options, Stack};
use fastrand::Rng;
use tokio::time::sleep;

use crate::account::Account;
use crate::figures::Figures;
use crate::load;
use crate::plan::Plan;

const MAX: usize = 4;
const PARKED: usize = 3;

pub(crate) async fn run(plan: &Plan) -> Figures {
    let options = Options::default()
        .sidecar("RUNNER_MAX", &MAX.to_string())
        .sidecar("RUNNER_PARKED", &PARKED.to_string())
        .sidecar("RUNNER_REPOSITORIES", "acme/app");
    Stack::run(options, async |stack| {
        // One that is being removed may be there beside the one in its place.
        let mut account = Account::open(MAX + 2 * PARKED).killing_work();
        let mut random = plan.random();
        for _ in 0..plan.pick(6, 50) {
            let load = load::stream(&stack.sandbox, random.fork());
            let time = Duration::from_millis(random.u64(500..=2_500));
            tokio::select! {
                () = sleep(time) => {}
                never = load => match never {},
            }
            break_something(stack, &mut random).await?;
            account.faults += 1;
        }
        stack.sidecar.ready().await?;
        account.check(stack).await?;
        // Only without parked runners is nothing left in the end.
        stack.sidecar.terminate().await?;
        stack.sidecar.configure("RUNNER_PARKED", "0");
        stack.sidecar.start().await?;
        account.close(stack).await
    })
    .await
}

async fn break_something(stack: &mut Stack, random: &mut Rng) -> Result<()> {
    let offline: Vec<_> =
        stack.sandbox.runners().into_iter().filter(|runner| !runner.online()).collect();
    match random.u8(0..3) {
        0 => {
            stack.sidecar.kill().await?;
            stack.sidecar.spawn()?;
        }
        1 => {
            for container in stack.containers.running().await? {
                let names = container.names.clone().unwrap_or_default();
                if offline.iter().any(|it| names.iter().any(|name| name.ends_with(&it.name))) {
                    stack.containers.remove(&container).await?;
                }
            }
        }
        _ => {
            for runner in offline {
                // It may have begun to work.
                let _ = stack.sandbox.unregister_runner(runner.id);
            }
        }
    }
    Ok(())
}
