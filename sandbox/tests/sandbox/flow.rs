//! Jobs from queued to completed, run by the stand-in runner.

use std::time::Duration;

use super::support::{Receiver, World, jit, settings, signature_256};
use edgerunner_sandbox::runner::{self, Config, EndReason};
use edgerunner_sandbox::{Conclusion, JobRequest, JobStatus, Settings};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(10);

fn quick() -> JobRequest {
    JobRequest { seconds: 0.05, ..JobRequest::default() }
}

#[tokio::test]
async fn a_job_runs_and_every_transition_sends_a_signed_webhook() {
    let receiver = Receiver::start().await;
    let world = World::with_webhook(&receiver).await;
    let job = world.sandbox.queue_job(&quick());
    let (runner_id, config) = jit(&world, "one", &["Self-Hosted", "linux"]).await;
    assert!(!world.sandbox.runners()[0].online());

    let ended = runner::run(config, CancellationToken::new()).await;
    assert_eq!(ended.expect("the runner succeeds"), EndReason::JobDone);
    let job = world.sandbox.job(job).expect("the job is known");
    assert_eq!(job.status, JobStatus::Completed);
    assert_eq!(job.conclusion, Some(Conclusion::Success));
    assert_eq!(job.runner.as_ref().map(|runner| runner.runner_id), Some(runner_id));
    assert!(world.sandbox.runners().is_empty(), "an ephemeral runner takes one job");

    let received = receiver.wait_for(3).await;
    let actions: Vec<String> = received.iter().map(|event| event.action()).collect();
    assert_eq!(actions, ["queued", "in_progress", "completed"]);
    for event in &received {
        assert_eq!(event.header("x-github-event"), "workflow_job");
        assert_eq!(event.header("x-hub-signature-256"), signature_256(&event.body));
        assert!(event.header("x-hub-signature").starts_with("sha1="));
        assert!(event.header("user-agent").starts_with("GitHub-Hookshot/"));
        assert_eq!(event.json()["workflow_job"]["id"], json!(job.id));
        assert_eq!(event.json()["repository"]["full_name"], json!("acme/app"));
    }
    assert_eq!(received[0].json()["workflow_job"]["runner_name"], Value::Null);
    assert_eq!(received[2].json()["workflow_job"]["runner_name"], json!("one"));
    let deliveries = world
        .sandbox
        .wait_for(SOON, |sandbox| {
            let deliveries = sandbox.deliveries();
            (deliveries.len() == 3).then_some(deliveries)
        })
        .await
        .expect("three deliveries are recorded");
    assert!(deliveries.iter().all(|delivery| delivery.succeeded()));
}

#[tokio::test]
async fn a_short_job_ends_only_after_the_webhook_of_its_start_was_sent() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("an address");
    let world = World::start(Settings {
        webhook_url: Some(format!("http://{address}/")),
        delivery_timeout: Duration::from_millis(300),
        ..settings()
    })
    .await;
    let job = world.sandbox.queue_job(&quick());
    let (_, config) = jit(&world, "one", &["self-hosted"]).await;
    let runner = tokio::spawn(runner::run(config, CancellationToken::new()));
    let deliveries = world
        .sandbox
        .wait_for(SOON, |sandbox| {
            let completed = sandbox.job(job)?.status == JobStatus::Completed;
            completed.then(|| sandbox.deliveries())
        })
        .await
        .expect("the job ends");
    let actions: Vec<_> = deliveries.iter().filter_map(|it| it.action.as_deref()).collect();
    assert!(actions.contains(&"in_progress"), "{actions:?}");
    runner.await.expect("no panic").expect("the runner succeeds");
}

#[tokio::test]
async fn a_runner_registers_with_a_registration_token() {
    let world = World::new().await;
    let answer = world
        .call(Method::POST, "/api/v3/orgs/acme/actions/runners/registration-token", None)
        .await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let token = answer.json()["token"].as_str().expect("text").to_owned();
    let url = world.sandbox.url();
    let environment = |name: &str| {
        Some(match name {
            "ORG_NAME" => "acme".to_owned(),
            "GITHUB_URL" => url.clone(),
            "RUNNER_TOKEN" => token.clone(),
            "RUNNER_NAME" => "two".to_owned(),
            "LABELS" => "gpu, Big".to_owned(),
            "EPHEMERAL" => "true".to_owned(),
            _ => return None,
        })
    };
    let config = Config::from_env(environment).expect("the configuration is valid");
    let job = world.sandbox.queue_job(&JobRequest {
        labels: vec!["self-hosted".into(), "GPU".into(), "big".into()],
        conclusion: Conclusion::Failure,
        ..quick()
    });
    let ended = runner::run(config, CancellationToken::new()).await;
    assert_eq!(ended.expect("the runner succeeds"), EndReason::JobDone);
    assert_eq!(world.sandbox.job(job).and_then(|job| job.conclusion), Some(Conclusion::Failure));
}

