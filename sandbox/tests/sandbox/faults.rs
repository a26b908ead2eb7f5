//! Faults on demand.

use std::time::{Duration, Instant};

use edgerunner_sandbox::{
    DeliveryFault, DeliveryFaultKind, Fault, Faults, JobRequest, RequestFault, RetryAfter,
    Settings, runner,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::support::{Receiver, TOKEN, World, digits_as_zeros, jit};

const RUNNERS: &str = "/repos/acme/app/actions/runners";

fn requests(fault: Fault) -> Faults {
    Faults { requests: vec![fault.into()], ..Faults::default() }
}

fn deliveries(fault: DeliveryFault) -> Faults {
    Faults { deliveries: vec![fault], ..Faults::default() }
}

#[tokio::test]
async fn errors_on_demand() {
    let world = World::new().await;
    for (fault, status) in [
        (Fault::Unauthorized, 401),
        (Fault::NotFound, 404),
        (Fault::Conflict, 409),
        (Fault::UnprocessableEntity, 422),
    ] {
        world.sandbox.set_faults(requests(fault));
        let answer = world.get(RUNNERS).await;
        assert_eq!(answer.status.as_u16(), status);
        assert!(answer.json()["message"].is_string());
    }
    for (fault, status) in [(Fault::ServerError, 500), (Fault::WebPage, 200)] {
        world.sandbox.set_faults(requests(fault));
        let answer = world.get(RUNNERS).await;
        assert_eq!(answer.status.as_u16(), status);
        assert!(answer.header("content-type").starts_with("text/html"));
    }
}

#[tokio::test]
async fn rate_limits_state_when_to_retry() {
    let world = World::new().await;
    let answer = async |fault| {
        world.sandbox.set_faults(requests(fault));
        world.get(RUNNERS).await
    };
    let seconds = answer(Fault::Forbidden { retry_after: RetryAfter::Seconds(7) }).await;
    assert_eq!((seconds.status.as_u16(), seconds.header("retry-after")), (403, "7"));
    let date = answer(Fault::TooManyRequests { retry_after: RetryAfter::Date(7) }).await;
    assert_eq!(date.status.as_u16(), 429);
    let header = digits_as_zeros(date.header("retry-after"));
    assert_eq!((&header[3..8], &header[11..]), (", 00 ", " 0000 00:00:00 GMT"));
    let none = answer(Fault::Forbidden { retry_after: RetryAfter::None }).await;
    assert_eq!((none.status.as_u16(), none.header("retry-after")), (403, ""));
    let primary = answer(Fault::RateLimited { reset_seconds: 60 }).await;
    assert_eq!((primary.status.as_u16(), primary.header("x-ratelimit-remaining")), (403, "0"));
}

#[tokio::test]
async fn a_fault_can_be_limited_to_a_path_and_a_number() {
    let world = World::new().await;
    world.sandbox.set_faults(Faults {
        requests: vec![RequestFault {
            path: Some("/orgs/".to_owned()),
            next: Some(2),
            ..Fault::NotFound.into()
        }],
        ..Faults::default()
    });
    assert_eq!(world.get(RUNNERS).await.status, StatusCode::OK);
    let organization = "/orgs/acme/actions/runners";
    assert_eq!(world.get(organization).await.status, StatusCode::NOT_FOUND);
    assert_eq!(world.get(organization).await.status, StatusCode::NOT_FOUND);
    assert_eq!(world.get(organization).await.status, StatusCode::OK);
    assert_eq!(world.sandbox.faults().requests[0].next, Some(0));
}

#[tokio::test]
async fn a_fault_can_be_limited_to_a_token() {
    let settings =
        Settings { tokens: vec![TOKEN.to_owned(), "other".to_owned()], ..Settings::default() };
    let world = World::start(settings).await;
    let status = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("user-agent", "test"), ("authorization", &*bearer)];
        let answer = world.try_call(Method::GET, RUNNERS, None, &headers).await;
        answer.expect("an answer").status.as_u16()
    };
    for (fault, expected) in
        [(Fault::Unauthorized, 401), (Fault::RateLimited { reset_seconds: 60 }, 403)]
    {
        let fault = RequestFault { token: Some(1), ..fault.into() };
        world.sandbox.set_faults(Faults { requests: vec![fault], ..Faults::default() });
        assert_eq!((status(TOKEN).await, status("other").await), (200, expected));
    }
    // The hour's requests of one token are used up, and not those of the other.
    world.sandbox.set_faults(Faults::default());
    assert_eq!((status(TOKEN).await, status("other").await), (200, 403));
}

#[tokio::test]
async fn a_request_whose_connection_is_closed_may_have_been_performed() {
    let world = World::new().await;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("user-agent", "test"), ("authorization", &*bearer)];
    let path = format!("{RUNNERS}/generate-jitconfig");
    for (performed, name) in [(false, "one"), (true, "two")] {
        world.sandbox.set_faults(requests(Fault::Close { performed }));
        let body = json!({"name": name, "runner_group_id": 1, "labels": ["a"]});
        let answer = world.try_call(Method::POST, &path, Some(body), &headers).await;
        assert!(answer.is_err(), "there is no response");
    }
    let runners = world.sandbox.runners();
    let names: Vec<&str> = runners.iter().map(|runner| runner.name.as_str()).collect();
    assert_eq!(names, ["two"]);
    assert!(world.sandbox.calls().iter().all(|call| call.status.is_none()));
}

