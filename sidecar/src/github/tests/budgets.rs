//! Request budgets.

use super::*;

#[tokio::test]
async fn each_budget_is_recorded() {
    let server = Server::start(|seen| match seen.uri.path() {
        "/orgs/acme/installation" => answer(200, &CORE, r#"{"id":77}"#),
        "/app/installations/77/access_tokens" => {
            let body = r#"{"token":"ghs_1","expires_at":"2999-01-01T00:00:00Z"}"#;
            answer(201, &CORE, body)
        }
        _ => {
            let mut headers = CORE;
            headers[1].1 = "99";
            answer(200, &headers, r#"{"runners":[]}"#)
        }
    })
    .await;
    let app = app(server.address);
    app.runners(&organization()).await.unwrap();
    let budget = |remaining| RateLimit { limit: 5_000, remaining, reset: 1_700_000_000 };
    let both = [(String::new(), budget(4_321)), ("acme".to_owned(), budget(99))];
    assert_eq!(app.budgets(), both);

    let token = server.github();
    token.runners(&organization()).await.unwrap();
    assert_eq!(token.budgets(), [(String::new(), budget(99))]);
}

#[tokio::test]
async fn a_refused_token_has_no_budget() {
    let server = Server::always(401, &[("x-ratelimit-limit", "60")], "{}").await;
    let github = server.github();
    github.runners(&organization()).await.unwrap_err();
    assert_eq!(github.budgets(), []);
}
