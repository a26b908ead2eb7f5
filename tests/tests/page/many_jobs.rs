//! The page with 200 jobs, and 40 runners that come and go.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use edgerunner_sandbox::{Conclusion, JobRequest, JobStatus};
use edgerunner_tests::{Options, Stack, eventually_within};
use tokio::time::sleep;

use crate::browser::{Browser, NARROW, WIDE};
use crate::measure::{accessible, first_paint, layout_shift, transfer};

const JOBS: usize = 200;
/// Of jobs, before all are asked for.
const ROWS: usize = 15;
const RUNNERS: usize = 40;
/// The most that an open page may transfer.
const BYTES_MAX: u64 = 110_000;
/// Of changes, for each second that a busy machine needs until the page is complete.
const CHANGED_BYTES_MAX: u64 = 15_000;
/// How long the page is watched while runners come and go.
const WATCHED: Duration = Duration::from_secs(12);
/// Containers start one after the other.
const LIMIT: Duration = Duration::from_secs(180);
const HOSTILE: &str = "<img src=/none onerror=\"document.title='taken over'\">";

const POOLS: &str = r#"
[[pools]]
name = "linux-small"
labels = ["linux", "x64", "small"]
max = 26

[[pools]]
name = "linux-large"
labels = ["linux", "x64", "large"]
max = 14

[[pools]]
name = "gpu"
labels = ["linux", "x64", "gpu"]
max = 4
"#;

pub(crate) async fn run() {
    Stack::run(Options::default().file(POOLS), async |stack| {
        Browser::run(async |browser| {
            let url = stack.sidecar.page();
            empty(browser, &url).await?;
            queue(stack);
            let live =
                "document.querySelector('input[name=runners][value=live]').nextElementSibling";
            browser.until(&format!("parseInt({live}.textContent.slice(5)) >= {RUNNERS}")).await?;
            layout_is_stable(browser, &url).await?;
            all_jobs_are_shown_on_request(browser).await?;
            hostile_names_stay_text(browser).await?;
            jobs_are_filtered_and_the_address_keeps_it(browser, &url).await?;
            updates_arrive_without_a_reload(browser, stack).await?;
            jobs_are_found_by_url_and_id(browser, stack).await?;
            fits_each_window(browser).await?;
            connection_recovers(browser, stack).await?;
            the_report_follows_the_choice(browser, &url).await?;
            other_host_names_are_rejected(browser, &url).await
        })
        .await?;
        end(stack).await
    })
    .await;
}

/// The rows of a table.
fn rows(table: &str) -> String {
    format!("document.querySelectorAll('#{table} tbody tr:not(.empty)')")
}

async fn empty(browser: &Browser, url: &str) -> Result<()> {
    browser.emulate(WIDE, "light").await?;
    browser.open(url).await?;
    browser.until("document.getElementById('connection').dataset.state === 'live'").await?;
    browser.until(&format!("{}.length === 3", rows("pools"))).await?;
    accessible(browser, "empty").await?;
    browser.screenshot("empty").await
}

fn queue(stack: &Stack) {
    let repositories = ["shop", "payments", "search", "mobile-app"];
    let names = ["build", "unit tests", "lint", "integration (postgres)", "docker image", "e2e"];
    for index in 0..JOBS {
        let size = match index % 20 {
            7 => "windows",
            1 | 4 | 9 | 13 | 18 => "large",
            _ => "small",
        };
        let name = if index == 7 { HOSTILE } else { names[index % names.len()] };
        let mut request = JobRequest {
            labels: vec!["self-hosted".into(), "linux".into(), size.into()],
            // The first jobs run until all runners are there.
            seconds: 14.0 + 2.0 * (index % 10) as f64,
            name: name.into(),
            ..JobRequest::default()
        };
        request.repository.name = repositories[index / 3 % repositories.len()].into();
        if index % 9 == 5 {
            request.conclusion = Conclusion::Failure;
        }
        stack.sandbox.queue_job(&request);
    }
}

