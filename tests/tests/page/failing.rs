//! The page while everything fails: it shows what fails, and why.

use anyhow::{Context as _, Result, ensure};
use edgerunner_sandbox::{Fault, Faults, JobRequest, RepositoryName, RequestFault, Visibility};
use edgerunner_tests::{Options, Stack};

use crate::browser::{Browser, NARROW, WIDE};
use crate::measure::accessible;

const SECRET: &str = "pool-secret-sesame";

const POOLS: &str = r#"
[[pools]]
name = "exits"
labels = ["exits"]
command = [
    "sh", "-c",
    '''
    echo "Connecting to the server <b>bold</b> with $ACTIONS_RUNNER_INPUT_JITCONFIG"
    echo "and $DEPLOY_KEY"
    echo "System.IO.IOException: No space left on device"
    exit 3
    ''',
]
env = { DEPLOY_KEY = "pool-secret-sesame" }

[[pools]]
name = "no-image"
labels = ["no-image"]
runner_image = "edgerunner/no-such-image:local"

[[pools]]
name = "no-github"
labels = ["no-github"]
scope = "organization"
"#;

pub(crate) async fn run() {
    Stack::run(Options::default().file(POOLS), async |stack| {
        Browser::run(async |browser| {
            stack.sandbox.set_faults(Faults {
                requests: vec![RequestFault {
                    path: Some("/orgs/acme/actions/runners".into()),
                    ..Fault::ServerError.into()
                }],
                ..Faults::default()
            });
            for label in ["exits", "no-image", "no-github", "nobody-has-this"] {
                for _ in 0..3 {
                    let labels = vec!["self-hosted".to_owned(), label.to_owned()];
                    stack.sandbox.queue_job(&JobRequest { labels, ..JobRequest::default() });
                }
            }
            let repository = RepositoryName { owner: "acme".into(), name: "open".into() };
            stack.sandbox.set_visibility(&repository, Visibility::Public);
            let labels = vec!["exits".to_owned()];
            stack.sandbox.queue_job(&JobRequest { repository, labels, ..JobRequest::default() });
            browser.emulate(WIDE, "light").await?;
            browser.open(&stack.sidecar.page()).await?;
            let says = async |text: &str| {
                let all = "document.getElementById('attention').textContent";
                browser.until(&format!("{all}.includes('{text}')")).await
            };
            for text in [
                "pool exits",
                "no-such-image",
                "org:acme",
                "nobody-has-this",
                "the repository is public",
            ] {
                says(text).await?;
            }
            let log = failed_runner(browser).await?;
            ensure!(log.contains("No space left on device"), "{log}");
            ensure!(log.contains("<b>bold</b> with ***"), "{log}");
            ensure!(log.contains("and ***") && !log.contains(SECRET), "{log}");
            browser.screenshot("failed-runner").await?;
            accessible(browser, "a failed runner").await?;
            browser.press("#details-close").await?;
            for (name, size, scheme) in [
                ("failing", WIDE, "light"),
                ("failing-dark", WIDE, "dark"),
                ("failing-narrow", NARROW, "light"),
            ] {
                browser.emulate(size, scheme).await?;
                accessible(browser, name).await?;
                browser.screenshot(name).await?;
            }
            browser.no_errors("").await
        })
        .await?;
        for job in stack.sandbox.jobs() {
            stack.sandbox.cancel_job(job.id)?;
        }
        Ok(())
    })
    .await;
}

/// The end of the log of the last failed runner in pool `exits`, as the page shows it.
async fn failed_runner(browser: &Browser) -> Result<String> {
    browser.press("#runners-shown label:last-of-type").await?;
    let row = "[...document.querySelectorAll('#runners tbody tr')].find((row) =>
        row.textContent.includes('exits') && row.textContent.includes('code 3'))";
    browser.until(row).await?;
    browser.eval(&format!("({row}).querySelector('button').click();")).await?;
    browser.until("document.querySelector('#details[open] pre.log')").await?;
    let log = browser.eval("return document.querySelector('pre.log').textContent;").await?;
    log.as_str().map(str::to_owned).context("no log")
}