#[tokio::test]
async fn latency_adds_up_and_a_hang_ends_with_the_sandbox() {
    let world = World::new().await;
    let latency = || RequestFault::from(Fault::Latency { ms: 60 });
    world.sandbox.set_faults(Faults { requests: vec![latency(), latency()], ..Faults::default() });
    let started = Instant::now();
    assert_eq!(world.get(RUNNERS).await.status, StatusCode::OK);
    assert!(started.elapsed() >= Duration::from_millis(120));

    world.sandbox.set_faults(requests(Fault::Hang));
    let hung = tokio::time::timeout(Duration::from_millis(200), world.get(RUNNERS)).await;
    assert!(hung.is_err());
    let stopped = tokio::time::timeout(Duration::from_secs(5), world.sandbox.shutdown()).await;
    stopped.expect("the sandbox stops in time");
}

#[tokio::test]
async fn links_can_point_to_another_origin() {
    let world = World::new().await;
    for name in ["one", "two"] {
        let body = json!({"name": name, "runner_group_id": 1, "labels": ["a"]});
        world.call(Method::POST, &format!("{RUNNERS}/generate-jitconfig"), Some(body)).await;
    }
    let origin = "http://127.0.0.1:9".to_owned();
    world.sandbox.set_faults(requests(Fault::LinkElsewhere { origin }));
    let answer = world.get(&format!("{RUNNERS}?per_page=1")).await;
    let expected = format!("<http://127.0.0.1:9{RUNNERS}?per_page=1&page=2>; rel=\"next\"");
    assert!(answer.header("link").starts_with(&expected), "{}", answer.header("link"));
}

#[tokio::test]
async fn deliveries_are_doubled_reordered_delayed_or_dropped() {
    let receiver = Receiver::start().await;
    let world = World::with_webhook(&receiver).await;
    let queued = |kind: DeliveryFaultKind| DeliveryFault {
        action: Some("queued".to_owned()),
        next: Some(1),
        ..kind.into()
    };
    let cancelled_job = || {
        let job = world.sandbox.queue_job(&JobRequest::default());
        world.sandbox.cancel_job(job).expect("a queued job can be cancelled");
    };
    let mut seen = 0;
    for (kind, expected) in [
        (DeliveryFaultKind::Doubled, &["queued", "queued", "completed"][..]),
        (DeliveryFaultKind::Reordered, &["completed", "queued"]),
        (DeliveryFaultKind::Delayed { ms: 300 }, &["completed", "queued"]),
        (DeliveryFaultKind::Vanished, &["completed"]),
    ] {
        world.sandbox.set_faults(deliveries(queued(kind)));
        cancelled_job();
        let received = receiver.wait_for(seen + expected.len()).await;
        let actions: Vec<String> = received[seen..].iter().map(|event| event.action()).collect();
        assert_eq!(actions, expected, "{kind:?}");
        if kind == DeliveryFaultKind::Doubled {
            let guid = |index: usize| received[index].header("x-github-delivery");
            assert_eq!(guid(0), guid(1));
        }
        seen += expected.len();
    }
}

#[tokio::test]
async fn a_reordered_delivery_is_sent_even_if_none_follows() {
    let receiver = Receiver::start().await;
    let world = World::with_webhook(&receiver).await;
    world.sandbox.set_faults(deliveries(DeliveryFaultKind::Reordered.into()));
    world.sandbox.queue_job(&JobRequest::default());
    assert_eq!(receiver.wait_for(1).await[0].action(), "queued");
}

#[tokio::test]
async fn events_can_leave_out_the_runner() {
    let receiver = Receiver::start().await;
    let world = World::with_webhook(&receiver).await;
    world.sandbox.set_faults(Faults { unnamed_runners: true, ..Faults::default() });
    world.sandbox.queue_job(&JobRequest { seconds: 0.05, ..JobRequest::default() });
    let config = jit(&world, "one", &["self-hosted"]).await.1;
    runner::run(config, CancellationToken::new()).await.expect("the runner succeeds");
    for (event, name) in receiver.wait_for(3).await.iter().zip([Value::Null, json!(""), json!("")])
    {
        let job = &event.json()["workflow_job"];
        assert_eq!(job["runner_name"], name);
        assert_eq!(job["runner_id"].as_u64(), (name != Value::Null).then_some(0));
    }
}

#[tokio::test]
async fn a_seed_makes_probabilities_repeatable() {
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        let world = World::new().await;
        world.sandbox.set_faults(Faults {
            requests: vec![RequestFault { probability: 0.5, ..Fault::NotFound.into() }],
            seed: 7,
            ..Faults::default()
        });
        let mut outcome = Vec::new();
        for _ in 0..20 {
            outcome.push(world.get(RUNNERS).await.status.as_u16());
        }
        assert!(outcome.contains(&200) && outcome.contains(&404));
        outcomes.push(outcome);
    }
    assert_eq!(outcomes[0], outcomes[1]);
}
