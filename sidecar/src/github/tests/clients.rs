//! The choice of a credential for each call about a target that several serve.

use super::{super::clients::Clients, *};
use edgerunner_scheduler::{
    model::ServerTarget,
    plan::{Quota, TargetPattern},
};

const RUNNERS: &str = r#"{"total_count":0,"runners":[]}"#;
const CORE: (&str, &str) = ("x-ratelimit-resource", "core");

/// `one` and `two`, with tokens of these names, for all targets of a server.
fn clients(server: &Server) -> Clients {
    let of = |name: &str| CredentialConfig {
        name: name.into(),
        targets: vec![TargetPattern::parse("acme").unwrap()],
        identity: Identity::Token(SecretString::from(name).into()),
        ..credential(&server.url())
    };
    Clients::new(&[of("one"), of("two")], LONG_TIMEOUT).unwrap()
}

fn target() -> ServerTarget {
    "org:acme".parse().unwrap()
}

/// The name of the token that a request was sent with.
fn token_of(seen: &Seen) -> String {
    seen.header("authorization")[0].trim_start_matches("Bearer ").to_owned()
}

/// The tokens of all requests so far, which are then forgotten.
fn tokens(server: &Server) -> Vec<String> {
    server.seen.lock().unwrap().drain(..).map(|seen| token_of(&seen)).collect()
}

async fn list(clients: &Clients) -> Result<usize, Error> {
    let list = |github: GitHub| async move { github.runners(&organization()).await };
    Ok(clients.call(&target(), Purpose::LookUps, list).await?.len())
}

/// A server that refuses `one` with this answer.
async fn refusing(status: u16, headers: &'static [(&str, &str)]) -> Server {
    Server::start(move |seen| match token_of(seen).as_str() {
        "one" => answer(status, headers, r#"{"message":"no"}"#),
        _ => answer(200, &[], RUNNERS),
    })
    .await
}

#[tokio::test]
async fn a_call_that_is_refused_is_repeated_with_the_next_credential_which_is_then_used_first() {
    for (status, headers) in
        [(401, &[][..]), (403, &[]), (404, &[]), (429, &[("retry-after", "60")])]
    {
        let server = refusing(status, headers).await;
        let clients = clients(&server);
        assert_eq!(list(&clients).await.unwrap(), 0);
        assert_eq!(tokens(&server), ["one", "two"], "{status}");
        list(&clients).await.unwrap();
        assert_eq!(tokens(&server), ["two"], "{status}");
        assert_eq!(clients.stand_in(0, &target()), 1, "{status}");
    }
}

#[tokio::test]
async fn a_call_that_another_credential_would_not_change_is_not_repeated() {
    let server = refusing(422, &[]).await;
    let error = list(&clients(&server)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert_eq!(tokens(&server), ["one"]);
}

#[tokio::test]
async fn if_all_are_refused_the_error_is_that_of_the_first() {
    let server = Server::start(|seen| match token_of(seen).as_str() {
        "one" => answer(403, &[], r#"{"message":"no"}"#),
        _ => answer(401, &[], r#"{"message":"no"}"#),
    })
    .await;
    let clients = clients(&server);
    assert_eq!(list(&clients).await.unwrap_err().kind, ErrorKind::Forbidden);
    assert_eq!(tokens(&server), ["one", "two"]);
}

#[tokio::test]
async fn a_launch_that_is_refused_makes_other_calls_use_another_credential() {
    let server = refusing(401, &[]).await;
    let clients = clients(&server);
    let refused = Error::new(ErrorKind::Unauthorized, "registering", "refused");
    clients.note(0, &target(), Some(&refused));
    list(&clients).await.unwrap();
    assert_eq!(tokens(&server), ["two"]);
    clients.note(0, &target(), None);
    assert_eq!(clients.stand_in(0, &target()), 0);
}

#[tokio::test]
async fn the_credential_with_the_most_left_is_used_and_reported() {
    let reset = (SystemTime::now() + Duration::from_secs(1_000))
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .to_string();
    let server = Server::start(move |seen| {
        let (limit, remaining) = match token_of(seen).as_str() {
            "one" => ("15000", "6000"),
            _ => ("5000", "4000"),
        };
        let headers = [
            CORE,
            ("x-ratelimit-limit", limit),
            ("x-ratelimit-remaining", remaining),
            ("x-ratelimit-reset", &reset),
        ];
        answer(200, &headers, RUNNERS)
    })
    .await;
    let clients = clients(&server);
    for _ in 0..3 {
        list(&clients).await.unwrap();
    }
    assert_eq!(tokens(&server), ["one", "two", "two"]);
    let quota = |credential, limit, remaining| Quota {
        credential,
        account: String::new(),
        limit,
        remaining,
    };
    assert_eq!(clients.quotas(), [quota(0, 15_000, 6_000), quota(1, 5_000, 4_000)]);
}

#[tokio::test]
async fn what_one_credential_does_not_see_may_be_there_for_another() {
    let server = Server::start(|seen| match token_of(seen).as_str() {
        "one" => answer(404, &[], r#"{"message":"Not Found"}"#),
        _ => answer(204, &[], ""),
    })
    .await;
    let clients = clients(&server);
    let remove = |github: GitHub| async move { github.remove_runner(&organization(), 7).await };
    let is_final = |removed: &RunnerRemoval| *removed != RunnerRemoval::NotFound;
    let removed = clients.call_until(&target(), Purpose::Removals, is_final, remove).await;
    assert_eq!(removed.unwrap(), RunnerRemoval::Removed);
    assert_eq!(tokens(&server), ["one", "two"]);
}
