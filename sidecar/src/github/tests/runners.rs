//! Registered runners: their paths, listing and removal.

use super::*;
use crate::github::runners::RegisteredRunner;

#[tokio::test]
async fn each_scope_has_its_path_and_names_are_encoded() {
    for (target, path) in [
        (repository(), "/repos/acme/app/actions/runners/7"),
        (organization(), "/orgs/acme/actions/runners/7"),
        (Target::Enterprise("big".into()), "/enterprises/big/actions/runners/7"),
        (
            Target::Repository { owner: "a/b".into(), name: "c?d#e f%".into() },
            "/repos/a%2Fb/c%3Fd%23e%20f%25/actions/runners/7",
        ),
    ] {
        let server = Server::always(204, &[], "").await;
        server.github().remove_runner(&target, 7).await.unwrap();
        assert_eq!(server.only().uri, path);
    }
}

#[tokio::test]
async fn runners_are_listed_over_all_pages() {
    let server = Server::start(|seen| {
        let page = |id: u64, status: &str| {
            json!({ "total_count": 2, "runners": [{
                "id": id, "name": format!("edge-{id}"), "os": "linux", "status": status, "busy": id == 2,
                "version": if id == 2 { json!("2.335.0") } else { json!(7) },
                "labels": [{ "id": 1, "name": "self-hosted", "type": "read-only" }, { "name": "gpu" }],
            }] })
            .to_string()
        };
        match seen.uri.query() {
            Some("per_page=100") => {
                let next = format!(
                    "<http://{}/orgs/acme/actions/runners?per_page=100&page=2>; rel=\"next\"",
                    seen.header("host")[0],
                );
                answer(200, &[("link", &next)], page(1, "offline"))
            }
            _ => answer(200, &[], page(2, "online")),
        }
    })
    .await;
    let runners = server.github().runners(&organization()).await.unwrap();
    let runner = |id: u64, up: bool| RegisteredRunner {
        id,
        name: format!("edge-{id}"),
        online: up,
        busy: up,
        version: up.then(|| "2.335.0".to_owned()),
    };
    assert_eq!(runners, [runner(1, false), runner(2, true)]);
}

#[tokio::test]
async fn a_removal_distinguishes_removed_absent_and_busy() {
    for (status, expected) in
        [(204, RunnerRemoval::Removed), (404, RunnerRemoval::NotFound), (422, RunnerRemoval::Busy)]
    {
        let server = Server::always(status, &[], "").await;
        assert_eq!(server.github().remove_runner(&organization(), 7).await.unwrap(), expected);
        assert_eq!(server.only().method, Method::DELETE);
    }
    let server = Server::always(401, &[], r#"{"message":"Bad credentials"}"#).await;
    let error = server.github().remove_runner(&organization(), 7).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
}
