//! Errors: their kind and their message.

use super::*;

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let thief = Server::always(201, &[], JIT_REPLY).await;
    let location = format!("http://{}/", thief.address);
    for status in [301, 302, 307, 308] {
        let location = location.clone();
        let server = Server::start(move |_| answer(status, &[("location", &location)], "")).await;
        let error = server.github().jit_config(&repository(), &new_runner()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::UnexpectedResponse);
        assert!(error.message.contains("redirects are not followed"), "{error}");
    }
    assert_eq!(thief.count(), 0);
}

#[tokio::test]
async fn each_status_has_its_kind() {
    for (status, cause) in [
        (400, ErrorKind::Invalid),
        (401, ErrorKind::Unauthorized),
        (403, ErrorKind::Forbidden),
        (404, ErrorKind::NotFound),
        (422, ErrorKind::Invalid),
        (429, ErrorKind::RateLimited),
        (500, ErrorKind::Server),
        (503, ErrorKind::Server),
        (200, ErrorKind::UnexpectedResponse),
        (418, ErrorKind::UnexpectedResponse),
    ] {
        let server = Server::always(status, &[], r#"{"message":"As GitHub says"}"#).await;
        let error = server.github().jit_config(&organization(), &new_runner()).await.unwrap_err();
        assert_eq!(error.kind, cause, "{status}");
        let line = error.to_string();
        assert!(line.contains(&status.to_string()) && line.contains("As GitHub says"), "{line}");
        assert!(
            line.contains("edge-1") && line.contains("org:acme") && !line.contains('\n'),
            "{line}"
        );
        assert_eq!(server.count(), 1, "no call is repeated");
    }
}

#[tokio::test]
async fn rate_limits_say_how_long() {
    let limited = |status, headers| async move {
        let server =
            Server::always(status, headers, r#"{"message":"API rate limit exceeded"}"#).await;
        let error = server.github().runners(&organization()).await.unwrap_err();
        (error.kind, error.retry_after.map(|wait| wait.as_secs()))
    };
    assert_eq!(limited(403, &[("retry-after", "7")]).await, (ErrorKind::RateLimited, Some(7)));
    assert_eq!(limited(429, &[]).await, (ErrorKind::RateLimited, Some(60)));
    let gone_by: &[_] = &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1000000000")];
    assert_eq!(limited(403, gone_by).await, (ErrorKind::RateLimited, Some(1)));
}

#[tokio::test]
async fn the_details_of_a_rejection_are_in_the_message() {
    let body = r#"{"message":"Validation Failed","errors":[{"resource":"Runner","field":"runner_group_id","code":"missing"},"and more"]}"#;
    let server = Server::always(422, &[], body).await;
    let error = server.github().jit_config(&organization(), &new_runner()).await.unwrap_err();
    assert!(
        error.message.contains("Validation Failed: runner_group_id missing, and more"),
        "{error}"
    );
}

#[tokio::test]
async fn html_is_not_quoted() {
    let html = [("content-type", "text/html")];
    let server =
        Server::start(move |_| answer(500, &html, "<html>unicorn</html>".repeat(100))).await;
    let error = server.github().runners(&organization()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Server);
    assert!(error.message.contains("2000 bytes") && !error.message.contains("unicorn"), "{error}");
}

#[tokio::test]
async fn a_credential_in_a_response_is_not_quoted() {
    let echo = json!({ "message": format!("Bad credentials: {TOKEN}") }).to_string();
    let server = Server::start(move |_| answer(401, &[], echo.clone())).await;
    let error = server.github().runners(&organization()).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains(TOKEN), "{error}");

    let server =
        Server::always(201, &[], r#"{"runner":{"id":"x"},"encoded_jit_config":"c2VjcmV0"}"#).await;
    let error = server.github().jit_config(&organization(), &new_runner()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::UnexpectedResponse);
    assert!(!format!("{error} {error:?}").contains("c2VjcmV0"), "{error}");
}

#[tokio::test]
async fn each_documented_status_of_a_call_for_missed_webhooks_has_its_kind() {
    for (status, cause) in [
        (400, ErrorKind::Invalid),
        (401, ErrorKind::Unauthorized),
        (403, ErrorKind::Forbidden),
        (404, ErrorKind::NotFound),
        (422, ErrorKind::Invalid),
        (500, ErrorKind::Server),
        // Nothing is cached that it could confirm.
        (304, ErrorKind::UnexpectedResponse),
    ] {
        let server = Server::always(status, &[], r#"{"message":"As GitHub says"}"#).await;
        let (github, hook) = (server.github(), "orgs/acme/hooks/1".parse().unwrap());
        let errors = [
            github.deliveries(&hook, None).await.unwrap_err(),
            github.redeliver(&hook, 1).await.unwrap_err(),
            github.runs("acme", "app", RunStatus::Queued, None).await.unwrap_err(),
            github.jobs_of_run("acme", "app", 1, None).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind, cause, "{error}");
        }
        let repeats = |method: Method| {
            let seen = server.seen.lock().unwrap();
            seen.iter().filter(|request| request.method == method).count()
        };
        // A redelivery that GitHub may have received is not requested twice.
        assert_eq!(repeats(Method::POST), 1);
        assert_eq!(repeats(Method::GET) > 3, status == 500);
    }
}
