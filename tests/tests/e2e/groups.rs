//! Runner groups: pools have their names, GitHub's API their ids.

use anyhow::Result;
use edgerunner_sandbox::{Fault, Faults, RequestFault};
use edgerunner_tests::{Options, Stack};

fn in_group(name: &str) -> Options {
    Options::default().sidecar("RUNNER_SCOPE", "organization").sidecar("RUNNER_GROUP", name)
}

#[tokio::test]
async fn runners_are_registered_in_the_configured_group() {
    Stack::run(in_group("large"), async |stack| -> Result<()> {
        for _ in 0..2 {
            let id = stack.queue(0.1);
            let runner = stack.completed(id).await?.runner;
            assert_eq!(runner.map(|runner| runner.runner_group_name).as_deref(), Some("large"));
        }
        let calls = stack.sandbox.calls();
        let look_ups = calls.iter().filter(|call| call.path.contains("/runner-groups")).count();
        assert_eq!(look_ups, 1);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_missing_group_is_the_reason() {
    Stack::run(in_group("lrge"), async |stack| -> Result<()> {
        let id = stack.queue(0.1);
        let message = stack.waits_for(id, "back_off").await?;
        assert!(message.contains("group lrge of org:acme"), "{message}");
        assert!(message.ends_with("Default, large"), "{message}");
        let status = stack.sidecar.print(&["status"]).await?;
        assert!(status.contains("pool default at org:acme"), "{status}");
        assert_eq!((stack.launches(), stack.containers.started()), (0, 0));
        stack.sandbox.cancel_job(id)?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_group_without_access_is_the_reason_and_is_looked_up_again() {
    Stack::run(in_group("large"), async |stack| -> Result<()> {
        let refused = RequestFault {
            path: Some("generate-jitconfig".into()),
            ..RequestFault::from(Fault::NotFound)
        };
        stack.sandbox.set_faults(Faults { requests: vec![refused], ..Faults::default() });
        let id = stack.queue(0.1);
        let message = stack.waits_for(id, "back_off").await?;
        assert!(
            message.contains("org:acme in group large: not found, or hidden from this token (404"),
            "{message}"
        );
        stack.sandbox.set_faults(Faults::default());
        stack.completed(id).await?;
        let calls = stack.sandbox.calls();
        let look_ups = calls.iter().filter(|call| call.path.contains("/runner-groups")).count();
        assert_eq!(look_ups, stack.launches());
        Ok(())
    })
    .await;
}
