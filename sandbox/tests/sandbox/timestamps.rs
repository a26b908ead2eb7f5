//! Timestamps in the form that GitHub sends.

use std::time::Duration;

use edgerunner_sandbox::{JobRequest, Settings};
use http::Method;
use serde_json::Value;

use super::support::{Receiver, World, digits_as_zeros, settings};

fn assert_whole_seconds(value: &Value) {
    assert_eq!(digits_as_zeros(value.as_str().expect("text")), "0000-00-00T00:00:00Z");
}

#[tokio::test]
async fn the_rest_api_and_webhooks_send_whole_seconds_in_utc() {
    let receiver = Receiver::start().await;
    let world = World::with_webhook(&receiver).await;
    let job = world.sandbox.queue_job(&JobRequest::default());
    world.sandbox.cancel_job(job).expect("a queued job can be cancelled");
    let events = receiver.wait_for(2).await;
    let event = events[1].json();
    let listed = world.get(&format!("/repos/acme/app/actions/jobs/{job}")).await.json();
    for job in [&event["workflow_job"], &listed] {
        for field in ["created_at", "started_at", "completed_at"] {
            assert_whole_seconds(&job[field]);
        }
    }
    let runs = world.get("/repos/acme/app/actions/runs").await.json();
    assert_whole_seconds(&runs["workflow_runs"][0]["updated_at"]);
    let path = "/repos/acme/app/actions/runners/registration-token";
    assert_whole_seconds(&world.call(Method::POST, path, None).await.json()["expires_at"]);
    let hook = events[0].header("x-github-hook-id");
    world
        .sandbox
        .wait_for(Duration::from_secs(10), |sandbox| {
            (sandbox.deliveries().len() == 2).then_some(())
        })
        .await
        .expect("the deliveries are recorded");
    let deliveries = world.get(&format!("/repos/acme/app/hooks/{hook}/deliveries")).await.json();
    assert_whole_seconds(&deliveries[0]["delivered_at"]);
}

/// As two servers may.
#[tokio::test]
async fn two_sandboxes_of_one_time_assign_the_same_ids() {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let receiver = Receiver::start().await;
        let world = World::start(Settings {
            webhook_url: Some(receiver.url.clone()),
            ids_since: Some("2026-01-01T00:00:00Z".parse().expect("a time")),
            ..settings()
        })
        .await;
        let job = world.sandbox.queue_job(&JobRequest::default());
        let event = receiver.wait_for(1).await.remove(0);
        ids.push((job, event.json()["workflow_job"]["run_id"].clone()));
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn the_control_api_sends_fractions_of_a_second() {
    let world = World::new().await;
    world.sandbox.queue_job(&JobRequest::default());
    world.get("/user").await;
    for (path, field) in [("jobs", "created_at"), ("calls", "at")] {
        let path = format!("/_sandbox/{path}");
        let answer = world.try_call(Method::GET, &path, None, &[]).await.expect("an answer");
        let time = answer.json()[0][field].as_str().expect("text").to_owned();
        let (seconds, fraction) = time.split_once('.').expect("a fraction");
        assert_eq!(digits_as_zeros(seconds), "0000-00-00T00:00:00");
        let digits = fraction.strip_suffix('Z').expect("UTC");
        assert!((1..=9).contains(&digits.len()) && digits.bytes().all(|it| it.is_ascii_digit()));
    }
}
