//! Lists of more than one page.

use super::*;

#[tokio::test]
async fn an_enterprise_servers_base_path_is_kept_on_every_page() {
    const FIRST: &str = "/api/v3/orgs/acme/actions/runners?per_page=100";
    const SECOND: &str = "/api/v3/orgs/acme/actions/runners?per_page=100&page=2";
    let server = Server::start(|seen| {
        let next = format!("<http://{}{SECOND}>; rel=\"next\"", seen.header("host")[0]);
        let links = [("link", next.as_str())];
        let links = if seen.uri == FIRST { &links[..] } else { &[] };
        answer(200, links, r#"{"runners":[]}"#)
    })
    .await;
    for slash in ["", "/"] {
        let github = client(&format!("http://{}/api/v3{slash}", server.address));
        github.runners(&organization()).await.unwrap();
    }
    let seen = server.seen.lock().unwrap();
    let uris: Vec<_> = seen.iter().map(|request| request.uri.to_string()).collect();
    assert_eq!(uris, [FIRST, SECOND, FIRST, SECOND]);
}

#[tokio::test]
async fn a_page_on_another_host_is_not_followed() {
    let thief = Server::always(200, &[], r#"{"runners":[]}"#).await;
    let link = format!("<http://{}/orgs/acme/actions/runners?page=2>; rel=\"next\"", thief.address);
    let server = Server::start(move |_| answer(200, &[("link", &link)], r#"{"runners":[]}"#)).await;
    let error = server.github().runners(&organization()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::UnexpectedResponse);
    assert!(error.message.contains("not followed"), "{error}");
    assert_eq!(thief.count(), 0);
}

#[tokio::test]
async fn an_endless_list_is_given_up() {
    let link = "</orgs/acme/actions/runners?page=2>; rel=\"next\"";
    let server = Server::start(move |_| answer(200, &[("link", link)], r#"{"runners":[]}"#)).await;
    let error = server.github().runners(&organization()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::UnexpectedResponse);
    assert_eq!(server.count(), requests::PAGES_MAX);
}
