//! Deliveries of webhooks, and conditional requests.

use super::*;

#[tokio::test]
async fn a_list_that_has_not_changed_is_read_from_the_cache() {
    let etag = r#"W/"one""#;
    let server = Server::start(move |seen| {
        let host = seen.header("host")[0];
        let next = format!("<http://{host}/orgs/acme/hooks/1/deliveries?cursor=2>; rel=\"next\"");
        match seen.header("if-none-match")[..] {
            [known] if known == etag => answer(304, &[("etag", etag)], ""),
            _ => answer(200, &[("etag", etag), ("link", &next)], DELIVERIES),
        }
    })
    .await;
    let github = server.github();
    let hook = "orgs/acme/hooks/1".parse().unwrap();
    let first = github.deliveries(&hook, None).await.unwrap();
    let second = github.deliveries(&hook, None).await.unwrap();
    assert_eq!((first.unchanged, second.unchanged), (false, true));
    assert_eq!((&first.items, &first.next), (&second.items, &second.next));
    assert_eq!(first.next.as_deref(), Some("/orgs/acme/hooks/1/deliveries?cursor=2"));
    assert_eq!(server.seen.lock().unwrap()[1].header("if-none-match"), [etag]);
    // Only GET requests are conditional.
    github.redeliver(&hook, 1).await.unwrap_err();
    assert!(server.seen.lock().unwrap()[2].header("if-none-match").is_empty());
}

const DELIVERIES: &str = r#"[
    {"id":12345678,"guid":"0b989ba4-242f-11e5-81e1-c7b6966d2516",
     "delivered_at":"2019-06-03T00:57:16Z","redelivery":false,"duration":0.27,"status":"OK",
     "status_code":200,"event":"workflow_job","action":"queued","installation_id":123,
     "repository_id":456,"throttled_at":null},
    {"id":123456789,"guid":"0b989ba4-242f-11e5-81e1-c7b6966d2517",
     "delivered_at":"2019-06-04T00:57:16.5Z","redelivery":true,"duration":0.28,
     "status":"failed to connect to host","status_code":502,"event":"ping","action":null,
     "installation_id":null,"repository_id":null}]"#;

#[tokio::test]
async fn deliveries_are_listed_by_webhook() {
    for (hook, path) in [
        ("repos/acme/app/hooks/7", "/repos/acme/app/hooks/7/deliveries?per_page=100"),
        ("orgs/acme/hooks/7", "/orgs/acme/hooks/7/deliveries?per_page=100"),
    ] {
        let server = Server::always(200, &[], DELIVERIES).await;
        let page = server.github().deliveries(&hook.parse().unwrap(), None).await.unwrap();
        let delivery = |id, guid: &str, at, status, event: &str, action: &str| DeliveryAttempt {
            id,
            guid: format!("0b989ba4-242f-11e5-81e1-{guid}"),
            at,
            status,
            event: event.into(),
            action: action.into(),
        };
        let expected = [
            delivery(12345678, "c7b6966d2516", 1_559_523_436_000, 200, "workflow_job", "queued"),
            delivery(123456789, "c7b6966d2517", 1_559_609_836_500, 502, "ping", ""),
        ];
        assert_eq!(page.items, expected);
        assert_eq!((page.next, page.unchanged), (None, false));
        let seen = server.only();
        assert_eq!((seen.method.clone(), seen.uri.to_string()), (Method::GET, path.to_owned()));
        statuses::check_headers(&seen);
    }
}

#[tokio::test]
async fn an_event_is_redelivered() {
    let server = Server::always(202, &[], "{}").await;
    server.github().redeliver(&"repos/acme/app/hooks/7".parse().unwrap(), 9).await.unwrap();
    let seen = server.only();
    assert_eq!(seen.method, Method::POST);
    assert_eq!(seen.uri, "/repos/acme/app/hooks/7/deliveries/9/attempts");
    assert_eq!((seen.header("content-length"), &seen.body), (vec!["0"], &Value::Null));
    statuses::check_headers(&seen);
}

#[tokio::test]
async fn the_webhook_of_an_app_is_read_as_the_app() {
    let server = Server::start(|seen| match seen.method {
        Method::POST => answer(202, &CORE, "{}"),
        _ => answer(200, &CORE, DELIVERIES),
    })
    .await;
    let github = app(server.address);
    assert_eq!(github.deliveries(&WebhookId::App, None).await.unwrap().items.len(), 2);
    github.redeliver(&WebhookId::App, 9).await.unwrap();
    assert_eq!(paths(&server), ["/app/hook/deliveries", "/app/hook/deliveries/9/attempts"]);
    let seen = server.seen.lock().unwrap();
    assert_eq!(claims(&seen[0])["iss"], "12345");
    assert_eq!(claims(&seen[1])["iss"], "12345");
    assert_eq!(github.budgets()[0].0, "");
}

#[tokio::test]
async fn no_token_is_sent_for_the_webhook_of_an_app() {
    let server = Server::always(200, &[], DELIVERIES).await;
    let error = server.github().deliveries(&WebhookId::App, None).await.unwrap_err();
    assert_eq!((error.kind, server.count()), (ErrorKind::Forbidden, 0));
}

#[tokio::test]
async fn an_invalid_time_is_an_error() {
    let server = Server::always(
        200,
        &[],
        r#"[{"id":1,"guid":"","delivered_at":"yesterday",
        "status_code":0,"event":"ping"}]"#,
    )
    .await;
    let hook = "orgs/acme/hooks/1".parse().unwrap();
    let error = server.github().deliveries(&hook, None).await.unwrap_err();
    assert!(error.message.contains("RFC 3339"), "{error}");
}
