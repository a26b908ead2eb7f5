//! What the requests of a credential are for.

use super::*;

#[tokio::test]
async fn requests_are_counted_by_purpose() {
    let server = Server::start(|seen| match seen.uri.path() {
        path if path.ends_with("/installation") => answer(200, &[], r#"{"id":77}"#),
        path if path.ends_with("/access_tokens") => answer(201, &[], TOKEN_REPLY),
        path if path.ends_with("/generate-jitconfig") => answer(201, &[], JIT_REPLY),
        path if path.ends_with("/deliveries") => match seen.header("if-none-match").is_empty() {
            true => answer(200, &[("etag", "one")], "[]"),
            false => answer(304, &[("etag", "one")], ""),
        },
        path if path.ends_with("/jobs/9") => answer(404, &[], r#"{"message":"Not Found"}"#),
        path if path.ends_with("/runs") => answer(404, &[], r#"{"message":"Not Found"}"#),
        _ => answer(502, &[], ""),
    })
    .await;
    let github = app(server.address);
    let as_purpose = |purpose| github.for_purpose(purpose);
    as_purpose(Purpose::Launches).jit_config(&repository(), &new_runner()).await.unwrap();
    as_purpose(Purpose::LookUps).job("acme", "app", 9).await.unwrap_err();
    let hook = "orgs/acme/hooks/1".parse().unwrap();
    for _ in 0..3 {
        as_purpose(Purpose::MissedWebhooks).deliveries(&hook, None).await.unwrap();
    }
    let removal = as_purpose(Purpose::Removals).remove_runner(&repository(), 7).await;
    assert_eq!(removal.unwrap_err().kind, ErrorKind::Server);

    let spent = |purpose, requests, refused| Spent { purpose, requests, refused, failed: 0 };
    let all = github.spent();
    assert_eq!(all[0], spent(Purpose::Launches, 1, 0));
    assert_eq!((all[1].purpose, all[1].failed), (Purpose::Removals, all[1].requests));
    let rest = [
        spent(Purpose::LookUps, 2, 2),
        // The second and third were answered 304.
        spent(Purpose::MissedWebhooks, 1, 0),
        spent(Purpose::Tokens, 2, 0),
    ];
    assert_eq!(all[2..], rest);
}
