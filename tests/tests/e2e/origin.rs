//! Whose code runners run: public repositories, and pull requests from forks.

use anyhow::Result;
use edgerunner_sandbox::{
    DeliveryFault, DeliveryFaultKind, Fault, Faults, JobRequest, RepositoryName, RequestFault,
    Visibility,
};
use edgerunner_tests::{Options, Stack, eventually};

/// Two pools of the same labels, of which the second one is for forks.
const POOLS: &str = r#"
[[pools]]
name = "trusted"
forks = "refuse"

[[pools]]
name = "untrusted"
forks = "only"
"#;

fn app() -> RepositoryName {
    RepositoryName { owner: "acme".into(), name: "app".into() }
}

fn of_fork(count: u32) -> JobRequest {
    JobRequest { from_fork: true, seconds: 0.1, count, ..JobRequest::default() }
}

/// The pool whose runner took the job.
async fn pool_of(stack: &Stack, id: u64) -> Result<String> {
    eventually("the job has a pool", async || {
        Ok(stack.sidecar.job(id).await?["pool"].as_str().map(str::to_owned))
    })
    .await
}

/// How often GitHub was asked about single runs.
fn runs_asked(stack: &Stack) -> usize {
    let is_run = |path: &str| {
        path.rsplit_once("/actions/runs/").is_some_and(|(_, id)| id.parse::<u64>().is_ok())
    };
    stack.sandbox.calls().iter().filter(|call| is_run(&call.path)).count()
}

fn next_queued_vanishes() -> Faults {
    let vanished = DeliveryFault {
        action: Some("queued".into()),
        next: Some(1),
        ..DeliveryFault::from(DeliveryFaultKind::Vanished)
    };
    Faults { deliveries: vec![vanished], ..Faults::default() }
}

#[tokio::test]
async fn a_job_of_a_public_repository_launches_nothing_and_says_why() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        stack.sandbox.set_visibility(&app(), Visibility::Public);
        let id = stack.queue(0.1);
        let message = stack.waits_for(id, "public_repository").await?;
        assert!(message.contains("public_repositories"), "{message}");
        assert!(stack.sidecar.print(&["jobs", "show", &id.to_string()]).await?.contains("public"));
        let waiting = "edgerunner_jobs_waiting{reason=\"public_repository\"} 1";
        assert!(stack.sidecar.metrics().await?.contains(waiting));
        // A job of a private one after it shows that nothing is launched any more.
        let lib = RepositoryName { owner: "acme".into(), name: "lib".into() };
        let private = JobRequest { repository: lib, seconds: 0.1, ..JobRequest::default() };
        stack.completed(stack.sandbox.queue_job(&private)).await?;
        assert_eq!((stack.launches(), runs_asked(stack)), (1, 0));
        // The store has it as well.
        stack.sidecar.terminate().await?;
        stack.sidecar.start().await?;
        stack.waits_for(id, "public_repository").await?;
        stack.cancel(id).await
    })
    .await;
}

#[tokio::test]
async fn the_next_pool_that_permits_public_repositories_takes_their_jobs() {
    let pools = r#"
        [[pools]]
        name = "private"
        priority = 1

        [[pools]]
        name = "open"
        public_repositories = true
    "#;
    Stack::run(Options::default().file(pools), async |stack| -> Result<()> {
        for (visibility, pool) in [
            (Visibility::Public, "open"),
            (Visibility::Internal, "private"),
            // GitHub's webhook does not say so, but the run that is looked up does.
            (Visibility::Unreported, "private"),
        ] {
            stack.sandbox.set_visibility(&app(), visibility);
            let id = stack.queue(0.1);
            stack.completed(id).await?;
            assert_eq!(pool_of(stack, id).await?, pool, "{visibility:?}");
        }
        assert_eq!(runs_asked(stack), 1);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn jobs_of_forks_run_in_a_pool_of_their_own_after_one_look_up_of_their_run() {
    Stack::run(Options::default().file(POOLS), async |stack| -> Result<()> {
        for id in stack.sandbox.queue_jobs(&of_fork(3)) {
            stack.completed(id).await?;
            assert_eq!(pool_of(stack, id).await?, "untrusted");
        }
        assert_eq!(runs_asked(stack), 1);
        stack.settled().await?;
        let own = stack.queue(0.1);
        stack.completed(own).await?;
        assert_eq!(pool_of(stack, own).await?, "trusted");
        assert_eq!(runs_asked(stack), 2);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_job_waits_while_github_does_not_report_where_its_code_comes_from() {
    Stack::run(Options::default().file(POOLS), async |stack| -> Result<()> {
        let refused = RequestFault {
            path: Some("/actions/runs".into()),
            ..RequestFault::from(Fault::NotFound)
        };
        stack.sandbox.set_faults(Faults { requests: vec![refused], ..Faults::default() });
        let id = stack.queue(0.1);
        let message = eventually("the look-up is refused", async || {
            let message = stack.waits_for(id, "run_unknown").await?;
            Ok(message.contains("Actions: read").then_some(message))
        })
        .await?;
        assert!(message.contains("unknown where the code"), "{message}");
        assert_eq!(stack.launches(), 0);
        // A restart asks again.
        stack.sandbox.set_faults(Faults::default());
        stack.sidecar.terminate().await?;
        stack.sidecar.start().await?;
        stack.completed(id).await?;
        assert_eq!(pool_of(stack, id).await?, "trusted");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_job_whose_webhook_vanished_is_refused_and_assigned_by_the_same_rules() {
    let options = Options::default()
        .file(POOLS)
        .sidecar("MISSED_WEBHOOKS_ENABLED", "true")
        .sidecar("MISSED_WEBHOOKS_INTERVAL_SECONDS", "1");
    Stack::run(options, async |stack| -> Result<()> {
        // A repository is unknown until its first delivery.
        let first = stack.queue(0.1);
        stack.completed(first).await?;
        let asked = runs_asked(stack);
        stack.sandbox.set_faults(next_queued_vanishes());
        let [fork] = stack.sandbox.queue_jobs(&of_fork(1))[..] else { panic!("one job") };
        stack.completed(fork).await?;
        assert_eq!(pool_of(stack, fork).await?, "untrusted");
        assert_eq!(runs_asked(stack), asked, "the list of runs has it");
        stack.sandbox.set_visibility(&app(), Visibility::Public);
        stack.sandbox.set_faults(next_queued_vanishes());
        let public = stack.queue(0.1);
        stack.waits_for(public, "public_repository").await?;
        stack.cancel(public).await
    })
    .await;
}
