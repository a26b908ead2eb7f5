//! The pages of jobs, and the jobs that the sandbox queues by itself.

use std::time::Duration;

use edgerunner_sandbox::{JobRequest, Settings, runner};
use http::{Method, StatusCode};
use tokio_util::sync::CancellationToken;

use super::support::{Answer, World, jit, settings};

/// Opens a page as a browser does, without a token.
async fn open(world: &World, url: &str) -> Answer {
    world.try_call(Method::GET, url, None, &[]).await.expect("an answer")
}

/// The URL that GitHub's API and webhooks name.
async fn html_url(world: &World, job: u64) -> String {
    let job = world.get(&format!("/repos/acme/app/actions/jobs/{job}")).await.json();
    job["html_url"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn a_jobs_url_leads_to_a_page_that_describes_it() {
    let world = World::new().await;
    let labels = vec!["self-hosted".to_owned(), "gpu".to_owned()];
    let name = "build <b>all</b>".to_owned();
    let request = JobRequest { labels, name, seconds: 0.05, ..JobRequest::default() };
    let url = html_url(&world, world.sandbox.queue_job(&request)).await;
    let queued = open(&world, &url).await;
    assert_eq!(queued.status, StatusCode::OK);
    assert!(queued.header("content-type").starts_with("text/html"));
    for expected in [
        "acme&#x2f;app",
        "build &lt;b&gt;all&lt;",
        "self-hosted, gpu",
        ">queued<",
        "none yet",
        "refresh",
    ] {
        assert!(queued.text().contains(expected), "no {expected} in {}", queued.text());
    }
    assert!(!queued.text().contains("<b>"), "{}", queued.text());

    let (_, config) = jit(&world, "runner-1", &["self-hosted", "gpu"]).await;
    runner::run(config, CancellationToken::new()).await.expect("the runner succeeds");
    let completed = open(&world, &url).await.text();
    for expected in [">completed<", ">success<", ">runner-1<"] {
        assert!(completed.contains(expected), "no {expected} in {completed}");
    }
    assert!(!completed.contains("refresh") && !completed.contains("yet"), "{completed}");
}

#[tokio::test]
async fn unknown_jobs_have_no_page() {
    let world = World::new().await;
    let url = html_url(&world, world.sandbox.queue_job(&JobRequest::default())).await;
    let other_run = url.replace("/actions/runs/", "/actions/runs/1");
    for unknown in
        [format!("{url}0"), format!("{url}x"), other_run, url.replace("acme/app", "acme/api")]
    {
        let answer = open(&world, &unknown).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{unknown}");
        assert!(answer.text().contains("<h1>No such job"), "{}", answer.text());
    }
}

#[tokio::test]
async fn pages_may_have_another_address_than_the_api() {
    let web_url = Some("http://sandbox.example/".to_owned());
    let world = World::start(Settings { web_url, ..settings() }).await;
    let job = world.sandbox.queue_job(&JobRequest::default());
    let api = format!("/repos/acme/app/actions/jobs/{job}");
    let answer = world.get(&api).await.json();
    assert_eq!(answer["url"], format!("{}{api}", world.sandbox.url()));
    let page = answer["html_url"].as_str().expect("text");
    assert!(page.starts_with("http://sandbox.example/acme/app/actions/runs/"), "{page}");
}

#[tokio::test]
async fn the_sandbox_queues_jobs_by_itself() {
    let job_every = Some(Duration::from_millis(10));
    let world = World::start(Settings { job_every, ..settings() }).await;
    for count in 1..=3 {
        let queued = world.sandbox.wait_for(Duration::from_secs(10), |sandbox| {
            let jobs = sandbox.jobs();
            (jobs.len() == count).then_some(jobs)
        });
        let jobs = queued.await.expect("a job is queued, and no other one while it waits");
        let job = jobs.last().expect("there is one");
        assert_eq!(job.repository.to_string(), "acme/app");
        world.sandbox.cancel_job(job.id).expect("it is queued");
    }
    let jobs = world.sandbox.jobs();
    assert_ne!(jobs[0].run_id, jobs[1].run_id);
}