/// The layout stays while everything changes, and little is transferred.
async fn layout_is_stable(browser: &Browser, url: &str) -> Result<()> {
    // The sidecar knows the state as long as a page is open, and for 4 s after one was asked for. If
    // it has to find out first, a busy machine sends the state later, and not compressed.
    browser.eval_async("fetch('/').then((response) => response.text())").await?;
    browser.open("about:blank").await?;
    browser.network().await?;
    browser.tool("Network.setCacheDisabled", serde_json::json!({ "cacheDisabled": true })).await?;
    let opened = Instant::now();
    browser.open(url).await?;
    browser.until(&format!("{}.length === {ROWS}", rows("jobs"))).await?;
    let taken = transfer(&browser.network().await?, url)?;
    println!("page: {} bytes with {JOBS} jobs and {RUNNERS} runners", taken.bytes);
    for (path, bytes) in &taken.by_path {
        println!("  {bytes:>6} {path}");
    }
    ensure!(taken.by_path.iter().any(|(path, _)| path.starts_with("/page/events")), "no events");
    let bytes_max = BYTES_MAX + CHANGED_BYTES_MAX * opened.elapsed().as_secs();
    ensure!(taken.bytes < bytes_max, "it takes {} bytes", taken.bytes);

    let changed = "JSON.stringify([...document.querySelectorAll('#jobs tbody td')].map((cell) => cell.textContent))";
    let before = browser.eval(&format!("return {changed};")).await?;
    sleep(WATCHED).await;
    ensure!(browser.eval(&format!("return {changed};")).await? != before, "nothing changes");
    let shift = layout_shift(browser).await?;
    println!("layout shift over {WATCHED:?}: {shift:.4}");
    println!("first contentful paint: {:.0} ms", first_paint(browser).await?);
    let streamed = transfer(&browser.network().await?, url)?;
    println!("changes: {} bytes in {WATCHED:?}", streamed.bytes);
    browser.no_errors("").await
}

async fn the_report_follows_the_choice(browser: &Browser, url: &str) -> Result<()> {
    browser.open(&format!("{url}?view=report")).await?;
    let text = "document.querySelector('#report tbody').textContent";
    for (by, shown) in [("pool", "linux-small"), ("label", "self-hosted"), ("repository", "acme/")]
    {
        let choice = format!("input[name=report-by][value={by}]");
        browser.eval(&format!("document.querySelector('{choice}').click();")).await?;
        browser.until(&format!("{text}.includes('{shown}')")).await?;
        browser.until("document.querySelectorAll('#report-chart rect').length > 0").await?;
    }
    accessible(browser, "report").await?;
    browser.screenshot("report").await?;
    browser.open(url).await
}

async fn all_jobs_are_shown_on_request(browser: &Browser) -> Result<()> {
    browser.press("#jobs + button.rest").await?;
    // Those near the window are drawn.
    let all = "Number(document.getElementById('jobs').getAttribute('aria-rowcount'))";
    browser.until(&format!("{all} > 150 || {}.length >= 100", rows("jobs"))).await?;
    browser.until(&format!("{}.length > {ROWS}", rows("jobs"))).await?;
    // Nothing scrolls inside of the page.
    let inside = "[...document.querySelectorAll('main *')].some((it) =>
        ['auto', 'scroll'].includes(getComputedStyle(it).overflowY) &&
        it.scrollHeight > it.clientHeight + 1)";
    ensure!(browser.eval(&format!("return {inside};")).await? == false, "a part scrolls");
    Ok(())
}

async fn jobs_are_filtered_and_the_address_keeps_it(browser: &Browser, url: &str) -> Result<()> {
    let all_fit = format!(
        "{0}.length > 0 && [...{0}].every((row) => row.textContent.includes('acme/payments') && \
         row.textContent.includes('Waiting'))",
        rows("jobs")
    );
    browser.press("#jobs-shown label:nth-of-type(2)").await?;
    filter(browser, "PAYMENTS small").await?;
    browser.until(&all_fit).await?;
    let address = browser.eval("return location.search;").await?;
    ensure!(address == "?jobs=queued&filter=PAYMENTS+small", "{address}");
    browser.open(&format!("{url}{}", address.as_str().unwrap_or_default())).await?;
    browser.until(&all_fit).await?;
    browser.open(url).await
}

async fn hostile_names_stay_text(browser: &Browser) -> Result<()> {
    let text = serde_json::to_string(HOSTILE)?;
    browser
        .until(&format!("[...{}].some((row) => row.textContent.includes({text}))", rows("jobs")))
        .await?;
    let images = browser.eval("return document.querySelectorAll('main img').length;").await?;
    let title = browser.eval("return document.title;").await?;
    ensure!(images == 0, "{images} images");
    ensure!(title.as_str().is_some_and(|title| !title.contains("taken over")), "{title}");
    Ok(())
}

