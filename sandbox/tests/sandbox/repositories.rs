//! Repositories that were renamed, archived, hidden, blocked or deleted.

use edgerunner_sandbox::{Access, JobRequest, JobStatus, RepositoryName, Visibility};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{Receiver, World};

const JIT: &str = "actions/runners/generate-jitconfig";

fn name(text: &str) -> RepositoryName {
    text.to_owned().try_into().expect("a repository name")
}

async fn register(world: &World, repository: &str, runner: &str) -> Value {
    let body = json!({"name": runner, "runner_group_id": 1, "labels": ["self-hosted"]});
    let path = format!("/repos/{repository}/{JIT}");
    let answer = world.call(Method::POST, &path, Some(body)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    answer.json()["runner"]["id"].clone()
}

#[tokio::test]
async fn the_old_name_of_a_repository_redirects_to_its_id() {
    let world = World::new().await;
    let id = world.get("/repos/acme/app").await.json()["id"].clone();
    let runner = register(&world, "acme/app", "one").await;
    world.sandbox.rename_repository(&name("acme/app"), name("globex/new")).expect("a free name");

    for base in ["", "/api/v3"] {
        let answer = world.get(&format!("{base}/repos/ACME/app/actions/runners?per_page=5")).await;
        assert_eq!(answer.status, StatusCode::MOVED_PERMANENTLY);
        let location =
            format!("{}{base}/repositories/{id}/actions/runners?per_page=5", world.sandbox.url());
        assert_eq!(answer.header("location"), location);
        assert_eq!(answer.json()["url"], json!(location));
        assert_eq!(answer.json()["message"], json!("Moved Permanently"));
        let followed = world.get(&location).await.json();
        assert_eq!(followed["runners"][0]["id"], runner);
    }
    for (method, path) in [(Method::POST, JIT), (Method::DELETE, "actions/runners/1")] {
        let answer = world.call(method, &format!("/repos/acme/app/{path}"), None).await;
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
        assert!(answer.header("location").ends_with(&format!("/repositories/{id}/{path}")));
    }
    let encoded = world.get("/repos/acme/a%70p").await;
    assert_eq!(encoded.status, StatusCode::MOVED_PERMANENTLY);
    let repository = world.get(&format!("/repositories/{id}")).await.json();
    assert_eq!((&repository["id"], &repository["full_name"]), (&id, &json!("globex/new")));
    let listed = world.get("/repos/globex/new/actions/runners").await.json();
    assert_eq!(listed["runners"][0]["id"], runner);
    assert_eq!(world.get("/repositories/7").await.status, StatusCode::NOT_FOUND);
    let taken = world.sandbox.rename_repository(&name("acme/other"), name("globex/new"));
    assert!(taken.expect_err("the name is taken").to_string().contains("globex/new"));
}

#[tokio::test]
async fn events_carry_the_new_name_and_the_same_ids() {
    let receiver = Receiver::start().await;
    let world = World::with_webhook(&receiver).await;
    let job = world.sandbox.queue_job(&JobRequest::default());
    let before = receiver.wait_for(1).await.remove(0);
    world.sandbox.rename_repository(&name("acme/app"), name("acme/new")).expect("a free name");
    world.sandbox.cancel_job(job).expect("a queued job can be cancelled");
    // A request with the old name is about the same repository.
    world.sandbox.queue_job(&JobRequest::default());
    let received = receiver.wait_for(3).await;
    for event in &received[1..] {
        let (old, new) = (before.json(), event.json());
        assert_eq!(new["repository"]["full_name"], json!("acme/new"));
        assert_eq!(new["repository"]["id"], old["repository"]["id"]);
        assert_eq!(event.header("x-github-hook-id"), before.header("x-github-hook-id"));
    }
    let path = format!("/repos/acme/new/actions/jobs/{job}");
    assert_eq!(world.get(&path).await.json()["status"], json!("completed"));
}

#[tokio::test]
async fn a_name_that_another_repository_has_taken_over_redirects_no_more() {
    let world = World::new().await;
    world.sandbox.rename_repository(&name("acme/app"), name("acme/new")).expect("a free name");
    world.sandbox.rename_repository(&name("acme/other"), name("acme/app")).expect("a free name");
    let other = world.get("/repos/acme/app").await;
    assert_eq!(other.status, StatusCode::OK);
    assert_ne!(other.json()["id"], world.get("/repos/acme/new").await.json()["id"]);
    world.sandbox.rename_repository(&name("acme/app"), name("acme/other")).expect("its old name");
    world.sandbox.rename_repository(&name("acme/new"), name("acme/app")).expect("its old name");
    assert_eq!(world.get("/repos/acme/app").await.status, StatusCode::OK);
    assert_eq!(world.get("/repos/acme/new").await.status, StatusCode::MOVED_PERMANENTLY);
}

#[tokio::test]
async fn each_kind_of_access_is_answered_as_by_github() {
    let world = World::new().await;
    let runner = register(&world, "acme/app", "one").await;
    for (access, read, write, message) in [
        (Access::Archived, 200, 403, "Repository was archived so is read-only."),
        (Access::Hidden, 404, 404, "Not Found"),
        (Access::Blocked, 451, 451, "Repository access blocked"),
        (Access::Deleted, 404, 404, "Not Found"),
    ] {
        world.sandbox.set_access(&name("acme/app"), access);
        let path = "/repos/acme/app/actions/runners";
        assert_eq!(world.get(path).await.status.as_u16(), read, "{access:?}");
        let remove = world.call(Method::DELETE, &format!("{path}/{runner}"), None).await;
        let jit = world.call(Method::POST, &format!("/repos/acme/app/{JIT}"), None).await;
        for answer in [remove, jit] {
            assert_eq!(answer.status.as_u16(), write, "{access:?}");
            assert_eq!(answer.json()["message"], json!(message));
            assert_eq!(access == Access::Blocked, answer.json()["block"]["reason"].is_string());
        }
        let elsewhere = world.get("/repos/acme/lib/actions/runners").await;
        assert_eq!(elsewhere.status, StatusCode::OK);
        assert_eq!(world.get("/orgs/acme/actions/runners").await.status, StatusCode::OK);
    }
    world.sandbox.set_access(&name("acme/app"), Access::Open);
    let restored = world.get("/repos/acme/app/actions/runners").await.json();
    assert_eq!(restored["total_count"], json!(0), "its runners were deleted");
}

#[tokio::test]
async fn jobs_of_a_hidden_repository_are_announced_and_those_of_a_deleted_one_are_not() {
    let receiver = Receiver::start().await;
    let world = World::with_webhook(&receiver).await;
    world.sandbox.set_access(&name("acme/app"), Access::Hidden);
    let job = world.sandbox.queue_job(&JobRequest::default());
    assert_eq!(receiver.wait_for(1).await[0].action(), "queued");
    world.sandbox.set_access(&name("acme/app"), Access::Deleted);
    assert_eq!(world.sandbox.job(job).map(|job| job.status), Some(JobStatus::Completed));
    world.sandbox.queue_job(&JobRequest::default());
    let elsewhere = JobRequest { repository: name("acme/lib"), ..JobRequest::default() };
    world.sandbox.queue_job(&elsewhere);
    let last = receiver.wait_for(2).await.remove(1);
    assert_eq!(last.json()["repository"]["full_name"], json!("acme/lib"));
}

#[tokio::test]
async fn the_control_api_changes_a_repository() {
    let world = World::new().await;
    let change = async |path: &str, body: Value| {
        let path = format!("/_sandbox/repositories/{path}");
        world.try_call(Method::PUT, &path, Some(body), &[]).await.expect("an answer")
    };
    let renamed = change("acme/app", json!({ "name": "acme/new" })).await.json();
    assert_eq!(renamed["former_names"], json!(["acme/app"]));
    let archived = change("acme/app", json!({ "access": "archived" })).await.json();
    assert_eq!((&archived["name"], &archived["access"]), (&json!("acme/new"), &json!("archived")));
    let listed =
        world.try_call(Method::GET, "/_sandbox/repositories", None, &[]).await.expect("an answer");
    assert_eq!(listed.json(), json!([archived]));
    let taken = change("acme/lib", json!({ "name": "acme/new" })).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    let wrong = change("acme/lib", json!({ "access": "gone" })).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.text().contains("`hidden`"));
}

#[tokio::test]
async fn a_run_and_its_webhook_show_whose_code_it_runs() {
    let receiver = Receiver::start().await;
    let world = World::with_webhook(&receiver).await;
    for (count, (visibility, from_fork, sent, private)) in (1..).zip([
        (Visibility::Public, true, json!("public"), false),
        (Visibility::Internal, false, json!("internal"), true),
        (Visibility::Unreported, false, Value::Null, true),
    ]) {
        world.sandbox.set_visibility(&name("acme/app"), visibility);
        let request = JobRequest { from_fork, ..JobRequest::default() };
        let job = world.sandbox.queue_job(&request);
        let run = world.sandbox.job(job).expect("the job").run_id;
        let run = world.get(&format!("/repos/acme/app/actions/runs/{run}")).await.json();
        assert_eq!(run["repository"]["private"], json!(private));
        let is_own = run["repository"]["id"] == run["head_repository"]["id"];
        assert_eq!(is_own, !from_fork, "{visibility:?}");
        let webhook = receiver.wait_for(count).await.remove(count - 1).json();
        assert_eq!(webhook["repository"]["visibility"], sent);
    }
}
