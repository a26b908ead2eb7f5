//! Trouble with one repository, one owner or one server, while others have jobs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use edgerunner_sandbox::{
    APP_ID, Access, Call, Fault, Faults, InstallationStatus, Job, JobRequest, JobStatus,
    RepositoryName, RequestFault, Sandbox, Settings,
};
use edgerunner_tests::{OTHER_TOKEN, Options, SECRET, Stack, eventually, eventually_within};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// A job that is delayed by somebody else's trouble waits for minutes.
const AT_ONCE: Duration = Duration::from_secs(15);
/// More than the minute after which the sidecar frees a place.
const AFTER_A_MINUTE: Duration = Duration::from_secs(120);

fn repository(name: &str) -> RepositoryName {
    RepositoryName { owner: "acme".into(), name: name.into() }
}

fn job_of(name: &str) -> JobRequest {
    JobRequest { repository: repository(name), seconds: 0.1, ..JobRequest::default() }
}

async fn served(stack: &Stack, id: u64, within: Duration) -> Result<Job> {
    eventually_within(within, &format!("job {id} is done"), async || {
        let job = stack.sandbox.job(id).context("no such job")?;
        ensure!(job.status == JobStatus::Completed, "it is {:?}", job.status);
        Ok(Some(job))
    })
    .await
}

/// The requests below a path.
fn calls(stack: &Stack, below: &str) -> Vec<Call> {
    let mut calls = stack.sandbox.calls();
    calls.retain(|call| call.path.starts_with(below));
    calls
}

/// Time to change something before a runner is registered.
fn slow_launches() -> Faults {
    let slow = RequestFault {
        path: Some("generate-jitconfig".into()),
        ..RequestFault::from(Fault::Latency { ms: 1_000 })
    };
    Faults { requests: vec![slow], ..Faults::default() }
}

/// Starts a runner that has no job, and returns its id and its name.
async fn idle_runner_of(stack: &Stack, name: &str) -> Result<(u64, String)> {
    stack.sandbox.set_faults(slow_launches());
    let before = stack.launches();
    let cancelled = stack.sandbox.queue_job(&job_of(name));
    eventually("a launch is in progress", async || Ok((stack.launches() > before).then_some(())))
        .await?;
    stack.sandbox.cancel_job(cancelled)?;
    stack.sandbox.set_faults(Faults::default());
    eventually("the runner is online", async || {
        let runners = stack.sandbox.runners();
        Ok(runners.iter().find(|it| it.online()).map(|it| (it.id, it.name.clone())))
    })
    .await
}

