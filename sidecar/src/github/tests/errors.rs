//! Errors: their kind and their message.

use super::*;

#[tokio::test]
async fn each_status_has_its_kind() {
    for (status, cause) in [
        (400, ErrorKind::Invalid),
        (401, ErrorKind::Unauthorized),
        (403, ErrorKind::Forbidden),
        (404, ErrorKind::NotFound),
        (405, ErrorKind::UnexpectedResponse),
        (410, ErrorKind::NotFound),
        (422, ErrorKind::Invalid),
        (429, ErrorKind::RateLimited),
        (451, ErrorKind::Forbidden),
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
async fn a_web_page_is_no_answer_of_github() {
    const PAGE: &str = "\n<!DOCTYPE html><html>Sign in</html>";
    const HTML: &[(&str, &str)] = &[("content-type", "text/html; charset=utf-8")];
    for (status, kind) in [
        (200, ErrorKind::UnexpectedResponse),
        (201, ErrorKind::UnexpectedResponse),
        (401, ErrorKind::Unauthorized),
        (403, ErrorKind::UnexpectedResponse),
        (404, ErrorKind::UnexpectedResponse),
        (422, ErrorKind::UnexpectedResponse),
        (429, ErrorKind::RateLimited),
        (502, ErrorKind::Server),
        (503, ErrorKind::Server),
    ] {
        for headers in [HTML, &[]] {
            let server = Server::always(status, headers, PAGE).await;
            let github = server.patient_github();
            let errors = [
                github.jit_config(&organization(), &new_runner()).await.unwrap_err(),
                github.registration_token(&organization()).await.unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.kind, kind, "{error}");
                assert!(!error.message.contains("Sign in"), "{error}");
            }
        }
        let server = Server::always(status, HTML, PAGE).await;
        let github = server.patient_github();
        // That a registration or a job is gone is believed of GitHub alone.
        let error = github.remove_runner(&organization(), 7).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        let error = github.job("acme", "app", 9).await.unwrap_err();
        let asked_to_wait = status == 429;
        assert_eq!(error.kind, kind, "{asked_to_wait} {error}");
    }
    // A page with a sign of a rate limit is taken for one.
    let server = Server::always(403, &[("retry-after", "7")], PAGE).await;
    let error = server.github().runners(&organization()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RateLimited);
}

#[tokio::test]
async fn the_advice_fits_githubs_message() {
    for (status, message, of_token, of_app) in [
        (403, "Resource not accessible", "give the token access", "give the App write access"),
        (403, "Repository was archived so is read-only.", "unarchive", "unarchive"),
        (403, "Repository access blocked", "access blocked", "access blocked"),
        (451, "Repository access blocked", "access blocked", "access blocked"),
        (403, "This installation has been suspended", "is suspended", "unsuspend it"),
        (
            403,
            "Resource protected by organization SAML enforcement.",
            "single sign-on",
            "single sign-on",
        ),
        (
            403,
            "Although you appear to have the correct authorization credentials, the `acme` \
             organization has an IP allow list enabled, and your IP address is not permitted to \
             access this resource.",
            "IP allow list",
            "IP allow list",
        ),
        (404, "Not Found", "the token's permissions", "its installation has access"),
        (410, "Gone", "whether it was deleted", "whether it was deleted"),
    ] {
        let body = json!({ "message": message }).to_string();
        let server = Server::start(move |seen| {
            let path = seen.uri.path();
            if path.ends_with("/installation") {
                return answer(200, &[], r#"{"id":77}"#);
            }
            if path.ends_with("/access_tokens") {
                return answer(201, &[], TOKEN_REPLY);
            }
            answer(status, &[], body.clone())
        })
        .await;
        let advice = [(server.github(), of_token), (app(server.address), of_app)];
        for (github, advice) in advice {
            let error = github.jit_config(&repository(), &new_runner()).await.unwrap_err();
            assert!(error.message.contains(message), "{error}");
            assert!(error.message.contains(advice), "{advice}: {error}");
        }
    }
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