async fn updates_arrive_without_a_reload(browser: &Browser, stack: &Stack) -> Result<()> {
    browser.eval("window.unloaded = 'no';").await?;
    let name = "queued while the page is open";
    filter(browser, name).await?;
    let labels = vec!["self-hosted".to_owned(), "gpu".to_owned()];
    let request = JobRequest { labels, name: name.into(), ..JobRequest::default() };
    stack.sandbox.queue_job(&request);
    browser
        .until(&format!("document.getElementById('jobs').textContent.includes('{name}')"))
        .await?;
    ensure!(browser.eval("return window.unloaded;").await? == "no", "the page was reloaded");
    filter(browser, "").await
}

/// Shows only jobs with these words.
async fn filter(browser: &Browser, words: &str) -> Result<()> {
    let script = format!(
        "const filter = document.getElementById('jobs-filter');
        filter.value = '{words}'; filter.dispatchEvent(new Event('input'));"
    );
    browser.eval(&script).await?;
    Ok(())
}

async fn jobs_are_found_by_url_and_id(browser: &Browser, stack: &Stack) -> Result<()> {
    let jobs = stack.sandbox.jobs();
    let job = jobs.iter().find(|job| job.runner.is_some()).context("no job has a runner")?;
    let runner = &job.runner.as_ref().context("no runner")?.runner_name;
    let run = format!("https://github.com/{}/actions/runs/{}", job.repository, job.run_id);
    let ways = [
        format!("{run}/job/{}", job.id),
        format!("{run}/job/{}?pr=7#step:2:1", job.id),
        run.clone(),
        format!("{run}/attempts/1"),
        job.id.to_string(),
    ];
    for way in ways {
        browser.find(&way).await?;
        browser.until("document.getElementById('details').open").await?;
        let shown = browser.eval("return document.getElementById('details').textContent;").await?;
        let shown = shown.as_str().unwrap_or_default();
        ensure!(shown.contains(&job.id.to_string()), "{way}: {shown}");
        ensure!(shown.contains(runner.as_str()), "{way}: no runner: {shown}");
        if way == run {
            browser.screenshot("job").await?;
            accessible(browser, "a job").await?;
        }
        browser.press("#details-close").await?;
    }
    browser.find("https://github.com/acme/app/actions/runs/1/job/2").await?;
    browser
        .until("document.getElementById('details').textContent.includes('Nothing found')")
        .await?;
    browser.press("#details-close").await
}

async fn fits_each_window(browser: &Browser) -> Result<()> {
    let views = [
        ("wide", WIDE, "light"),
        ("wide-dark", WIDE, "dark"),
        ("narrow", NARROW, "light"),
        ("narrow-dark", NARROW, "dark"),
    ];
    for (name, size, scheme) in views {
        browser.emulate(size, scheme).await?;
        let overflow = "return document.documentElement.scrollWidth - innerWidth;";
        ensure!(browser.eval(overflow).await?.as_i64() <= Some(0), "{name}: wider than the window");
        let (kept, minor) = accessible(browser, name).await?;
        println!("axe, {name}: {kept} rules kept, nothing serious, {minor} minor");
        browser.screenshot(name).await?;
    }
    browser.emulate(WIDE, "light").await
}

async fn connection_recovers(browser: &Browser, stack: &mut Stack) -> Result<()> {
    browser.no_errors("").await?;
    stack.sidecar.terminate().await?;
    browser.until("document.getElementById('connection').dataset.state === 'lost'").await?;
    stack.sidecar.start().await?;
    browser.until("document.getElementById('connection').dataset.state === 'live'").await?;
    browser.no_errors("ERR_").await
}

/// A foreign site must not read the page by DNS rebinding.
async fn other_host_names_are_rejected(browser: &Browser, url: &str) -> Result<()> {
    for path in ["", "page/events", "page/jobs/1"] {
        let url = format!("{url}{path}").replace("127.0.0.1", "rebound.test");
        browser.open(&url).await?;
        let shown = browser.eval("return document.documentElement.textContent;").await?;
        ensure!(shown.as_str().is_some_and(|shown| shown.contains("unknown host")), "{shown}");
    }
    Ok(())
}

async fn end(stack: &Stack) -> Result<()> {
    for job in stack.sandbox.jobs() {
        if job.status != JobStatus::Completed {
            // It may just have ended.
            let _ = stack.sandbox.cancel_job(job.id);
        }
    }
    eventually_within(LIMIT, "all runners are gone", async || {
        Ok(stack.containers.list().await?.is_empty().then_some(()))
    })
    .await
}
