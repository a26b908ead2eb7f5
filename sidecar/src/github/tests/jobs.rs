//! Workflow runs and jobs.

use super::*;
use crate::github::jobs::WorkflowJob;
use edgerunner_scheduler::{
    missed::Run,
    model::{JobState, RunOrigin, Visibility},
};

#[tokio::test]
async fn the_state_of_a_job_is_read() {
    let server = Server::always(
        200,
        &[],
        r#"{"id":9,"status":"completed","conclusion":"failure","runner_name":"edge-1","run_attempt":2}"#,
    )
    .await;
    let job = server.github().job("acme", "app", 9).await.unwrap().unwrap();
    let expected = WorkflowJob {
        state: Some(JobState::Completed),
        conclusion: Some("failure".into()),
        runner_name: Some("edge-1".into()),
    };
    assert_eq!(job, expected);
    assert_eq!(server.only().uri, "/repos/acme/app/actions/jobs/9");
}

#[tokio::test]
async fn a_job_may_be_held_back_or_gone() {
    let held = r#"{"id":9,"status":"waiting","conclusion":null,"runner_name":null}"#;
    let server = Server::always(200, &[], held).await;
    let job = server.github().job("acme", "app", 9).await.unwrap().unwrap();
    assert_eq!(job.state, None);

    let server = Server::start(|request| match request.uri.path() {
        "/repos/acme/app/actions/runs" => answer(200, &[], r#"{"total_count":0}"#),
        _ => answer(404, &[], r#"{"message":"Not Found"}"#),
    })
    .await;
    assert_eq!(server.github().job("acme", "app", 9).await.unwrap(), None);
}

#[tokio::test]
async fn a_job_that_the_token_may_not_read_is_not_taken_for_gone() {
    let server = Server::always(404, &[], r#"{"message":"Not Found"}"#).await;
    let error = server.github().job("acme", "app", 9).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_run_shows_whose_code_it_runs() {
    use Visibility::{Internal, Private, Public, Unknown};
    let own = json!({ "id": 7 });
    for (repository, head, visibility, from_fork) in [
        (json!({ "id": 7, "private": true }), own.clone(), Private, false),
        (json!({ "id": 7, "private": false }), json!({ "id": 8 }), Public, true),
        (
            json!({ "id": 7, "private": true, "visibility": "internal" }),
            own.clone(),
            Internal,
            false,
        ),
        (json!({ "id": 7, "private": true, "visibility": "odd" }), own, Unknown, false),
        // The fork was deleted.
        (json!({ "id": 7, "private": true }), Value::Null, Private, true),
    ] {
        let run = json!({ "id": 9, "repository": repository, "head_repository": head });
        let server = Server::start(move |_| answer(200, &[], run.to_string())).await;
        let found = server.github().run_origin("acme", "app", 9).await.unwrap();
        assert_eq!(found, Some(RunOrigin { visibility, from_fork }));
        assert_eq!(server.only().uri, "/repos/acme/app/actions/runs/9");
    }
    let server = Server::always(200, &[], r#"{"id":9,"head_repository":{"id":8}}"#).await;
    let error = server.github().run_origin("acme", "app", 9).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::UnexpectedResponse);
}

#[tokio::test]
async fn a_run_that_is_gone_is_told_from_one_that_is_hidden() {
    let server = Server::always(404, &[], r#"{"message":"Not Found"}"#).await;
    let error = server.github().run_origin("acme", "app", 9).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    let server = Server::start(|request| match request.uri.query() {
        Some("per_page=1") => answer(200, &[], r#"{"total_count":0}"#),
        _ => answer(404, &[], r#"{"message":"Not Found"}"#),
    })
    .await;
    assert_eq!(server.github().run_origin("acme", "app", 9).await.unwrap(), None);
}

#[tokio::test]
async fn runs_and_their_jobs_are_listed() {
    let server = Server::start(|seen| match seen.uri.path() {
        "/repos/acme/app/actions/runs" => {
            let runs = json!([
                { "id": 30433642, "name": "CI", "repository": { "id": 7, "private": true },
                  "head_repository": { "id": 8 } },
                { "id": 5, "head_repository": { "id": 8 } },
            ]);
            answer(200, &[], json!({ "total_count": 2, "workflow_runs": runs }).to_string())
        }
        _ => answer(200, &[], json!({ "total_count": 2, "jobs": [
            { "id": 1, "run_id": 30433642, "run_attempt": 2, "status": "queued", "conclusion": null,
              "created_at": "2020-01-20T09:42:40Z", "started_at": "2020-01-20T09:42:40Z",
              "name": "build", "workflow_name": "CI", "head_branch": "main",
              "html_url": "https://github.com/acme/app/actions/runs/30433642/job/1",
              "labels": ["self-hosted", "gpu"], "runner_id": null },
            { "id": 2, "run_id": 30433642, "status": "waiting", "created_at": "2020-01-20T09:42:40Z",
              "name": "deploy", "workflow_name": null, "head_branch": null, "html_url": null,
              "labels": [] },
        ] }).to_string()),
    })
    .await;
    let github = server.github();
    for status in [RunStatus::Queued, RunStatus::InProgress] {
        let runs = github.runs("acme", "app", status, None).await.unwrap();
        let origin = RunOrigin { visibility: Visibility::Private, from_fork: true };
        let expected = [Run { id: 30433642, origin: Some(origin) }, Run { id: 5, origin: None }];
        assert_eq!(runs.items, expected);
    }
    let jobs = github.jobs_of_run("acme", "app", 30433642, None).await.unwrap().items;
    let queued = ListedJob {
        id: 1,
        run_id: 30433642,
        run_attempt: 2,
        state: Some(JobState::Queued),
        created_at: 1_579_513_360_000,
        name: "build".into(),
        workflow_name: "CI".into(),
        head_branch: "main".into(),
        html_url: "https://github.com/acme/app/actions/runs/30433642/job/1".into(),
        labels: vec!["self-hosted".into(), "gpu".into()],
    };
    assert_eq!(jobs[0], queued);
    assert_eq!((jobs[1].state, jobs[1].run_attempt), (None, 1));
    let seen = server.seen.lock().unwrap();
    let uris: Vec<_> = seen.iter().map(|request| request.uri.to_string()).collect();
    assert_eq!(
        uris,
        [
            "/repos/acme/app/actions/runs?status=queued&per_page=100",
            "/repos/acme/app/actions/runs?status=in_progress&per_page=100",
            "/repos/acme/app/actions/runs/30433642/jobs?filter=latest&per_page=100",
        ]
    );
    seen.iter().for_each(statuses::check_headers);
}
