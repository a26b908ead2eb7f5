//! Deliveries: recorded, listed, redelivered.

use std::time::Duration;

use edgerunner_sandbox::{DeliveryFaultKind, Faults, JobRequest, Settings, WebhookKind};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{Receiver, World, settings};

async fn deliveries(world: &World, count: usize) {
    world
        .sandbox
        .wait_for(Duration::from_secs(10), |sandbox| {
            (sandbox.deliveries().len() >= count).then_some(())
        })
        .await
        .expect("the deliveries are recorded");
}

/// The path of the webhook's deliveries, with the id that a receiver finds in the headers.
async fn deliveries_path(world: &World, receiver: &Receiver) -> String {
    world.sandbox.queue_job(&JobRequest::default());
    let received = receiver.wait_for(1).await;
    deliveries(world, 1).await;
    let id = received[0].header("x-github-hook-id");
    format!("/repos/acme/app/hooks/{id}/deliveries")
}

#[tokio::test]
async fn a_failed_delivery_is_listed_and_redelivered_with_its_guid() {
    let receiver = Receiver::start().await;
    receiver.answer_with(StatusCode::SERVICE_UNAVAILABLE);
    let world = World::with_webhook(&receiver).await;
    let path = deliveries_path(&world, &receiver).await;
    let failed = world.get(&format!("{path}?status=failure")).await.json();
    let one = &failed[0];
    assert_eq!((&one["status_code"], &one["redelivery"]), (&json!(503), &json!(false)));
    assert_eq!((&one["event"], &one["action"]), (&json!("workflow_job"), &json!("queued")));

    let detail = world.get(&format!("{path}/{}", one["id"])).await.json();
    assert_eq!(detail["request"]["payload"]["action"], json!("queued"));
    assert_eq!(detail["request"]["headers"]["x-github-delivery"], one["guid"]);
    assert!(detail["response"]["headers"].is_object());

    receiver.answer_with(StatusCode::ACCEPTED);
    let again = format!("{path}/{}/attempts", one["id"]);
    let answer = world.call(Method::POST, &again, None).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::ACCEPTED, json!({})));
    let received = receiver.wait_for(2).await;
    assert_eq!(received[0].header("x-github-delivery"), received[1].header("x-github-delivery"));
    assert_eq!(received[0].body, received[1].body);
    deliveries(&world, 2).await;
    let all = world.get(&path).await.json();
    assert_eq!((&all[0]["redelivery"], &all[0]["status"]), (&json!(true), &json!("OK")));
    assert_eq!(world.sandbox.deliveries()[1].attempt, 2);
}

#[tokio::test]
async fn deliveries_are_paged_by_cursor() {
    let receiver = Receiver::start().await;
    let world = World::with_webhook(&receiver).await;
    let path = deliveries_path(&world, &receiver).await;
    world.sandbox.queue_jobs(&JobRequest { count: 4, ..JobRequest::default() });
    deliveries(&world, 5).await;
    let mut next = Some(format!("{path}?per_page=2"));
    let mut ids = Vec::new();
    while let Some(url) = next {
        let answer = world.get(&url).await;
        let items = answer.json();
        ids.extend(items.as_array().expect("a list").iter().filter_map(|item| item["id"].as_u64()));
        next = answer
            .header("link")
            .strip_suffix(">; rel=\"next\"")
            .and_then(|link| link.strip_prefix('<'))
            .map(str::to_owned);
    }
    assert_eq!(ids.len(), 5);
    assert!(ids.is_sorted_by(|newer, older| newer > older));
    let bad = world.get(&format!("{path}?cursor=nonsense")).await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_lost_delivery_never_arrives_but_is_listed() {
    let receiver = Receiver::start().await;
    let world = World::with_webhook(&receiver).await;
    world.sandbox.set_faults(Faults {
        deliveries: vec![DeliveryFaultKind::Lost.into()],
        ..Faults::default()
    });
    world.sandbox.queue_job(&JobRequest::default());
    deliveries(&world, 1).await;
    assert!(receiver.received().is_empty());
    assert!(!world.sandbox.deliveries()[0].succeeded());
}

#[tokio::test]
async fn a_delivery_without_a_response_in_time_has_failed() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("an address");
    let world = World::start(Settings {
        webhook_url: Some(format!("http://{address}/")),
        delivery_timeout: Duration::from_millis(100),
        ..settings()
    })
    .await;
    world.sandbox.queue_job(&JobRequest::default());
    deliveries(&world, 1).await;
    let delivery = world.sandbox.deliveries().remove(0);
    assert_eq!((delivery.status_code, &*delivery.status), (504, "timed out"));
}

#[tokio::test]
async fn each_kind_of_webhook_names_what_it_belongs_to() {
    for (webhook_kind, target) in [
        (WebhookKind::Repository, "repository"),
        (WebhookKind::Organization, "organization"),
        (WebhookKind::Integration, "integration"),
    ] {
        let receiver = Receiver::start().await;
        let world = World::start(Settings {
            webhook_url: Some(receiver.url.clone()),
            webhook_kind,
            ..settings()
        })
        .await;
        world.sandbox.ping(&JobRequest::default().repository).expect("a ping");
        let ping = receiver.wait_for(1).await.remove(0);
        assert_eq!(ping.header("x-github-event"), "ping");
        assert_eq!(ping.json()["hook_id"].to_string(), ping.header("x-github-hook-id"));
        assert_eq!(ping.header("x-github-hook-installation-target-type"), target);
        world.sandbox.queue_job(&JobRequest::default());
        let job = receiver.wait_for(2).await.remove(1);
        let installation = job.json()["installation"]["id"].clone();
        assert_eq!(installation != Value::Null, webhook_kind == WebhookKind::Integration);
    }
}
