//! Registration tokens: shared, cached and renewed.

use super::*;

#[tokio::test]
async fn twenty_waiters_share_one_registration_token() {
    let server =
        Server::start(|_| answer(201, &[], registration_reply(Duration::from_secs(3600)))).await;
    let github = server.github();
    let target = organization();
    let calls = (0..20).map(|_| github.registration_token(&target));
    for token in futures_util::future::join_all(calls).await {
        assert_eq!(token.unwrap().secret.expose_secret(), "AABF3");
    }
    github.registration_token(&target).await.unwrap();
    let seen = server.only();
    assert_eq!(seen.header("content-length"), ["0"]);
    assert_eq!(
        (seen.method.clone(), seen.uri.path()),
        (Method::POST, "/orgs/acme/actions/runners/registration-token")
    );

    github.registration_token(&repository()).await.unwrap();
    assert_eq!(server.count(), 1, "another target has its own token");
}

#[tokio::test]
async fn a_token_that_expires_at_once_is_not_requested_again_and_again() {
    for life in [Duration::ZERO, Duration::from_secs(30)] {
        let server = Server::start(move |_| answer(201, &[], registration_reply(life))).await;
        let github = server.github();
        for _ in 0..20 {
            // The clock that wrote its time may be wrong.
            let token = github.registration_token(&organization()).await.unwrap();
            assert_eq!(token.secret.expose_secret(), "AABF3");
            assert!(token.valid_for > Duration::from_secs(3_500), "{:?}", token.valid_for);
        }
        assert_eq!(server.count(), 1);
    }
}

#[tokio::test]
async fn a_registration_tokens_life_is_measured_by_githubs_clock() {
    let server = Server::start(|_| {
        let theirs = SystemTime::now() - Duration::from_secs(2 * 3600);
        let body = json!({
            "token": "AABF3",
            "expires_at": rfc_3339(theirs + Duration::from_secs(3600)),
        });
        answer(201, &[("date", &httpdate::fmt_http_date(theirs))], body.to_string())
    })
    .await;
    let github = server.github();
    github.registration_token(&organization()).await.unwrap();
    github.registration_token(&organization()).await.unwrap();
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_failure_holds_for_all_callers_until_the_next_attempt() {
    let server = Server::always(403, &[], r#"{"message":"no"}"#).await;
    let github = server.github();
    let target = organization();
    let calls = (0..20).map(|_| github.registration_token(&target));
    for token in futures_util::future::join_all(calls).await {
        assert_eq!(token.unwrap_err().kind, ErrorKind::Forbidden);
    }
    let error = github.registration_token(&target).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Forbidden);
    assert!(error.retry_after.is_some() && error.message.contains("next attempt in"), "{error}");
    assert_eq!(server.count(), 1);
    github.registration_token(&repository()).await.unwrap_err();
    assert_eq!(server.count(), 2, "another target is not held up");
}
