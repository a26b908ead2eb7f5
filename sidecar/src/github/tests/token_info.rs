//! Scopes and permissions.

use super::*;

#[tokio::test]
async fn the_scopes_of_a_token_are_those_that_github_reports() {
    let token_info = async |status, headers: &'static [(&'static str, &'static str)]| {
        let server = Server::always(status, headers, "{}").await;
        server.github().token_info().await
    };
    let scopes = |all: &[&str]| Rights::Scopes(all.iter().map(ToString::to_string).collect());
    let classic = &[("x-oauth-scopes", "repo, admin:org")];
    assert_eq!(token_info(200, classic).await.unwrap().rights, scopes(&["repo", "admin:org"]));
    assert_eq!(token_info(200, &[("x-oauth-scopes", "")]).await.unwrap().rights, scopes(&[]));
    assert_eq!(token_info(200, &[]).await.unwrap().rights, Rights::Unknown);
    // An Enterprise Server without rate limits.
    assert_eq!(token_info(404, classic).await.unwrap().rights, scopes(&["repo", "admin:org"]));
    assert_eq!(token_info(401, &[]).await.unwrap_err().kind, ErrorKind::Unauthorized);
    let late = &[("date", "Thu, 01 Jan 2015 00:00:00 GMT")];
    assert!(token_info(200, late).await.unwrap().clock_skew > Duration::from_secs(1_000_000));
}
