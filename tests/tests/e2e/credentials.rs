//! Several credentials: one for each target, and several for one.

use anyhow::Result;
use edgerunner_sandbox::{Call, Fault, Faults, RequestFault};
use edgerunner_tests::{OTHER_TOKEN, Options, Stack, TOKEN, eventually};

const OF_ORGANIZATION: &str = "/orgs/acme/actions/runners";
const OF_REPOSITORY: &str = "/repos/acme/app/actions/runners";

/// One for the organization's runners; its repositories use the token of `[github]`.
fn two_credentials() -> Options {
    Options::default().file(&format!(
        r#"
        [[credentials]]
        name = "acme"
        targets = ["acme"]
        token = "{OTHER_TOKEN}"

        [[pools]]
        name = "shared"
        labels = ["shared"]
        scope = "organization"

        [[pools]]
        name = "own"
        labels = ["own"]
        "#
    ))
}

fn on_runners(path: &str, fault: Fault) -> Faults {
    let fault = RequestFault { path: Some(path.to_owned()), ..RequestFault::from(fault) };
    Faults { requests: vec![fault], ..Faults::default() }
}

#[tokio::test]
async fn each_target_is_called_with_its_own_token_alone() {
    Stack::run(two_credentials(), async |stack| -> Result<()> {
        for id in [stack.queue_for("shared"), stack.queue_for("own")] {
            stack.completed(id).await?;
        }
        // Unused runners are listed and removed as well.
        stack.sandbox.set_faults(on_runners("generate-jitconfig", Fault::Latency { ms: 1_000 }));
        let cancelled = [stack.queue_for("shared"), stack.queue_for("own")];
        eventually("launches are in progress", async || Ok((stack.launches() == 4).then_some(())))
            .await?;
        for id in cancelled {
            stack.sandbox.cancel_job(id)?;
        }
        eventually("the runners start", async || {
            Ok((stack.containers.started() == 4).then_some(()))
        })
        .await?;
        stack.settled().await?;

        let calls = stack.sandbox.calls();
        let budgets = stack.sidecar.status().await?["budgets"].clone();
        for (place, (credential, token)) in [("acme", 1), ("github", 0)].into_iter().enumerate() {
            let (budget, remaining) = (&budgets[place], &budgets[place]["remaining"]);
            // A 304 does not count against the quota.
            let counts = |call: &&Call| call.token == Some(token) && call.status != Some(304);
            let own = calls.iter().filter(counts).count();
            assert_eq!(
                (&budget["credential"], remaining),
                (&credential.into(), &(5_000 - own).into())
            );
        }
        for (target, token) in [(OF_REPOSITORY, 0), (OF_ORGANIZATION, 1)] {
            let calls: Vec<_> = calls.iter().filter(|call| call.path.starts_with(target)).collect();
            assert!(calls.iter().all(|call| call.token == Some(token)), "{calls:?}");
            for method in ["POST", "GET", "DELETE"] {
                assert!(calls.iter().any(|call| call.method == method), "{method}: {calls:?}");
            }
        }
        Ok(())
    })
    .await;
}

/// Attempts to launch for the organization.
fn tries(stack: &Stack) -> usize {
    let calls = stack.sandbox.calls();
    calls.iter().filter(|call| call.path == format!("{OF_ORGANIZATION}/generate-jitconfig")).count()
}

#[tokio::test]
async fn a_token_that_is_refused_holds_up_no_job_of_another() {
    Stack::run(two_credentials(), async |stack| -> Result<()> {
        stack.sandbox.set_faults(on_runners(OF_ORGANIZATION, Fault::Unauthorized));
        let shared = stack.queue_for("shared");
        let message = stack.waits_for(shared, "back_off").await?;
        assert!(message.contains("credential acme") && message.contains("401"), "{message}");
        // The next attempt comes after the other jobs are done.
        eventually("it was tried four times", async || Ok((tries(stack) == 4).then_some(())))
            .await?;
        for own in [(); 3].map(|()| stack.queue_for("own")) {
            stack.completed(own).await?;
        }
        assert_eq!(tries(stack), 4);
        stack.sandbox.set_faults(Faults::default());
        stack.completed(shared).await?;
        Ok(())
    })
    .await;
}

/// Two for the repositories of one owner.
fn two_for_one_target() -> Options {
    Options::default().file(&format!(
        r#"
        [[credentials]]
        name = "one"
        targets = ["acme/*"]
        token = "{TOKEN}"

        [[credentials]]
        name = "two"
        targets = ["acme/*"]
        token = "{OTHER_TOKEN}"
        "#
    ))
}

/// Runs jobs to their end, several at once.
async fn run_jobs(stack: &Stack, count: usize) -> Result<()> {
    let jobs: Vec<u64> = (0..count).map(|_| stack.queue(0.1)).collect();
    for job in jobs {
        stack.completed(job).await?;
    }
    Ok(())
}

/// The requests with each of two tokens.
fn requests(calls: &[Call], path: &str) -> [usize; 2] {
    [0, 1].map(|token| {
        let own = |call: &&Call| call.token == Some(token) && call.path.ends_with(path);
        calls.iter().filter(own).count()
    })
}

