//! Errors and limits of GitHub.

use anyhow::Result;
use edgerunner_sandbox::{Fault, Faults, RequestFault, RetryAfter};
use edgerunner_tests::{Options, Stack};

fn credentials(fault: Fault, next: Option<u32>) -> Faults {
    let fault =
        RequestFault { path: Some("generate-jitconfig".into()), next, ..RequestFault::from(fault) };
    Faults { requests: vec![fault], ..Faults::default() }
}

#[tokio::test]
async fn an_error_of_github_is_retried() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        stack.sandbox.set_faults(credentials(Fault::ServerError, Some(2)));
        let id = stack.queue(0.1);
        let message = stack.waits_for(id, "back_off").await?;
        assert!(message.contains("500"), "{message}");
        stack.completed(id).await?;
        stack.settled().await?;
        assert_eq!((stack.launches(), stack.containers.started()), (3, 1));
        // An error that is over is no longer shown.
        assert_eq!(stack.sidecar.status().await?["failures"], serde_json::json!([]));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_token_that_github_refuses_is_named_as_the_reason() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        stack.sandbox.set_faults(credentials(Fault::Unauthorized, None));
        let id = stack.queue(0.1);
        let message = stack.waits_for(id, "back_off").await?;
        assert!(message.contains("401") && message.contains("token"), "{message}");
        let status = stack.sidecar.print(&["status"]).await?;
        assert!(status.contains("Failing") && status.contains("401"), "{status}");
        stack.sandbox.set_faults(Faults::default());
        stack.completed(id).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let fault = Fault::Forbidden { retry_after: RetryAfter::Seconds(3) };
        stack.sandbox.set_faults(credentials(fault, Some(1)));
        let id = stack.queue(0.1);
        stack.waits_for(id, "rate_limited").await?;
        stack.completed(id).await?;
        let calls = stack.sandbox.calls();
        let mut tries = calls.iter().filter(|it| it.path.ends_with("/generate-jitconfig"));
        let (first, second) = (tries.next().map(|it| it.at), tries.next().map(|it| it.at));
        let waited =
            second.zip(first).map(|(second, first)| second.duration_since(first).as_millis());
        assert!(waited >= Some(3_000), "{waited:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_limit_is_recognized_in_each_of_githubs_forms() {
    for (fault, passes) in [
        (Fault::Forbidden { retry_after: RetryAfter::Date(3) }, true),
        (Fault::TooManyRequests { retry_after: RetryAfter::Seconds(1) }, true),
        // GitHub's default: a minute.
        (Fault::Forbidden { retry_after: RetryAfter::None }, false),
        (Fault::TooManyRequests { retry_after: RetryAfter::None }, false),
        (Fault::RateLimited { reset_seconds: 2 }, true),
    ] {
        Stack::run(Options::default(), async |stack| -> Result<()> {
            stack.sandbox.set_faults(credentials(fault, Some(1)));
            let id = stack.queue(0.1);
            let message = stack.waits_for(id, "rate_limited").await?;
            assert!(message.to_lowercase().contains("rate limit"), "{message}");
            if passes {
                stack.completed(id).await?;
            } else {
                stack.sandbox.cancel_job(id)?;
            }
            assert_eq!(stack.launches(), 1 + usize::from(passes));
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_request_without_an_answer_times_out_and_its_result_is_looked_up() {
    let options = Options::default().sidecar("GITHUB_TIMEOUT_SECONDS", "1");
    Stack::run(options, async |stack| -> Result<()> {
        stack.sandbox.set_faults(credentials(Fault::Hang, Some(1)));
        let id = stack.queue(0.1);
        let message = stack.waits_for(id, "back_off").await?;
        assert!(message.contains("no answer within 1s"), "{message}");
        stack.completed(id).await?;
        let calls = stack.sandbox.calls();
        assert!(calls.iter().any(|call| call.path.contains("/actions/runners?name=")), "{calls:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_runner_whose_name_is_taken_is_looked_up() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        stack.sandbox.set_faults(credentials(Fault::Conflict, Some(1)));
        let id = stack.queue(0.1);
        stack.completed(id).await?;
        assert_eq!((stack.launches(), stack.containers.started()), (2, 1));
        assert!(!stack.sidecar.log()?.contains("launch failed"));
        Ok(())
    })
    .await;
}

/// The registration succeeds, and only the response is lost.
#[tokio::test]
async fn a_lost_answer_leaves_no_registration() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        stack.sandbox.set_faults(credentials(Fault::Close { performed: true }, Some(1)));
        let id = stack.queue(0.1);
        stack.completed(id).await?;
        stack.settled().await?;
        assert_eq!(stack.containers.started(), 1);
        Ok(())
    })
    .await;
}
