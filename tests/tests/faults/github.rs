//! Faults of GitHub's API.

use std::time::Duration;

use edgerunner_sandbox::{Fault, Faults, JobStatus, RequestFault, RetryAfter};
use edgerunner_tests::{Options, Stack, eventually_within};

use crate::account::Account;
use crate::figures::Figures;
use crate::load;
use crate::plan::Plan;

const MAX: usize = 4;
/// Jobs for each kind of fault.
const BURST: u32 = 4;
/// All requests about runners: credentials, removal, list.
const RUNNERS: &str = "/actions/runners";
/// Back-off grows while faults go on.
const PHASE_LIMIT: Duration = Duration::from_secs(300);

fn every_kind() -> [Fault; 6] {
    [
        Fault::ServerError,
        Fault::Forbidden { retry_after: RetryAfter::Seconds(1) },
        Fault::Unauthorized,
        Fault::Hang,
        Fault::Close { performed: false },
        Fault::Close { performed: true },
    ]
}

/// One kind of fault after the other, each for some calls; in the long form all of them
/// at random.
pub(crate) async fn run(plan: &Plan) -> Figures {
    let options = Options::default()
        .sidecar("RUNNER_MAX", &MAX.to_string())
        .sidecar("GITHUB_TIMEOUT_SECONDS", "1");
    Stack::run(options, async |stack| {
        let mut account = Account::open(MAX);
        let mut random = plan.random();
        let fault = |fault, next, probability| {
            let path = Some(RUNNERS.to_owned());
            RequestFault { path, next, probability, ..RequestFault::from(fault) }
        };
        let each = plan.pick(1, 2);
        for kind in every_kind() {
            let faults = vec![fault(kind, Some(each), 1.0)];
            stack.sandbox.set_faults(Faults { requests: faults, ..Faults::default() });
            let jobs = load::burst(&stack.sandbox, &mut random, BURST);
            eventually_within(PHASE_LIMIT, "the faults have struck", async || {
                account.check(stack).await?;
                let faults = stack.sandbox.faults().requests;
                Ok(faults.iter().all(|it| it.next == Some(0)).then_some(()))
            })
            .await?;
            account.faults += each as usize;
            // Several refusals in a row pause the repository for minutes: the next kind begins
            // after a launch that worked.
            eventually_within(PHASE_LIMIT, "the jobs are over", async || {
                account.check(stack).await?;
                let over = |id: &u64| {
                    let job = stack.sandbox.job(*id);
                    job.is_some_and(|job| job.status == JobStatus::Completed)
                };
                Ok(jobs.iter().all(over).then_some(()))
            })
            .await?;
        }
        if plan.long {
            let faults = every_kind().into_iter().map(|kind| fault(kind, None, 0.02)).collect();
            let before = stack.sandbox.calls().len();
            stack.sandbox.set_faults(Faults {
                requests: faults,
                seed: plan.seed,
                ..Faults::default()
            });
            let jobs = load::burst(&stack.sandbox, &mut random, 100);
            eventually_within(PHASE_LIMIT, "half of the jobs are over", async || {
                account.check(stack).await?;
                let over = |id: &&u64| {
                    stack.sandbox.job(**id).is_some_and(|job| job.status == JobStatus::Completed)
                };
                Ok((jobs.iter().filter(over).count() >= jobs.len() / 2).then_some(()))
            })
            .await?;
            let calls = stack.sandbox.calls();
            account.faults += calls
                .iter()
                .skip(before)
                .filter(|call| call.status.is_none_or(|status| matches!(status, 401 | 403 | 500)))
                .count();
            stack.sandbox.set_faults(Faults::default());
        }
        account.close(stack).await
    })
    .await
}
