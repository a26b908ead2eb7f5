use std::time::Duration;

use edgerunner_sandbox::{DeliveryFault, Faults, Mishap};
use edgerunner_tests::{Options, Stack};
use tokio::time::sleep;

use crate::account::{Account, redelivering};
use crate::figures::Figures;
use crate::load;
use crate::plan::Plan;

const MAX: usize = 4;

/// Every second delivery or so is lost, doubled, reordered or late; what is lost
/// is sent again, as GitHub does when it is asked to.
pub(crate) async fn run(plan: &Plan) -> Figures {
    let options = Options::default().sidecar("RUNNER_MAX", &MAX.to_string());
    Stack::run(options, async |stack| {
        let mut account = Account::open(MAX);
        let random = plan.random();
        let mishaps =
            [Mishap::Lost, Mishap::Doubled, Mishap::Reordered, Mishap::Delayed { ms: 700 }];
        let often = |fault| DeliveryFault { probability: 0.15, ..DeliveryFault::from(fault) };
        stack.sandbox.set_faults(Faults {
            deliveries: mishaps.map(often).into(),
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
