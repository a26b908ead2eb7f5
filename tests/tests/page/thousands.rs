//! The page with 5,000 waiting jobs: rows are drawn as needed. Prints how long the first paint and
//! updates take, compared with a page of 200 jobs.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::measure::{accessible, first_paint};
use crate::recorded::{NOW_MS, Server};
use crate::states;
use crate::states_shown::LAPTOP;

const JOBS: u64 = 5_000;
const FEWER_JOBS: u64 = 200;
const UPDATES: u64 = 20;
/// Rows near the window.
const ROWS_MAX: u64 = 80;

/// Notes how long each update took, and tasks of more than 50 ms.
const OBSERVE: &str = "
    window.updates = [];
    window.tasks = [];
    const add = EventSource.prototype.addEventListener;
    EventSource.prototype.addEventListener = function (name, handler, ...more) {
        return add.call(this, name, (event) => {
            const from = performance.now();
            handler(event);
            if (name === 'change') window.updates.push(performance.now() - from);
        }, ...more);
    };
    new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((it) => it.duration)))
        .observe({ type: 'longtask', buffered: true });
";

pub(crate) async fn run() {
    let server = Server::start().await.expect("a server");
    let shown = Browser::run(async |browser| {
        browser.prepare(OBSERVE).await?;
        browser.emulate(LAPTOP, "light").await?;
        let paint_of_fewer = open(browser, &server, FEWER_JOBS).await?;
        let update_of_fewer = update(browser, &server).await?;
        let paint = open(browser, &server, JOBS).await?;
        browser.press("#jobs + button.rest").await?;
        rows_are_drawn_as_needed(browser).await?;
        let update = update(browser, &server).await?;
        println!(
            "  compared with {FEWER_JOBS}: first paint {:.1} times as long, updates {:.1} times",
            paint / paint_of_fewer,
            update / update_of_fewer
        );
        browser.no_errors("").await
    })
    .await;
    shown.expect("the page");
}

/// Opens the page with so many waiting jobs. Returns the time to the first paint, in ms.
async fn open(browser: &Browser, server: &Server, jobs: u64) -> Result<f64> {
    browser.open("about:blank").await?;
    server.show(states::many_jobs(jobs));
    browser.open(server.url()).await?;
    browser.until("document.getElementById('connection').dataset.state === 'live'").await?;
    let painted = first_paint(browser).await?;
    println!("{jobs} waiting jobs: first contentful paint {painted:.0} ms");
    Ok(painted)
}

async fn rows_are_drawn_as_needed(browser: &Browser) -> Result<()> {
    let drawn = "document.querySelectorAll('#jobs tbody tr:not(.space)').length";
    browser.until(&format!("{drawn} > 15 && {drawn} <= {ROWS_MAX}")).await?;
    accessible(browser, "5,000 jobs").await?;
    browser.eval("window.tasks.length = 0;").await?;
    // Through all of them.
    let steps = "(async () => {
        const frame = () => new Promise(requestAnimationFrame);
        const height = document.documentElement.scrollHeight;
        let most = 0;
        for (let step = 0; step <= 100; step += 1) {
            scrollTo(0, height * step / 100);
            await frame(); await frame();
            most = Math.max(most, document.querySelectorAll('#jobs tbody tr:not(.space)').length);
        }
        return { most, moved: document.documentElement.scrollHeight - height };
    })()";
    let seen = browser.eval_async(steps).await?;
    ensure!(seen["most"].as_u64() <= Some(ROWS_MAX), "{seen}");
    ensure!(
        seen["moved"].as_i64().is_some_and(|it| it.abs() < 100),
        "the page changes its height: {seen}"
    );
    println!("  scrolling through all: longest task {}", longest_task(browser).await?);
    let index = "return [...document.querySelectorAll('#jobs tbody tr:not(.space)')].at(-1).getAttribute('aria-rowindex');";
    let last = browser.eval(index).await?;
    let all = browser
        .eval("return document.getElementById('jobs').getAttribute('aria-rowcount');")
        .await?;
    ensure!(last == all, "row {last} of {all}");
    browser.eval("scrollTo(0, document.getElementById('jobs').getBoundingClientRect().top + scrollY + 40_000);").await?;
    browser.until("Number(document.querySelector('#jobs tbody tr:not(.space)').getAttribute('aria-rowindex')) > 500").await
}

/// Updates the page a few times. Returns how long one took in the middle, in ms.
async fn update(browser: &Browser, server: &Server) -> Result<f64> {
    browser.eval("window.tasks.length = 0; window.updates.length = 0;").await?;
    for number in 0..UPDATES {
        // One is taken, one comes, and the reason of all has another text.
        let (taken, added) = (10_000 + number, 20_000 + number);
        let mut jobs = json!({ format!("{taken}.1.github.com"): { "state": "in_progress", "started_ms": NOW_MS } });
        jobs[format!("{added}.1.github.com")] = json!({
            "id": added, "state": "queued", "repository": "acme/shop", "name": "build",
            "labels": "self-hosted, small", "pool": "linux-small", "queued_ms": NOW_MS, "reason": "pool_max.1",
        });
        let reasons =
            json!({ "back_off.1": format!("paused after an error: retrying in {number} s") });
        server.change(&json!({ "jobs": jobs, "reasons": reasons }));
        browser.until(&format!("window.updates.length === {}", number + 1)).await?;
    }
    let times = browser.eval("return window.updates;").await?;
    let mut times: Vec<f64> =
        times.as_array().context("no list")?.iter().filter_map(Value::as_f64).collect();
    times.sort_by(f64::total_cmp);
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "  {UPDATES} updates: median {median:.0} ms, longest {longest:.0} ms, longest task {}",
        longest_task(browser).await?
    );
    Ok(median)
}

/// Of more than 50 ms, which is when somebody notices.
async fn longest_task(browser: &Browser) -> Result<String> {
    let longest = browser.eval("return Math.max(0, ...window.tasks);").await?;
    let longest = longest.as_f64().context("no number")?;
    Ok(if longest == 0.0 { "under 50 ms".into() } else { format!("{longest:.0} ms") })
}
