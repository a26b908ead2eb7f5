//! Ten breakdowns: the first screen of the page of a real sidecar names the cause, what to do, and
//! a command.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use edgerunner_sandbox::{Fault, Faults, JobRequest, RepositoryName, Visibility};
use edgerunner_tests::{Options, Stack};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::browser::Browser;
use crate::nodes;
use crate::states_shown::LAPTOP;

const API_TOKEN: &str = "api-token-sesame";

/// What somebody who opens the page must find.
struct Expected {
    /// Of the breakdown, and of its screenshot.
    name: &'static str,
    group: &'static str,
    cause: &'static str,
    advice: &'static str,
    command: &'static str,
}

pub(crate) async fn run() {
    Browser::run(async |browser| {
        browser.emulate(LAPTOP, "light").await?;
        wrong_secret(browser).await;
        token_expired(browser).await;
        image_gone(browser).await;
        no_label(browser).await;
        disk_full(browser).await;
        pool_draining(browser).await;
        budget_used_up(browser).await;
        out_of_memory(browser).await;
        node_lost(browser).await;
        public_repository(browser).await;
        browser.no_errors("").await
    })
    .await
    .expect("the page");
}

async fn wrong_secret(browser: &Browser) {
    let expected = Expected {
        name: "wrong-secret",
        group: "broken",
        cause: "Its secret at GitHub differs from that of Envoy",
        advice: "Set the same secret",
        command: "edgerunner webhook ping repos/acme/app/hooks/",
    };
    let options = Options::default()
        .sidecar("MISSED_WEBHOOKS_ENABLED", "true")
        .sidecar("MISSED_WEBHOOKS_INTERVAL_SECONDS", "1")
        .sidecar("RUNNER_REPOSITORIES", "acme/app")
        .envoy("GITHUB_WEBHOOK_SECRET", "a secret that GitHub does not have");
    breakdown(browser, options, expected, async |stack| {
        // Its address is known only now.
        let url = format!("http://{}/webhooks/github", stack.envoy.address());
        stack.sidecar.terminate().await?;
        stack.sidecar.configure("GITHUB_WEBHOOK_URL", &url);
        stack.sidecar.start().await?;
        stack.sandbox.ping(&JobRequest::default().repository)?;
        Ok(())
    })
    .await;
}

/// Starts everything, and opens the page once `prepare` is done. Jobs that wait are cancelled.
async fn breakdown(
    browser: &Browser,
    options: Options,
    expected: Expected,
    prepare: impl AsyncFnOnce(&mut Stack) -> Result<()>,
) {
    Stack::run(options.sidecar("SERVER_API_TOKEN", API_TOKEN), async |stack| {
        prepare(stack).await?;
        browser.open(&stack.sidecar.page()).await?;
        expected.is_shown(browser).await?;
        // It ends before the sidecar does.
        browser.open("about:blank").await?;
        for job in stack.sandbox.jobs() {
            // It may have ended.
            let _ = stack.sandbox.cancel_job(job.id);
        }
        stack.sandbox.set_faults(Faults::default());
        Ok(())
    })
    .await;
}

async fn token_expired(browser: &Browser) {
    let expected = Expected {
        name: "token-expired",
        group: "broken",
        cause: "401",
        advice: "Replace the token",
        command: "edgerunner doctor",
    };
    breakdown(browser, Options::default(), expected, async |stack| {
        let requests = vec![Fault::Unauthorized.into()];
        stack.sandbox.set_faults(Faults { requests, ..Faults::default() });
        stack.queue(1.0);
        Ok(())
    })
    .await;
}

async fn image_gone(browser: &Browser) {
    let expected = Expected {
        name: "image-gone",
        group: "broken",
        cause: "edgerunner/no-such-image",
        advice: "Correct the image's name",
        command: "edgerunner doctor",
    };
    let options =
        Options::default().sidecar("DOCKER_RUNNER_IMAGE", "edgerunner/no-such-image:local");
    breakdown(browser, options, expected, async |stack| {
        stack.queue(1.0);
        Ok(())
    })
    .await;
}

async fn no_label(browser: &Browser) {
    let expected = Expected {
        name: "no-label",
        group: "blocked",
        cause: "no pool has the label \"gpu\"",
        advice: "Correct runs-on",
        command: "edgerunner pools",
    };
    breakdown(browser, Options::default(), expected, async |stack| {
        stack.queue_for("gpu");
        Ok(())
    })
    .await;
}

async fn disk_full(browser: &Browser) {
    let expected = Expected {
        name: "disk-full",
        group: "blocked",
        cause: "the host's disk for containers has",
        advice: "Remove something from the disk",
        command: "docker system df",
    };
    // More than any disk has.
    let options = Options::default().sidecar("DOCKER_RESERVE_DISK_MIB", "1073741824");
    breakdown(browser, options, expected, async |stack| {
        stack.queue(1.0);
        Ok(())
    })
    .await;
}