/// Hidden: the credential may not see it. Blocked: GitHub has taken it down.
#[tokio::test]
async fn repositories_that_github_refuses_cost_few_calls_and_delay_nobody() {
    Stack::run(Options::default().sidecar("RUNNER_MAX", "4"), async |stack| -> Result<()> {
        let refused = [("hidden", Access::Hidden), ("blocked", Access::Blocked)];
        let mut waiting = Vec::new();
        for (name, access) in refused {
            stack.sandbox.set_access(&repository(name), access);
            waiting.extend(stack.sandbox.queue_jobs(&JobRequest { count: 3, ..job_of(name) }));
        }
        let message = stack.waits_for(waiting[0], "back_off").await?;
        assert!(message.contains("404") && message.contains("acme/hidden"), "{message}");
        let message = stack.waits_for(waiting[3], "back_off").await?;
        assert!(message.contains("451") && message.contains("acme/blocked"), "{message}");

        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(120) {
            let id = stack.sandbox.queue_job(&job_of("app"));
            served(stack, id, AT_ONCE).await?;
            stack.settled().await?;
        }
        for (name, _) in refused {
            let calls = calls(stack, &format!("/repos/acme/{name}/"));
            assert!(calls.len() < 10, "{name}: {} calls", calls.len());
        }
        eventually("no runner is left", async || {
            let status = stack.sidecar.status().await?;
            let runners = status["runners"].as_array().context("no runners")?;
            ensure!(runners.is_empty(), "{runners:?}");
            Ok(Some(()))
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn a_repository_that_was_renamed_is_followed() {
    let options = Options::default().sidecar("RUNNER_IDLE_TIMEOUT_SECONDS", "2");
    Stack::run(options, async |stack| -> Result<()> {
        stack.sandbox.set_faults(slow_launches());
        let jobs = stack.sandbox.queue_jobs(&JobRequest { count: 2, ..job_of("app") });
        eventually("a launch is in progress", async || Ok((stack.launches() > 0).then_some(())))
            .await?;
        stack.sandbox.rename_repository(&repository("app"), repository("new-name"))?;
        let other = stack.sandbox.queue_job(&job_of("lib"));
        for id in jobs.into_iter().chain([other]) {
            let job = served(stack, id, AT_ONCE).await?;
            assert!(job.runner.is_some());
        }
        eventually("the new name is shown", async || {
            let shown = stack.sidecar.print(&["jobs"]).await?;
            ensure!(shown.contains("acme/new-name") && !shown.contains("acme/app"), "{shown}");
            Ok(Some(()))
        })
        .await?;
        assert!(stack.sidecar.log_lines(&["renamed", "acme/app", "acme/new-name"])? > 0);
        assert!(!stack.sidecar.log()?.contains("launch failed"));

        // An unused runner that is registered with the old name is removed all the same.
        stack.settled().await?;
        let (id, _) = idle_runner_of(stack, "lib").await?;
        stack.sandbox.rename_repository(&repository("lib"), repository("library"))?;
        stack.settled().await?;
        for (method, end) in [("POST", "generate-jitconfig"), ("DELETE", &id.to_string())] {
            let followed = calls(stack, "/repositories/");
            let followed =
                followed.iter().any(|call| call.method == method && call.path.ends_with(end));
            assert!(followed, "{method}: {:?}", stack.sandbox.calls());
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_archived_repository_gives_back_the_place_of_its_idle_runner() {
    let options = Options::default().sidecar("RUNNER_MAX", "1");
    Stack::run(options, async |stack| -> Result<()> {
        let (id, name) = idle_runner_of(stack, "app").await?;
        stack.sandbox.set_access(&repository("app"), Access::Archived);
        let elsewhere = stack.sandbox.queue_job(&job_of("lib"));
        served(stack, elsewhere, AFTER_A_MINUTE).await?;
        // The registration is left at GitHub, and reported.
        assert!(stack.sandbox.runners().iter().any(|runner| runner.id == id));
        let reported = stack.sidecar.log_lines(&[&name, "archived"])?;
        assert!(reported > 0, "{}", stack.sidecar.log()?);
        assert!(calls(stack, &format!("/repos/acme/app/actions/runners/{id}")).len() < 10);
        stack.sandbox.unregister_runner(id)?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_runner_that_github_does_not_let_go_is_removed_by_force() {
    const API_TOKEN: &str = "api-token-sesame";
    let options =
        Options::default().sidecar("RUNNER_MAX", "1").sidecar("SERVER_API_TOKEN", API_TOKEN);
    Stack::run(options, async |stack| -> Result<()> {
        let (id, name) = idle_runner_of(stack, "app").await?;
        stack.sandbox.set_access(&repository("app"), Access::Archived);
        eventually("its removal is refused", async || {
            let calls = calls(stack, &format!("/repos/acme/app/actions/runners/{id}"));
            Ok(calls.iter().any(|call| call.status == Some(403)).then_some(()))
        })
        .await?;
        let elsewhere = stack.sandbox.queue_job(&job_of("lib"));
        stack.sidecar.print(&["runners", "remove", &name, "--force"]).await?;
        served(stack, elsewhere, AT_ONCE).await?;
        stack.sandbox.unregister_runner(id)?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn jobs_that_github_holds_back_keep_no_place_from_others() {
    let options = Options::default().sidecar("RUNNER_MAX", "3");
    Stack::run(options, async |stack| -> Result<()> {
        let request =
            JobRequest { count: 3, max_parallel: Some(1), seconds: 600.0, ..job_of("app") };
        let matrix = stack.sandbox.queue_jobs(&request);
        stack.in_progress(matrix[0]).await?;
        eventually("the other two have idle runners", async || {
            let runners = stack.sandbox.runners();
            Ok((runners.iter().filter(|it| it.online()).count() == 3).then_some(()))
        })
        .await?;
        let elsewhere = stack.sandbox.queue_job(&job_of("lib"));
        served(stack, elsewhere, AFTER_A_MINUTE).await?;
        assert!(stack.containers.peak() <= 3);
        // They run one after the other all the same.
        for (id, next) in matrix.iter().zip(matrix[1..].iter().map(Some).chain([None])) {
            stack.sandbox.cancel_job(*id)?;
            if let Some(next) = next {
                stack.in_progress(*next).await?;
            }
        }
        Ok(())
    })
    .await;
}

/// Only for tests.
const PRIVATE_KEY: &str = include_str!("../../../sidecar/src/github/test-app.pem");

#[tokio::test]
async fn an_owner_that_suspends_the_app_delays_no_other_owner() {
    let options = Options::default()
        .sidecar("GITHUB_TOKEN", "")
        .sidecar("GITHUB_APP_ID", &APP_ID.to_string())
        .sidecar("GITHUB_APP_PRIVATE_KEY", PRIVATE_KEY);
    Stack::run(options, async |stack| -> Result<()> {
        let done = stack.sandbox.queue_job(&job_of("app"));
        served(stack, done, AT_ONCE).await?;
        for (status, code) in
            [(InstallationStatus::Suspended, "403"), (InstallationStatus::Uninstalled, "404")]
        {
            stack.sandbox.set_installation("acme", status);
            let name = format!("app-{code}");
            let waiting = stack.sandbox.queue_jobs(&JobRequest { count: 3, ..job_of(&name) });
            let message = stack.waits_for(waiting[0], "back_off").await?;
            assert!(message.contains(code), "{message}");
            for _ in 0..3 {
                let repository = RepositoryName { owner: "globex".into(), name: "app".into() };
                let request = JobRequest { repository, ..job_of("app") };
                let id = stack.sandbox.queue_job(&request);
                served(stack, id, AT_ONCE).await?;
            }
        }
        Ok(())
    })
    .await;
}

/// As with two Enterprise Servers, or one and github.com.
#[tokio::test]
async fn two_servers_with_the_same_ids_and_names_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let options = Options::default().file(&format!(
        r#"
        [[credentials]]
        name = "other-server"
        api_url = "http://{address}/api/v3"
        targets = ["acme/*"]
        token = "{OTHER_TOKEN}"
        "#
    ));
    Stack::run(options, async |stack| -> Result<()> {
        let settings = Settings {
            tokens: vec![OTHER_TOKEN.to_owned()],
            webhook_secret: SECRET.to_owned(),
            webhook_url: Some(format!("http://{}/webhooks/github", stack.envoy.address())),
            ids_since: Some(stack.sandbox.ids_since()),
            runner_lost_after: Duration::from_secs(2),
            ..Settings::default()
        };
        let other = Sandbox::start(listener, settings)?;
        let request = JobRequest { count: 2, ..job_of("app") };
        let (here, there) = (stack.sandbox.queue_jobs(&request), other.queue_jobs(&request));
        assert_eq!(here, there);
        for id in here {
            let own = served(stack, id, AT_ONCE).await?.runner.context("no runner")?;
            let done = other.wait_for(AT_ONCE, |other| other.job(id)?.runner).await?;
            assert_ne!(own.runner_name, done.runner_name);
        }
        eventually("both servers' runners are gone", async || {
            Ok(other.runners().is_empty().then_some(()))
        })
        .await?;
        stack.settled().await?;
        assert_eq!(stack.containers.started(), 4);
        assert!(stack.sandbox.calls().iter().all(|call| call.token == Some(0)));
        assert!(other.calls().iter().all(|call| call.token == Some(0)));
        let jobs = stack.sidecar.get("/api/v1/jobs").await?.json()?;
        assert_eq!(jobs.as_array().map(Vec::len), Some(4), "{jobs:#}");
        other.shutdown().await;
        Ok(())
    })
    .await;
}