#[tokio::test]
async fn two_credentials_share_a_target_and_a_revoked_one_delays_no_job() {
    Stack::run(two_for_one_target(), async |stack| -> Result<()> {
        run_jobs(stack, 6).await?;
        run_jobs(stack, 6).await?;
        let [one, two] = requests(&stack.sandbox.calls(), "/generate-jitconfig");
        assert!(one + two >= 12 && one.abs_diff(two) <= 2, "{one} and {two}");

        let revoked = RequestFault { token: Some(0), ..RequestFault::from(Fault::Unauthorized) };
        stack.sandbox.set_faults(Faults { requests: vec![revoked], ..Faults::default() });
        let before = stack.sandbox.calls().len();
        run_jobs(stack, 8).await?;
        run_jobs(stack, 8).await?;
        stack.settled().await?;
        let [refused, served] = requests(&stack.sandbox.calls()[before..], "");
        assert!((1..=5).contains(&refused) && served >= 16, "{refused} and {served}");
        let failures = stack.sidecar.status().await?["failures"].clone();
        assert_eq!(failures.as_array().map(Vec::len), Some(1), "{failures:#}");
        assert_eq!(failures[0]["blocks"], "launches at repo:acme/app with credential one");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_credential_whose_quota_is_used_up_delays_no_job_of_another() {
    Stack::run(two_for_one_target(), async |stack| -> Result<()> {
        let used_up = RequestFault {
            token: Some(1),
            next: Some(1),
            ..RequestFault::from(Fault::RateLimited { reset_seconds: 3_000 })
        };
        stack.sandbox.set_faults(Faults { requests: vec![used_up], ..Faults::default() });
        run_jobs(stack, 8).await?;
        run_jobs(stack, 8).await?;
        let calls = stack.sandbox.calls();
        let [served, refused] = requests(&calls, "");
        assert!(served >= 16 && (1..=3).contains(&refused), "{served} and {refused}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_token_is_replaced_in_its_file_without_another_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (file, new) = (directory.path().join("token"), directory.path().join("new"));
    let write =
        |token: &str| std::fs::write(&new, token).and_then(|()| std::fs::rename(&new, &file));
    write(TOKEN).expect("a file");
    let options = Options::default()
        .sidecar("GITHUB_TOKEN", "")
        .sidecar("GITHUB_TOKEN_FILE", &file.display().to_string());
    Stack::run(options, async |stack| -> Result<()> {
        let first = stack.queue(0.1);
        stack.completed(first).await?;
        stack.settled().await?;
        write(OTHER_TOKEN)?;
        let before = stack.sandbox.calls().len();
        let second = stack.queue(0.1);
        stack.completed(second).await?;
        stack.settled().await?;
        let calls = stack.sandbox.calls();
        let tokens =
            |calls: &[Call]| -> Vec<usize> { calls.iter().filter_map(|call| call.token).collect() };
        let (earlier, later) = calls.split_at(before);
        assert!(tokens(earlier).iter().all(|token| *token == 0), "{earlier:?}");
        assert!(tokens(later).iter().all(|token| *token == 1), "{later:?}");
        assert!(!tokens(later).is_empty());
        // The file is missing for a moment, which is logged once.
        std::fs::remove_file(&file)?;
        let third = stack.queue(0.1);
        stack.completed(third).await?;
        stack.settled().await?;
        assert_eq!(stack.sidecar.log()?.matches("is still used").count(), 1);
        write(OTHER_TOKEN)?;
        Ok(())
    })
    .await;
}

/// Only for tests.
const PRIVATE_KEY: &str = include_str!("../../../sidecar/src/github/test-app.pem");

#[tokio::test]
async fn a_github_app_registers_runners_and_renews_its_token_when_it_is_refused() {
    let app = edgerunner_sandbox::APP_ID.to_string();
    let options = Options::default()
        .sidecar("GITHUB_TOKEN", "")
        .sidecar("GITHUB_APP_ID", &app)
        .sidecar("GITHUB_APP_PRIVATE_KEY", PRIVATE_KEY);
    Stack::run(options, async |stack| -> Result<()> {
        let first = stack.queue(0.1);
        stack.completed(first).await?;
        stack.settled().await?;
        let renewals = || {
            let calls = stack.sandbox.calls();
            calls.iter().filter(|call| call.path.ends_with("/access_tokens")).count()
        };
        assert_eq!(renewals(), 1);
        // As if it had expired early.
        stack.sandbox.set_faults(Faults {
            requests: vec![RequestFault {
                path: Some("generate-jitconfig".into()),
                next: Some(1),
                ..RequestFault::from(Fault::Unauthorized)
            }],
            ..Faults::default()
        });
        let second = stack.queue(0.1);
        stack.completed(second).await?;
        stack.settled().await?;
        assert_eq!(renewals(), 2);
        assert_eq!(stack.containers.started(), 2);
        assert_eq!(stack.sidecar.status().await?["failures"], serde_json::json!([]));
        assert!(!stack.sidecar.log()?.contains("ghs_"));
        Ok(())
    })
    .await;
}