async fn pool_draining(browser: &Browser) {
    let expected = Expected {
        name: "pool-draining",
        group: "blocked",
        cause: "Pool default is draining",
        advice: "No runners are launched until it is resumed",
        command: "edgerunner resume --pool default",
    };
    breakdown(browser, Options::default(), expected, async |stack| {
        stack.sidecar.print(&["drain", "--pool", "default"]).await?;
        stack.queue(1.0);
        Ok(())
    })
    .await;
}

async fn budget_used_up(browser: &Browser) {
    let expected = Expected {
        name: "budget-used-up",
        group: "broken",
        cause: "API quota almost used up: github",
        advice: "add a credential for the same targets",
        command: "edgerunner status",
    };
    breakdown(browser, Options::default().requests_per_hour(40), expected, async |stack| {
        let jobs: Vec<u64> = (0..60).map(|_| stack.queue(0.1)).collect();
        let last = jobs.last().context("no jobs")?;
        stack.waits_for(*last, "rate_limited").await?;
        // A runner whose job is cancelled now could not be removed before the quota is renewed.
        stack.settled().await
    })
    .await;
}

async fn out_of_memory(browser: &Browser) {
    let expected = Expected {
        name: "out-of-memory",
        group: "broken",
        cause: "killed for lack of memory",
        advice: "Read its log",
        command: "edgerunner runners logs",
    };
    let script = NamedTempFile::with_suffix(".sh").expect("a file");
    std::fs::write(script.path(), "text=x; while :; do text=$text$text; done\n")
        .expect("it can be written");
    let options = Options::default()
        .sidecar("DOCKER_MEMORY_MIB", "64")
        .sidecar("DOCKER_JOB_STARTED_SCRIPT", &script.path().display().to_string());
    breakdown(browser, options, expected, async |stack| {
        let id = stack.queue(0.1);
        stack.completed(id).await?;
        Ok(())
    })
    .await;
}

async fn node_lost(browser: &Browser) {
    let expected = Expected {
        name: "node-lost",
        group: "broken",
        cause: "build-3",
        advice: "start the machine, or remove the node",
        command: "edgerunner nodes",
    };
    let manager = nodes::manage(Arc::new(Mutex::new(nodes::nodes()))).await.expect("a manager");
    let options = Options::default()
        .file(&format!("[swarm]\nmanagers = [\"{manager}\"]\nlauncher_image = \"edgerunner\"\n"));
    breakdown(browser, options, expected, async |_| Ok(())).await;
}

async fn public_repository(browser: &Browser) {
    let expected = Expected {
        name: "public-repository",
        group: "blocked",
        cause: "the repository is public",
        advice: "set public_repositories = true",
        command: "edgerunner pools",
    };
    breakdown(browser, Options::default(), expected, async |stack| {
        let repository = RepositoryName { owner: "acme".into(), name: "open".into() };
        stack.sandbox.set_visibility(&repository, Visibility::Public);
        stack.sandbox.queue_job(&JobRequest { repository, ..JobRequest::default() });
        Ok(())
    })
    .await;
}

impl Expected {
    /// Without scrolling, and in the title and the icon.
    async fn is_shown(&self, browser: &Browser) -> Result<()> {
        let Self { name, group, cause, advice, command } = self;
        let texts = serde_json::to_string(&[cause, advice, command])?;
        let found = format!(
            "[...document.querySelectorAll('#attention-{group} li')].find((li) =>
                {texts}.every((text) => li.textContent.includes(text)))"
        );
        browser.until(&found).await.map_err(|error| error.context(format!("{name}: not shown")))?;
        let outside = format!(
            "const item = {found};
             return [...item.querySelectorAll('.title b, p, code')].filter((it) => it.offsetParent).filter((it) => {{
                 const {{ top, bottom, left, right }} = it.getBoundingClientRect();
                 return top < 0 || left < 0 || bottom > innerHeight || right > innerWidth;
             }}).map((it) => it.textContent);"
        );
        let outside = browser.eval(&outside).await?;
        ensure!(outside == json!([]), "{name}: outside of the first screen: {outside}");
        let title = browser.eval("return document.title;").await?;
        ensure!(title.as_str().is_some_and(|it| it.starts_with('(')), "{name}: title {title}");
        let icon =
            browser.eval("return document.getElementById('icon').getAttribute('href');").await?;
        let is_broken = icon.as_str().is_some_and(|icon| icon.contains("broken"));
        ensure!(is_broken == (*group == "broken"), "{name}: icon {icon}");
        browser.first_screen(&format!("breakdown-{name}")).await?;
        println!("  {name}: the first screen shows it");
        Ok(())
    }
}
