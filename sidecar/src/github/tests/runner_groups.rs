//! Runner groups by name.

use super::*;

fn in_group(name: &str) -> NewRunner {
    NewRunner { group: RunnerGroup::Name(name.into()), ..new_runner() }
}

/// GitHub whose second page of groups has `large`, with this id.
async fn github_with_groups(large: Arc<Mutex<u64>>) -> Server {
    Server::start(move |seen| {
        let large = *large.lock().unwrap();
        let path = seen.uri.path();
        let Some(scope) = path.strip_suffix("/actions/runner-groups") else {
            let known = seen.body["runner_group_id"] == large;
            return answer(if known { 201 } else { 404 }, &[], if known { JIT_REPLY } else { "" });
        };
        let page = |id: u64, name: &str| {
            json!({ "total_count": 2, "runner_groups": [{ "id": id, "name": name }] }).to_string()
        };
        match seen.uri.query() {
            Some("per_page=100") => {
                let host = seen.header("host")[0];
                let next = format!("<http://{host}{scope}/actions/runner-groups?page=2>; rel=next");
                answer(200, &[("link", &next)], page(1, "Default"))
            }
            _ => answer(200, &[], page(large, "large")),
        }
    })
    .await
}

#[tokio::test]
async fn a_group_is_looked_up_by_its_name_once_for_each_target() {
    let server = github_with_groups(Arc::new(Mutex::new(7))).await;
    let (github, runner) = (server.github(), in_group("large"));
    for target in [organization(), Target::Enterprise("big".into())] {
        let calls = (0..5).map(|_| github.jit_config(&target, &runner));
        futures_util::future::try_join_all(calls).await.unwrap();
    }
    let paths = paths(&server);
    let count = |path: &str| paths.iter().filter(|it| *it == path).count();
    for scope in ["/orgs/acme", "/enterprises/big"] {
        assert_eq!(count(&format!("{scope}/actions/runner-groups")), 2, "{paths:?}");
        assert_eq!(count(&format!("{scope}/actions/runners/generate-jitconfig")), 5, "{paths:?}");
    }
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen.last().unwrap().body["runner_group_id"], 7);
}

#[tokio::test]
async fn a_group_that_is_refused_is_looked_up_again() {
    let large = Arc::new(Mutex::new(7));
    let server = github_with_groups(large.clone()).await;
    let (github, runner) = (server.github(), in_group("large"));
    github.jit_config(&organization(), &runner).await.unwrap();
    *large.lock().unwrap() = 8;
    let error = github.jit_config(&organization(), &runner).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("org:acme in group large"), "{error}");
    github.jit_config(&organization(), &runner).await.unwrap();
}

#[tokio::test]
async fn the_error_for_a_missing_group_lists_existing_groups() {
    let server = github_with_groups(Arc::new(Mutex::new(7))).await;
    let error = server.github().jit_config(&organization(), &in_group("lrge")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("runner group lrge of org:acme"), "{error}");
    assert!(error.message.ends_with("Default, large"), "{error}");
    assert_eq!(server.count(), 2, "no runner is requested");
}
