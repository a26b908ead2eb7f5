//! A disk that fills up.

use anyhow::{Result, bail};
use edgerunner_tests::{Options, Stack, Webhook, eventually, payload};
use fastrand::Rng;

use crate::account::Account;
use crate::figures::Outcome;
use crate::load;
use crate::plan::Plan;
use crate::small_disk::SmallDisk;

const MAX: usize = 4;
/// Space that the database has already allocated holds some.
const DELIVERIES_MAX: u32 = 2_000;

/// The store is on a disk that fills up and gets space again.
pub(crate) async fn run(plan: &Plan) -> Outcome {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(error) => return Outcome::Skipped(format!("{error:#}")),
    };
    let store = disk.path().join("edgerunner.db").display().to_string();
    let options =
        Options::default().sidecar("RUNNER_MAX", &MAX.to_string()).sidecar("STORE_PATH", &store);
    let figures = Stack::run(options, async |stack| {
        let mut account = Account::open(MAX);
        let mut random = plan.random();
        for _ in 0..plan.pick(1, 10) {
            load::burst(&stack.sandbox, &mut random, 8);
            disk.fill()?;
            account.faults += 1;
            until_refused(stack, &mut random).await?;
            let refused = load::burst(&stack.sandbox, &mut random, 8);
            eventually("all of them are rejected", async || {
                let deliveries = stack.sandbox.deliveries();
                let count = deliveries
                    .iter()
                    .filter(|it| it.job_id.is_some_and(|id| refused.contains(&id)))
                    .filter(|it| it.status_code == 503)
                    .count();
                Ok((count >= refused.len()).then_some(()))
            })
            .await?;
            account.check(stack).await?;
            disk.clear()?;
            // The next start checks the database.
            stack.sidecar.kill().await?;
            stack.sidecar.start().await?;
        }
        account.close(stack).await
    })
    .await;
    Outcome::Done(figures)
}

/// Sends deliveries of completed jobs, which launch nothing, until the disk is full.
async fn until_refused(stack: &Stack, random: &mut Rng) -> Result<()> {
    for _ in 0..DELIVERIES_MAX {
        let over = Webhook::workflow_job(&payload("completed", random.u64(1..1 << 40)));
        let answer = stack.send(&over).await?;
        match answer.status {
            202 => {}
            503 => return Ok(()),
            _ => bail!("{answer:?}"),
        }
    }
    bail!("{DELIVERIES_MAX} deliveries fit on a full disk");
}
