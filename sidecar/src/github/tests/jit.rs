//! JIT configurations, and names that are taken.

use super::*;

#[tokio::test]
async fn a_jit_configuration_is_requested() {
    let server = Server::always(201, &[], JIT_REPLY).await;
    let runner = server.github().jit_config(&organization(), &new_runner()).await.unwrap();
    assert_eq!((runner.id, runner.encoded_jit_config.expose_secret()), (23, "c2VjcmV0"));
    assert!(!format!("{runner:?}").contains("c2VjcmV0"));

    let seen = server.only();
    assert_eq!(seen.method, Method::POST);
    assert_eq!(seen.uri, "/orgs/acme/actions/runners/generate-jitconfig");
    let expected = json!({
        "name": "edge-1",
        "labels": ["self-hosted", "linux"],
        "runner_group_id": 1,
        "work_folder": "_work",
    });
    assert_eq!(seen.body, expected);
}

/// GitHub where a runner with the requested name exists, in this state.
async fn github_with_the_name_taken(online: bool, busy: bool) -> Server {
    let there = Arc::new(Mutex::new(true));
    Server::start(move |seen| {
        let mut there = there.lock().unwrap();
        match seen.method {
            Method::GET => {
                assert_eq!(seen.uri.query(), Some("name=edge-1&per_page=100"));
                let status = if online { "online" } else { "offline" };
                let runner = json!({ "id": 5, "name": "Edge-1", "status": status, "busy": busy, "labels": [] });
                let other = json!({ "id": 4, "name": "edge-10", "status": status, "busy": busy, "labels": [] });
                let listed = if *there { vec![other, runner] } else { vec![other] };
                answer(200, &[], json!({ "total_count": 1, "runners": listed }).to_string())
            }
            Method::DELETE => {
                assert_eq!(seen.uri.path(), "/orgs/acme/actions/runners/5");
                *there = false;
                answer(204, &[], "")
            }
            _ if *there => answer(409, &[], r#"{"message":"Already exists"}"#),
            _ => answer(201, &[], JIT_REPLY),
        }
    })
    .await
}

#[tokio::test]
async fn a_name_taken_by_a_registration_that_was_lost_is_freed() {
    let server = github_with_the_name_taken(false, false).await;
    server.github().jit_config(&organization(), &new_runner()).await.unwrap();
    let seen = server.seen.lock().unwrap();
    let methods: Vec<_> = seen.iter().map(|seen| seen.method.as_str()).collect();
    assert_eq!(methods, ["POST", "GET", "DELETE", "POST"]);
}

#[tokio::test]
async fn a_name_taken_by_an_online_runner_is_left_to_it() {
    for (online, busy) in [(true, false), (false, true), (true, true)] {
        let server = github_with_the_name_taken(online, busy).await;
        let error = server.github().jit_config(&organization(), &new_runner()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NameTaken);
        assert_eq!(server.count(), 2);
    }
}
