//! Until when GitHub accepts a version of the runner.

use super::*;

async fn end_of(status: u16, body: &'static str) -> Result<VersionEnd, Error> {
    Server::always(status, &[], body).await.github().version_end(&organization(), "2.335.0").await
}

#[tokio::test]
async fn the_version_is_part_of_the_path() {
    let server = Server::always(200, &[], "{}").await;
    let end = server.github().version_end(&organization(), "2.335.0/..").await.unwrap();
    assert!(matches!(end, VersionEnd::Unknown(_)), "{end:?}");
    let path = "/orgs/acme/actions/runners/deprecations/2.335.0%2F..";
    assert_eq!(server.only().uri.path(), path);
}

#[tokio::test]
async fn the_earlier_date_is_the_end() {
    let at = |text: &str| {
        let time: jiff::Timestamp = text.parse().unwrap();
        VersionEnd::At(time.as_millisecond().try_into().unwrap())
    };
    let both = r#"{"runner_version":"2.335.0","runtime_deprecates_at":"2026-12-08T00:00:00Z",
        "registration_deprecates_at":"2026-11-30T00:00:00Z"}"#;
    assert_eq!(end_of(200, both).await.unwrap(), at("2026-11-30T00:00:00Z"));
    let one = r#"{"runtime_deprecates_at":"2026-12-08T01:00:00+01:00"}"#;
    assert_eq!(end_of(200, one).await.unwrap(), at("2026-12-08T00:00:00Z"));
}

#[tokio::test]
async fn what_github_does_not_say_is_unknown_and_no_failure() {
    for (status, body, expected) in [
        (404, r#"{"message":"Not Found"}"#, "does not know version 2.335.0"),
        (403, r#"{"message":"Resource not accessible"}"#, "Resource not accessible"),
        (200, "{}", "no date"),
        (200, r#"{"runner_version":"2.335.0","runtime_deprecates_at":null}"#, "no date"),
        (200, r#"{"runtime_deprecates_at":"2026-02-30T00:00:00Z"}"#, "impossible date: \"2026-02"),
        (200, r#"{"runtime_deprecates_at":"0001-01-01T00:00:00Z"}"#, "impossible date"),
        (200, r#"{"registration_deprecates_at":1796000000}"#, "impossible date: 1796000000"),
        (200, r#"{"runtime_deprecates_at":"soon"}"#, "impossible date: \"soon\""),
    ] {
        match end_of(status, body).await {
            Ok(VersionEnd::Unknown(why)) => assert!(why.contains(expected), "{why}"),
            other => panic!("{status} {body}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_failure_of_github_is_an_error() {
    for (status, body, kind) in [
        (401, r#"{"message":"Bad credentials"}"#, ErrorKind::Unauthorized),
        (429, r#"{"message":"Too many"}"#, ErrorKind::RateLimited),
        (200, "7", ErrorKind::UnexpectedResponse),
        (200, "<html>", ErrorKind::UnexpectedResponse),
    ] {
        assert_eq!(end_of(status, body).await.unwrap_err().kind, kind, "{status} {body}");
    }
}