#[tokio::test]
async fn a_runner_takes_the_oldest_job_that_matches_its_labels_and_scope() {
    let world = World::new().await;
    let elsewhere = world.sandbox.queue_job(&JobRequest {
        repository: "acme/api".to_owned().try_into().expect("a repository"),
        ..quick()
    });
    let other_label =
        world.sandbox.queue_job(&JobRequest { labels: vec!["gpu".into()], ..quick() });
    let ids = world.sandbox.queue_jobs(&JobRequest { count: 2, ..quick() });
    let (_, config) = jit(&world, "one", &["self-hosted"]).await;
    runner::run(config, CancellationToken::new()).await.expect("the runner succeeds");
    let status = |id| world.sandbox.job(id).map(|job| job.status);
    assert_eq!(status(ids[0]), Some(JobStatus::Completed));
    for waiting in [elsewhere, other_label, ids[1]] {
        assert_eq!(status(waiting), Some(JobStatus::Queued));
    }
}

#[tokio::test]
async fn an_unused_runner_is_listed_as_offline_after_it_is_stopped() {
    let world = World::new().await;
    let (id, config) = jit(&world, "idle", &["self-hosted"]).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(runner::run(config, stop.clone()));
    world
        .sandbox
        .wait_for(SOON, |sandbox| sandbox.runners()[0].online().then_some(()))
        .await
        .expect("the runner comes online");
    stop.cancel();
    let ended = running.await.expect("no panic").expect("the runner succeeds");
    assert_eq!(ended, EndReason::Stopped);
    assert!(!world.sandbox.runners()[0].online());
    let path = format!("/repos/acme/app/actions/runners/{id}");
    let answer = world.call(Method::DELETE, &path, None).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(answer.body.is_empty());
    let answer = world.call(Method::DELETE, &path, None).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_busy_runner_cannot_be_removed_and_its_job_can_be_cancelled() {
    let world = World::new().await;
    let job = world.sandbox.queue_job(&JobRequest { seconds: 600.0, ..JobRequest::default() });
    let (id, config) = jit(&world, "busy", &["self-hosted"]).await;
    let running = tokio::spawn(runner::run(config, CancellationToken::new()));
    world
        .sandbox
        .wait_for(SOON, |sandbox| sandbox.runners()[0].busy().then_some(()))
        .await
        .expect("the runner takes the job");
    let path = format!("/repos/acme/app/actions/runners/{id}");
    let answer = world.call(Method::DELETE, &path, None).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text().contains("is still running a job"));
    world.sandbox.cancel_job(job).expect("the job can be cancelled");
    let ended = running.await.expect("no panic").expect("the runner succeeds");
    assert_eq!(ended, EndReason::JobDone);
    let conclusion = world.sandbox.job(job).and_then(|job| job.conclusion);
    assert_eq!(conclusion, Some(Conclusion::Cancelled));
}

#[tokio::test]
async fn the_job_of_a_runner_that_disappears_fails() {
    let world = World::new().await;
    let job = world.sandbox.queue_job(&JobRequest { seconds: 600.0, ..JobRequest::default() });
    let (_, config) = jit(&world, "doomed", &["self-hosted"]).await;
    let running = tokio::spawn(runner::run(config, CancellationToken::new()));
    let (sandbox, is) = (&world.sandbox, |status| {
        move |sandbox: &edgerunner_sandbox::Sandbox| {
            sandbox.job(job).filter(|job| job.status == status)
        }
    });
    sandbox.wait_for(SOON, is(JobStatus::InProgress)).await.expect("the job starts");
    running.abort();
    let job = sandbox.wait_for(SOON, is(JobStatus::Completed)).await.expect("the job ends");
    assert_eq!(job.conclusion, Some(Conclusion::Failure));
    assert!(sandbox.runners().is_empty());
}

#[tokio::test]
async fn a_rerun_has_a_new_id_and_old_completions_are_resent() {
    let receiver = Receiver::start().await;
    let world = World::with_webhook(&receiver).await;
    let job = world.sandbox.queue_job(&quick());
    world.sandbox.cancel_job(job).expect("the job can be cancelled");
    receiver.wait_for(2).await;
    let again = world.sandbox.rerun_job(job).expect("the job can be rerun");
    assert_ne!(again, job);
    let received = receiver.wait_for(4).await;
    let mut rest: Vec<(String, u64)> = received[2..]
        .iter()
        .map(|event| {
            let id = event.json()["workflow_job"]["id"].as_u64();
            (event.action(), id.expect("a number"))
        })
        .collect();
    rest.sort();
    assert_eq!(rest, [("completed".to_owned(), job), ("queued".to_owned(), again)]);
    assert_eq!(world.sandbox.job(again).map(|job| job.run_attempt), Some(2));
}

