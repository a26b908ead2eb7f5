//! GitHub's IP ranges and hosts.

use super::*;

#[tokio::test]
async fn githubs_ip_ranges_are_read() {
    let server =
        Server::always(200, &[], r#"{"hooks":["192.30.252.0/22"],"web":["192.30.252.0/22"]}"#)
            .await;
    assert_eq!(server.github().webhook_addresses().await.unwrap(), ["192.30.252.0/22"]);
    let seen = server.only();
    assert_eq!((&seen.method, seen.uri.path()), (&Method::GET, "/meta"));
    statuses::check_headers(&seen);
}

#[tokio::test]
async fn githubs_hosts_are_those_that_runners_need() {
    let meta = r#"{"domains":{
        "website":["*.github.com"],"codespaces":["*.visualstudio.com"],"copilot":["*.copilot.com"],
        "packages":["ghcr.io"],"actions":["*.actions.githubusercontent.com"],
        "actions_inbound":{"full_domains":["github.com","ghcr.io"],"wildcard_domains":["*.a.com"]},
        "artifact_attestations":{"trust_domain":"","services":["fulcio.githubapp.com"]}}}"#;
    let hosts = Server::always(200, &[], meta).await.github().actions_hosts().await.unwrap();
    let expected = [
        "*.a.com",
        "*.actions.githubusercontent.com",
        "*.github.com",
        "fulcio.githubapp.com",
        "ghcr.io",
        "github.com",
    ];
    assert_eq!(hosts, expected);
}

#[tokio::test]
async fn a_server_may_list_neither_ranges_nor_hosts() {
    for meta in [r#"{"installed_version":"3.19.0"}"#, r#"{"domains":{"copilot":["a.com"]}}"#] {
        let github = Server::always(200, &[], meta).await.github();
        assert!(github.actions_hosts().await.unwrap().is_empty(), "{meta}");
        assert!(github.webhook_addresses().await.unwrap().is_empty(), "{meta}");
    }
}

#[tokio::test]
async fn nonsense_in_place_of_hosts_is_an_error_that_says_what_to_check() {
    for (status, meta, expected) in [
        (404, r#"{"message":"Not Found"}"#, "the server has no /meta (404); check api_url"),
        (200, "<!DOCTYPE html>", "a web page instead of GitHub's JSON"),
        (200, r#"{"domains":["github.com"]}"#, "does not document"),
        (200, r#"{"domains":{"actions":"github.com"}}"#, "does not document"),
    ] {
        let github = Server::always(status, &[], meta).await.github();
        let error = github.actions_hosts().await.unwrap_err().to_string();
        assert!(error.starts_with("reading GitHub's hosts: "), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}
