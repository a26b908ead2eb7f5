//! Faults of webhooks.

use std::time::Duration;

use anyhow::Result;
use edgerunner_sandbox::{DeliveryFault, DeliveryFaultKind, Faults};
use edgerunner_tests::{Options, Stack};
use tokio::time::sleep;

use crate::account::{Account, redelivering};
use crate::figures::Figures;
use crate::load;
use crate::plan::Plan;

const MAX: usize = 4;

/// About half of all deliveries are lost, doubled, reordered, late or never sent. Lost ones
/// are redelivered.
pub(crate) async fn run(plan: &Plan) -> Figures {
    let options = Options::default().sidecar("RUNNER_MAX", &MAX.to_string());
    Stack::run(options, async |stack| {
        let mut account = Account::open(MAX);
        let random = plan.random();
        run_without(stack, &["in_progress"]).await?;
        // A completed job without further deliveries is noticed after a minute, which the
        // short form does not have.
        let mut vanishing = vec!["queued", "completed"];
        if plan.long {
            run_without(stack, &["in_progress", "completed"]).await?;
            vanishing.push("in_progress");
        }
        let kinds = [
            DeliveryFaultKind::Lost,
            DeliveryFaultKind::Doubled,
            DeliveryFaultKind::Reordered,
            DeliveryFaultKind::Delayed { ms: 700 },
        ];
        let kinds = kinds.map(DeliveryFault::from).into_iter();
        let often = |fault| DeliveryFault { probability: 0.15, ..fault };
        stack.sandbox.set_faults(Faults {
            deliveries: kinds.chain(vanishing.into_iter().map(vanished)).map(often).collect(),
            seed: plan.seed,
            ..Faults::default()
        });
        tokio::select! {
            () = sleep(Duration::from_secs(plan.pick(6, 60))) => {}
            never = load::stream(&stack.sandbox, random) => match never {},
            never = redelivering(&stack.sandbox) => match never {},
        }
        let deliveries = stack.sandbox.deliveries();
        account.faults += deliveries.iter().filter(|it| !it.succeeded()).count();
        stack.sandbox.set_faults(Faults::default());
        account.close(stack).await
    })
    .await
}

/// Runs a job whose deliveries with these actions vanish.
async fn run_without(stack: &Stack, actions: &[&str]) -> Result<()> {
    let deliveries = actions.iter().copied().map(vanished).collect();
    stack.sandbox.set_faults(Faults { deliveries, ..Faults::default() });
    let id = stack.queue(0.1);
    stack.completed(id).await?;
    Ok(())
}

fn vanished(action: &str) -> DeliveryFault {
    DeliveryFault {
        action: Some(action.to_owned()),
        ..DeliveryFault::from(DeliveryFaultKind::Vanished)
    }
}
