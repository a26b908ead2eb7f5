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
async fn a_token_of_an_app_that_expires_at_once_is_requested_once() {
    let server = github_of_an_app(Duration::from_secs(0), |_| false).await;
    let github = app(server.address);
    for _ in 0..20 {
        github.jit_config(&repository(), &new_runner()).await.unwrap();
    }
    let paths = paths(&server);
    assert_eq!(paths.iter().filter(|path| path.ends_with("/access_tokens")).count(), 1);
    assert_eq!(paths[0], "/repos/acme/app/installation");
}

#[tokio::test]
async fn tokens_of_an_app_that_are_always_refused_are_requested_rarely() {
    for lifetime in [Duration::ZERO, Duration::from_secs(3_600)] {
        let server = github_of_an_app(lifetime, |_| true).await;
        let github = app(server.address);
        let call = async || github.jit_config(&repository(), &new_runner()).await.unwrap_err();
        for _ in 0..20 {
            let error = call().await;
            assert_eq!(error.kind, ErrorKind::Unauthorized);
        }
        let held = call().await;
        assert!(held.retry_after.is_some() && held.message.contains("next attempt"), "{held}");
        let paths = paths(&server);
        for end in ["/access_tokens", "/generate-jitconfig"] {
            let count = paths.iter().filter(|path| path.ends_with(end)).count();
            assert!(count <= 2, "{count} {end}");
        }
    }
}

#[tokio::test]
async fn an_app_that_is_suspended_at_one_account_works_at_the_others() {
    let server = Server::start(|seen| match seen.uri.path() {
        "/orgs/acme/installation" => answer(200, &[], r#"{"id":77}"#),
        "/orgs/other/installation" => answer(200, &[], r#"{"id":78}"#),
        "/app/installations/77/access_tokens" => {
            answer(403, &[], r#"{"message":"This installation has been suspended"}"#)
        }
        "/app/installations/78/access_tokens" => answer(201, &[], TOKEN_REPLY),
        _ => answer(201, &[], JIT_REPLY),
    })
    .await;
    let github = app(server.address);
    let other = Target::Organization("other".into());
    for _ in 0..10 {
        let error = github.jit_config(&organization(), &new_runner()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Forbidden);
        assert!(error.message.contains("unsuspend it"), "{error}");
        github.jit_config(&other, &new_runner()).await.unwrap();
    }
    let paths = paths(&server);
    let count = |end: &str| paths.iter().filter(|path| path.ends_with(end)).count();
    assert_eq!((count("/77/access_tokens"), count("/78/access_tokens")), (1, 1), "{paths:?}");
}

#[tokio::test]
async fn a_repository_that_an_app_may_not_see_does_not_affect_the_others_of_its_owner() {
    let server = Server::start(|seen| match seen.uri.path() {
        "/repos/acme/hidden/installation" => answer(404, &[], r#"{"message":"Not Found"}"#),
        path if path.ends_with("/installation") => answer(200, &[], r#"{"id":77}"#),
        path if path.ends_with("/access_tokens") => answer(201, &[], TOKEN_REPLY),
        _ => answer(201, &[], JIT_REPLY),
    })
    .await;
    let github = app(server.address);
    let hidden = Target::Repository { owner: "acme".into(), name: "hidden".into() };
    let (repository, runner) = (repository(), new_runner());
    let calls = (0..10).map(async |number| {
        let target = if number % 2 == 0 { &hidden } else { &repository };
        (target == &repository, github.jit_config(target, &runner).await)
    });
    for (is_visible, result) in futures_util::future::join_all(calls).await {
        assert_eq!(result.is_ok(), is_visible, "{result:?}");
    }
    assert!(github.jit_config(&hidden, &runner).await.is_ok(), "its account is known by now");
}

#[tokio::test]
async fn a_transferred_repository_does_not_lend_its_installation_to_its_old_owner() {
    let server = Server::start(|seen| {
        let path = seen.uri.path();
        let location = format!("http://{}/repositories/4711", seen.header("host")[0]);
        match path {
            "/repos/acme/moved/installation" => {
                let location = format!("{location}/installation");
                answer(301, &[("location", &location)], "{}")
            }
            "/repositories/4711/installation" => {
                answer(200, &[], r#"{"id":78,"account":{"login":"new-owner"}}"#)
            }
            "/repos/acme/app/installation" => {
                answer(200, &[], r#"{"id":77,"account":{"login":"Acme"}}"#)
            }
            "/app/installations/77/access_tokens" => {
                answer(201, &[], TOKEN_REPLY.replace("AABF3", "of-acme"))
            }
            "/app/installations/78/access_tokens" => {
                answer(201, &[], TOKEN_REPLY.replace("AABF3", "of-the-new-owner"))
            }
            "/repositories/4711" => answer(200, &[], r#"{"full_name":"new-owner/moved"}"#),
            _ => answer(201, &[], JIT_REPLY),
        }
    })
    .await;
    let github = app(server.address);
    let moved = Target::Repository { owner: "acme".into(), name: "moved".into() };
    for (target, token) in [(moved, "of-the-new-owner"), (repository(), "of-acme")] {
        github.jit_config(&target, &new_runner()).await.unwrap();
        let seen = server.seen.lock().unwrap();
        assert_eq!(seen.last().unwrap().header("authorization"), [format!("Bearer {token}")]);
    }
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
