//! Running completed jobs again.

use super::*;
use crate::github::reruns::{RerunAnswer, RerunOf};

#[tokio::test]
async fn a_job_or_the_failed_jobs_of_a_run_are_run_again() {
    for (what, uri) in [
        (RerunOf::Job(9), "/repos/acme/app/actions/jobs/9/rerun"),
        (RerunOf::FailedJobs { run: 7 }, "/repos/acme/app/actions/runs/7/rerun-failed-jobs"),
    ] {
        let server = Server::always(201, &[], "{}").await;
        let answer = server.github().rerun("acme", "app", what).await.unwrap();
        assert_eq!(answer, RerunAnswer::Accepted);
        assert_eq!(server.only().uri, uri);
    }
}

#[tokio::test]
async fn a_run_that_is_not_over_is_no_lack_of_a_permission() {
    let running = r#"{"message":"The workflow run containing this job is already running"}"#;
    let server = Server::always(403, &[], running).await;
    let answer = server.github().rerun("acme", "app", RerunOf::Job(9)).await.unwrap();
    assert_eq!(answer, RerunAnswer::StillRunning);
    let refused = r#"{"message":"Resource not accessible by integration"}"#;
    let server = Server::always(403, &[], refused).await;
    let error = server.github().rerun("acme", "app", RerunOf::Job(9)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Forbidden);
}
