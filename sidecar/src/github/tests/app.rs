//! GitHub Apps.

use super::*;
use crate::config::private_key_problem;

#[tokio::test]
async fn concurrent_calls_of_an_app_share_one_token() {
    let server = github_of_an_app(Duration::from_secs(3_600), |_| false).await;
    let github = app(server.address);
    let (organization, repository, runner) = (organization(), repository(), new_runner());
    let calls = (0..10).map(|_| github.jit_config(&organization, &runner));
    futures_util::future::try_join_all(calls).await.unwrap();
    // The repository's owner is that organization: the same installation.
    github.jit_config(&repository, &runner).await.unwrap();
    let paths = paths(&server);
    let count = |end: &str| paths.iter().filter(|path| path.ends_with(end)).count();
    assert_eq!((count("/installation"), count("/access_tokens")), (1, 1), "{paths:?}");
    assert_eq!(paths[0], "/orgs/acme/installation");
    let seen = server.seen.lock().unwrap();
    let now = jiff::Timestamp::now().as_second();
    let claims = claims(&seen[0]);
    assert_eq!(claims["iss"], "12345");
    assert!(claims["iat"].as_i64().unwrap() <= now - 55);
    assert!((now + 500..=now + 600).contains(&claims["exp"].as_i64().unwrap()), "{claims}");
    assert_eq!(seen.last().unwrap().header("authorization"), ["Bearer ghs_1"]);
}

#[tokio::test]
async fn a_token_of_an_app_is_renewed_before_it_expires() {
    // Less than what must be left of it.
    let server = github_of_an_app(Duration::from_secs(60), |_| false).await;
    let github = app(server.address);
    for _ in 0..2 {
        github.jit_config(&repository(), &new_runner()).await.unwrap();
    }
    let paths = paths(&server);
    assert_eq!(paths.iter().filter(|path| path.ends_with("/access_tokens")).count(), 2);
    assert_eq!(paths[0], "/repos/acme/app/installation");
}

#[tokio::test]
async fn a_token_of_an_app_that_expired_early_is_renewed_once_for_all() {
    let server =
        github_of_an_app(Duration::from_secs(3_600), |bearer| bearer.ends_with("_1")).await;
    let github = app(server.address);
    let (organization, runner) = (organization(), new_runner());
    let calls = (0..10).map(|_| github.jit_config(&organization, &runner));
    futures_util::future::try_join_all(calls).await.unwrap();
    let count = paths(&server).iter().filter(|path| path.ends_with("/access_tokens")).count();
    assert_eq!(count, 2);
}

#[tokio::test]
async fn a_call_of_an_app_is_repeated_once_with_another_token() {
    let server = github_of_an_app(Duration::from_secs(3_600), |_| true).await;
    let error = app(server.address).jit_config(&organization(), &new_runner()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(!error.message.contains("ghs_"), "{error}");
    let paths = paths(&server);
    assert_eq!(paths.iter().filter(|path| path.ends_with("/generate-jitconfig")).count(), 2);
}

#[tokio::test]
async fn a_wrong_clock_does_not_lock_an_app_out() {
    let ahead = 3_600;
    let server = Server::start(move |seen| {
        let bearer = seen.header("authorization")[0].to_owned();
        if bearer == "Bearer ghs_1" {
            return answer(201, &[], JIT_REPLY);
        }
        let now = jiff::Timestamp::now().as_second() + ahead;
        let claims = claims(seen);
        let fits = claims["iat"].as_i64().unwrap() <= now && claims["exp"].as_i64().unwrap() > now;
        let date =
            httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(ahead.unsigned_abs()));
        let headers = [("date", date.as_str())];
        match seen.uri.path() {
            _ if !fits => {
                answer(401, &headers, r#"{"message":"'Expiration time' is in the past"}"#)
            }
            "/orgs/acme/installation" => answer(200, &headers, r#"{"id":1}"#),
            _ => answer(201, &headers, r#"{"token":"ghs_1","expires_at":"2999-01-01T00:00:00Z"}"#),
        }
    })
    .await;
    let github = app(server.address);
    github.jit_config(&organization(), &new_runner()).await.unwrap();
    assert_eq!(server.count(), 4, "{:?}", paths(&server));
}

#[tokio::test]
async fn the_errors_of_an_app_say_what_to_do() {
    let cause = async |status, target: Target| {
        let server = Server::always(status, &[], "{}").await;
        let error = app(server.address).jit_config(&target, &new_runner()).await.unwrap_err();
        (error.kind, error.message)
    };
    let (refused, message) = cause(401, organization()).await;
    assert_eq!(refused, ErrorKind::Unauthorized);
    assert!(message.contains("app_private_key"), "{message}");
    let (absent, message) = cause(404, repository()).await;
    assert_eq!(absent, ErrorKind::NotFound);
    assert!(message.contains("install it at acme"), "{message}");
    let (enterprise, message) = cause(200, Target::Enterprise("corp".into())).await;
    assert_eq!(enterprise, ErrorKind::Forbidden);
    assert!(message.contains("[[credentials]]"), "{message}");
    let unusable = "-----BEGIN RSA PRIVATE KEY-----\nnot a key".to_owned().into();
    assert!(private_key_problem(&unusable).is_some());
    assert!(private_key_problem(&PRIVATE_KEY.to_owned().into()).is_none());
}