#[tokio::test]
async fn jobs_beyond_max_parallel_are_announced_and_wait() {
    let receiver = Receiver::start().await;
    let world = World::with_webhook(&receiver).await;
    let request = JobRequest { count: 2, max_parallel: Some(1), seconds: 600.0, ..quick() };
    let jobs = world.sandbox.queue_jobs(&request);
    receiver.wait_for(2).await;
    let mut running = Vec::new();
    for name in ["one", "two"] {
        let (_, config) = jit(&world, name, &["self-hosted"]).await;
        running.push(tokio::spawn(runner::run(config, CancellationToken::new())));
    }
    let status =
        |sandbox: &edgerunner_sandbox::Sandbox, job: u64| sandbox.job(job).map(|job| job.status);
    let online = |sandbox: &edgerunner_sandbox::Sandbox| {
        let runners = sandbox.runners();
        let all = runners.iter().all(|runner| runner.online());
        (all && status(sandbox, jobs[0]) == Some(JobStatus::InProgress)).then_some(())
    };
    world.sandbox.wait_for(SOON, online).await.expect("both runners are online, one is busy");
    assert_eq!(status(&world.sandbox, jobs[1]), Some(JobStatus::Queued));
    world.sandbox.cancel_job(jobs[0]).expect("the job can be cancelled");
    let second = |sandbox: &edgerunner_sandbox::Sandbox| {
        (status(sandbox, jobs[1]) == Some(JobStatus::InProgress)).then_some(())
    };
    world.sandbox.wait_for(SOON, second).await.expect("the next job starts");
    world.sandbox.cancel_job(jobs[1]).expect("the job can be cancelled");
    for runner in running {
        runner.await.expect("no panic").expect("the runner succeeds");
    }
}

#[tokio::test]
async fn jobs_that_are_held_back_run_once_they_are_released() {
    let world = World::new().await;
    let job = world.sandbox.queue_job(&JobRequest { max_parallel: Some(0), ..quick() });
    let (_, config) = jit(&world, "one", &["self-hosted"]).await;
    let running = tokio::spawn(runner::run(config, CancellationToken::new()));
    let online =
        |sandbox: &edgerunner_sandbox::Sandbox| sandbox.runners()[0].online().then_some(());
    world.sandbox.wait_for(SOON, online).await.expect("the runner is online");
    assert_eq!(world.sandbox.job(job).map(|job| job.status), Some(JobStatus::Queued));
    world.sandbox.release_job(job).expect("the job is known");
    let ended = running.await.expect("no panic").expect("the runner succeeds");
    assert_eq!(ended, EndReason::JobDone);
}

#[tokio::test]
async fn an_idle_runner_that_is_unregistered_exits_and_a_busy_one_is_not() {
    let world = World::new().await;
    let (id, config) = jit(&world, "idle", &["self-hosted"]).await;
    let running = tokio::spawn(runner::run(config, CancellationToken::new()));
    let online =
        |sandbox: &edgerunner_sandbox::Sandbox| sandbox.runners()[0].online().then_some(());
    world.sandbox.wait_for(SOON, online).await.expect("the runner is online");
    world.sandbox.unregister_runner(id).expect("it is idle");
    assert!(world.sandbox.runners().is_empty());
    let ended = running.await.expect("no panic").expect("the runner succeeds");
    assert_eq!(ended, EndReason::RegistrationDeleted);
    assert!(world.sandbox.unregister_runner(id).is_err());

    let job = world.sandbox.queue_job(&JobRequest { seconds: 600.0, ..quick() });
    let (id, config) = jit(&world, "busy", &["self-hosted"]).await;
    let running = tokio::spawn(runner::run(config, CancellationToken::new()));
    let busy = |sandbox: &edgerunner_sandbox::Sandbox| sandbox.runners()[0].busy().then_some(());
    world.sandbox.wait_for(SOON, busy).await.expect("the runner takes the job");
    assert!(world.sandbox.unregister_runner(id).is_err());
    world.sandbox.cancel_job(job).expect("the job can be cancelled");
    running.await.expect("no panic").expect("the runner succeeds");
}

#[tokio::test]
async fn a_removed_registration_ends_the_runner() {
    let world = World::new().await;
    let (id, config) = jit(&world, "gone", &["self-hosted"]).await;
    let path = format!("/repos/acme/app/actions/runners/{id}");
    world.call(Method::DELETE, &path, None).await;
    let ended = runner::run(config, CancellationToken::new()).await;
    assert_eq!(ended.expect("this is no error"), EndReason::RegistrationDeleted);
}

#[test]
fn an_invalid_configuration_is_an_error() {
    let only = |name: &'static str, value: &'static str| {
        Config::from_env(move |asked| (asked == name).then(|| value.to_owned()))
    };
    assert!(only("ACTIONS_RUNNER_INPUT_JITCONFIG", "not base64!").is_err());
    assert!(only("RUNNER_TOKEN", "token without a URL").is_err());
    assert!(Config::from_env(|_| None).is_err());
}

#[tokio::test]
async fn a_runner_whose_version_has_ended_gets_no_session() {
    let world = World::new().await;
    let job = world.sandbox.queue_job(&quick());
    world.sandbox.set_version_end("2.335.0", Some(jiff::Timestamp::UNIX_EPOCH));
    let (_, config) = jit(&world, "one", &["self-hosted"]).await;
    let ended = runner::run(config, CancellationToken::new()).await;
    assert_eq!(ended.expect("this is no error"), EndReason::VersionTooOld);
    let job = world.sandbox.job(job).expect("the job is known");
    assert_eq!(job.status, JobStatus::Queued);
}
