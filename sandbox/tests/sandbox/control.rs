//! The control API.

use edgerunner_sandbox::{DeliveryFaultKind, Fault, RetryAfter};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::World;

async fn call(world: &World, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let path = format!("/_sandbox{path}");
    let answer = world.try_call(method, &path, body, &[]).await.expect("an answer");
    (answer.status.as_u16(), answer.json())
}

#[tokio::test]
async fn jobs_are_queued_cancelled_and_rerun() {
    let world = World::new().await;
    let (status, jobs) = call(&world, Method::POST, "/jobs", None).await;
    assert_eq!(status, 201);
    assert_eq!(jobs[0]["repository"], json!("acme/app"));
    assert_eq!(jobs[0]["labels"], json!(["self-hosted"]));
    let body = json!({"repository": "acme/api", "count": 3, "conclusion": "failure"});
    let (_, more) = call(&world, Method::POST, "/jobs", Some(body)).await;
    assert_eq!(more.as_array().map(Vec::len), Some(3));
    let (_, all) = call(&world, Method::GET, "/jobs", None).await;
    assert_eq!(all.as_array().map(Vec::len), Some(4));
    let id = &jobs[0]["id"];
    let rerun = format!("/jobs/{id}/rerun");
    assert_eq!(call(&world, Method::POST, &rerun, None).await.0, 409);
    let (status, job) = call(&world, Method::POST, &format!("/jobs/{id}/cancel"), None).await;
    assert_eq!((status, &job["conclusion"]), (202, &json!("cancelled")));
    let (status, job) = call(&world, Method::POST, &rerun, None).await;
    assert_eq!((status, &job["run_attempt"]), (201, &json!(2)));
    assert_eq!(call(&world, Method::POST, "/jobs/7/cancel", None).await.0, 404);
}

#[tokio::test]
async fn an_error_in_a_request_is_answered_with_a_hint() {
    let world = World::new().await;
    for (body, hint) in [
        (json!({"repo": "acme/app"}), "expected one of `repository`"),
        (json!({"repository": "app"}), "write owner/name"),
        (json!({"conclusion": "succes"}), "`success`"),
        (json!({"count": 0}), "between 1 and"),
        (json!({"seconds": -1}), "between 0 and"),
    ] {
        let (status, answer) = call(&world, Method::POST, "/jobs", Some(body)).await;
        let error = answer["error"].as_str().expect("text");
        assert!(status == 400 && error.contains(hint), "{status} {error}");
    }
}

#[tokio::test]
async fn faults_are_set_and_shown() {
    let world = World::new().await;
    let body = json!({
        "requests": [{"path": "generate-jitconfig", "next": 3,
                      "fault": {"forbidden": {"retry_after": {"seconds": 5}}}},
                     {"fault": "hang", "next": 1}],
        "deliveries": [{"action": "queued", "probability": 0.1, "fault": "lost"}],
        "seed": 1
    });
    assert_eq!(call(&world, Method::PUT, "/faults", Some(body)).await.0, 200);
    let faults = world.sandbox.faults();
    let retry_after = RetryAfter::Seconds(5);
    assert_eq!(faults.requests[0].fault, Fault::Forbidden { retry_after });
    assert_eq!(faults.deliveries[0].fault, DeliveryFaultKind::Lost);
    let (_, shown) = call(&world, Method::GET, "/faults", None).await;
    assert_eq!(shown["requests"][0]["next"], json!(3));
    let (status, answer) = call(&world, Method::PUT, "/faults", Some(json!({"request": []}))).await;
    assert_eq!(status, 400);
    assert!(answer["error"].as_str().expect("text").contains("`requests`"));
    assert_eq!(call(&world, Method::PUT, "/faults", None).await.0, 200);
    assert!(world.sandbox.faults().requests.is_empty());
}

#[tokio::test]
async fn the_help_lists_every_path() {
    let world = World::new().await;
    let help = world.try_call(Method::GET, "/_sandbox/", None, &[]).await.expect("an answer");
    assert_eq!(help.status, StatusCode::OK);
    assert!(help.text().contains("POST /_sandbox/jobs"));
    for path in ["/runners", "/repositories", "/deliveries", "/calls"] {
        assert_eq!(call(&world, Method::GET, path, None).await.0, 200);
        assert!(help.text().contains(path));
    }
}
