//! Faults of the Docker Engine.

use std::time::Duration;

use edgerunner_tests::{Engine, Options, Stack};
use fastrand::Rng;
use tokio::time::sleep;

use crate::account::Account;
use crate::figures::{Figures, Outcome};
use crate::load;
use crate::plan::Plan;

const MAX: usize = 4;

/// Requests get no response for a while, repeatedly.
pub(crate) async fn does_not_answer(plan: &Plan) -> Figures {
    let options = Options::default().sidecar("RUNNER_MAX", &MAX.to_string()).docker_proxy();
    Stack::run(options, async |stack| {
        let mut account = Account::open(MAX);
        let mut random = plan.random();
        for _ in 0..plan.pick(3, 20) {
            busy_for(stack, &mut random).await;
            stack.docker_proxy().close();
            account.faults += 1;
            busy_for(stack, &mut random).await;
            account.check(stack).await?;
            stack.docker_proxy().reopen();
        }
        account.close(stack).await
    })
    .await
}

/// The daemon is stopped, which ends all runners, and started again.
pub(crate) async fn stops(plan: &Plan) -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Outcome::Skipped("dockerd needs root".to_owned());
    }
    let mut engine = Engine::new().await.expect("a second dockerd");
    let options = Options::default().sidecar("RUNNER_MAX", &MAX.to_string()).engine(&engine);
    let figures = Stack::run(options, async |stack| {
        let mut account = Account::open(MAX).killing_work();
        let mut random = plan.random();
        for _ in 0..plan.pick(1, 5) {
            busy_for(stack, &mut random).await;
            engine.stop().await?;
            account.faults += 1;
            busy_for(stack, &mut random).await;
            account.check(stack).await?;
            engine.start().await?;
        }
        account.close(stack).await
    })
    .await;
    Outcome::Done(figures)
}

async fn busy_for(stack: &Stack, random: &mut Rng) {
    let time = Duration::from_millis(random.u64(500..=2_500));
    tokio::select! {
        () = sleep(time) => {}
        never = load::stream(&stack.sandbox, random.fork()) => match never {},
    }
}
