//! All states of the page: how they look, that they are accessible, and what their links do.

use anyhow::{Result, bail, ensure};
use serde_json::json;

use crate::browser::{Browser, NARROW};
use crate::looks::Looks;
use crate::measure::accessible;
use crate::recorded::{Server, frozen_clock};
use crate::states::{self, SHOWN_DEAD_RUNNER, SHOWN_JOB};

/// Of a laptop.
pub(crate) const LAPTOP: (u32, u32) = (1280, 800);
const PHONE: (u32, u32) = (NARROW.0, 640);
const FULL_HD: (u32, u32) = (1920, 1080);
const WIDEST: (u32, u32) = (2560, 1440);

/// What is wider than the window, which a phone would zoom out for.
fn too_wide(width: u32) -> String {
    format!(
        "return [...document.querySelectorAll('body *')]
            .filter((it) => it.offsetParent && it.getBoundingClientRect().right > {width} + 1)
            .map((it) => `${{it.tagName}} ${{it.id}} ${{it.className}}`).slice(0, 5);"
    )
}

pub(crate) async fn run() {
    let server = Server::start().await.expect("a server");
    server.answer(&format!("/page/jobs/{SHOWN_JOB}"), states::job());
    server.answer(&format!("/page/runners/{SHOWN_DEAD_RUNNER}"), states::dead_runner());
    server.answer("/api/v1/report", states::report());
    let shown = Browser::run(async |browser| {
        browser.prepare(&frozen_clock()).await?;
        browser.tool("Emulation.setTimezoneOverride", json!({ "timezoneId": "UTC" })).await?;
        browser.tool("Emulation.setLocaleOverride", json!({ "locale": "en-GB" })).await?;
        // On a phone they fade after a while.
        browser.tool("Emulation.setScrollbarsHidden", json!({ "hidden": true })).await?;
        looks(browser, &server).await?;
        browser.tool("Emulation.setScrollbarsHidden", json!({ "hidden": false })).await?;
        choices_are_kept_in_the_address(browser, &server).await?;
        links_open_what_they_name(browser, &server).await?;
        no_part_scrolls_on_a_phone(browser, &server).await?;
        browser.no_errors("").await
    })
    .await;
    shown.expect("the page");
}

/// Opens the page at an address and waits until it is complete.
async fn open(browser: &Browser, server: &Server, address: &str) -> Result<()> {
    browser.open("about:blank").await?;
    browser.open(&format!("{}{address}", server.url())).await?;
    browser.until("document.getElementById('connection').dataset.state === 'live'").await?;
    browser.until("!document.body.classList.contains('loading')").await
}

async fn looks(browser: &Browser, server: &Server) -> Result<()> {
    let job = format!("#job={SHOWN_JOB}");
    let runner = format!("#runner={SHOWN_DEAD_RUNNER}");
    let dialog = "document.getElementById('details').open";
    let drawn = "document.querySelectorAll('#report-chart rect').length > 0";
    let (empty, quiet, findings) = (states::empty(), states::quiet(), states::findings());
    let (many, swarm) = (states::many_jobs(200), states::swarm());
    let wall = "?view=wall";
    let all = [
        ("empty", &empty, "", LAPTOP, "light", "true"),
        ("quiet", &quiet, "", LAPTOP, "light", "true"),
        ("quiet-phone", &quiet, "", PHONE, "light", "true"),
        ("findings", &findings, "", LAPTOP, "light", "true"),
        ("findings-dark", &findings, "", LAPTOP, "dark", "true"),
        ("findings-phone", &findings, "", PHONE, "dark", "true"),
        ("job", &quiet, job.as_str(), LAPTOP, "light", dialog),
        ("job-phone", &quiet, &job, PHONE, "light", dialog),
        ("runner", &quiet, &runner, LAPTOP, "dark", dialog),
        ("pool", &many, "#pool=linux-small", LAPTOP, "light", dialog),
        ("node", &swarm, "?view=nodes#node=build-2", LAPTOP, "light", dialog),
        ("many-jobs", &many, "?jobs=queued", LAPTOP, "light", "true"),
        ("many-jobs-phone", &many, "?jobs=queued", PHONE, "light", "true"),
        ("many-jobs-widest", &many, "", WIDEST, "light", "true"),
        ("pools", &many, "?view=pools", LAPTOP, "light", "true"),
        ("nodes", &swarm, "?view=nodes", LAPTOP, "light", "true"),
        ("github", &quiet, "?view=github", LAPTOP, "light", "true"),
        ("egress", &swarm, "?view=egress", LAPTOP, "light", "true"),
        ("report", &quiet, "?view=report", LAPTOP, "light", drawn),
        ("versions", &swarm, "?view=versions", LAPTOP, "dark", "true"),
        ("wall-quiet", &quiet, wall, FULL_HD, "dark", "true"),
        ("wall", &findings, wall, FULL_HD, "light", "true"),
        ("wall-widest", &findings, wall, WIDEST, "dark", "true"),
    ];
    let mut looks = Looks::default();
    for (name, state, address, size, scheme, shown) in all {
        server.show(state.clone());
        browser.emulate(size, scheme).await?;
        open(browser, server, address).await?;
        browser.until(shown).await?;
        looks.compare(browser, name).await?;
        accessible(browser, name).await?;
        let wide = browser.eval("return document.documentElement.scrollWidth;").await?;
        if wide.as_u64() > Some(size.0.into()) {
            bail!("{name}: {wide} pixels wide: {}", browser.eval(&too_wide(size.0)).await?);
        }
        if address == wall {
            let too_high = "return document.documentElement.scrollHeight > innerHeight;";
            ensure!(browser.eval(too_high).await? == false, "{name}: higher than the screen");
            let controls = "return [...document.querySelectorAll('a, button, input, select')]
                .filter((it) => it.offsetParent).length;";
            ensure!(browser.eval(controls).await? == 0, "{name}: it has controls");
        }
    }
    looks.end()
}

/// By the keyboard, as everything.
async fn choices_are_kept_in_the_address(browser: &Browser, server: &Server) -> Result<()> {
    server.show(states::many_jobs(200));
    browser.emulate(LAPTOP, "light").await?;
    open(browser, server, "").await?;
    let rows = "[...document.querySelectorAll('#jobs tbody tr:not(.empty)')]";
    for (name, value) in
        [("repository", "acme/search"), ("pool", "linux-small"), ("label", "small")]
    {
        let script = format!(
            "const select = document.getElementById('jobs-{name}');
             select.value = '{value}'; select.dispatchEvent(new Event('change'));"
        );
        browser.eval(&script).await?;
    }
    let fit = format!(
        "{rows}.length > 0 && {rows}.every((row) => row.textContent.includes('acme/search') &&
            row.textContent.includes('linux-small'))"
    );
    browser.until(&fit).await?;
    browser.eval("document.querySelector('[data-sort=repository] button').focus();").await?;
    browser.type_enter().await?;
    browser.type_enter().await?;
    let descending =
        "document.querySelector('#jobs th[aria-sort=descending] [data-sort=repository]')";
    browser.until(descending).await?;
    let address = browser.eval("return location.search;").await?;
    let expected = "?repository=acme%2Fsearch&pool=linux-small&label=small&sort=-repository";
    ensure!(address == expected, "{address}");
    open(browser, server, expected).await?;
    browser.until(&fit).await?;
    browser.until(descending).await?;
    browser.press("#jobs-clear").await?;
    browser.until("location.search === '?sort=-repository'").await?;

    // Each order is that of the column's values.
    for (key, cell) in [
        ("pool", ".labels .lines span:first-child"),
        ("repository", "th .repository"),
        ("label", ".labels .repository"),
    ] {
        open(browser, server, &format!("?jobs=queued&sort={key}")).await?;
        let texts = format!(
            "[...document.querySelectorAll('#jobs tbody {cell}')].map((it) => it.textContent.split(' · ')[0])"
        );
        let sorted = format!(
            "const texts = {texts};
             return texts.length > 10 && texts.every((text, index) => !index || texts[index - 1] <= text);"
        );
        if browser.eval(&sorted).await? != true {
            bail!("not sorted by {key}: {}", browser.eval(&format!("return {texts};")).await?);
        }
    }
    Ok(())
}

async fn links_open_what_they_name(browser: &Browser, server: &Server) -> Result<()> {
    server.show(states::swarm());
    let title =
        |text: &str| format!("document.getElementById('details-title').textContent === '{text}'");
    for (hash, text) in [
        (format!("#job={SHOWN_JOB}"), "integration (postgres)"),
        (format!("#runner={SHOWN_DEAD_RUNNER}"), SHOWN_DEAD_RUNNER),
        ("#pool=linux-large".into(), "Pool linux-large"),
        ("#node=build-2".into(), "Node build-2"),
        ("#pool=none".into(), "Nothing found"),
    ] {
        open(browser, server, &hash).await?;
        browser.until("document.getElementById('details').open").await?;
        browser.until(&title(text)).await?;
    }
    // From a job to its pool, and back.
    open(browser, server, &format!("#job={SHOWN_JOB}")).await?;
    browser.until(&title("integration (postgres)")).await?;
    let says = "document.getElementById('details').textContent";
    for text in [
        "Queued at GitHub",
        "Webhook received and stored",
        "Runner launch began",
        "Runner online",
        "In progress",
        "Completed: failure",
        "+350 ms",
        "github-app",
        "15ad2f70-0000-11ef-9a3e-1f0c7d9e2b4a",
        "Killed: out of memory",
        "lint",
        "Attempt 1",
        "build-2",
    ] {
        browser.until(&format!("{says}.includes('{text}')")).await?;
    }
    browser.press("#details-body a[href='#pool=linux-large']").await?;
    browser.until(&title("Pool linux-large")).await?;
    browser.eval("history.back();").await?;
    browser.until(&title("integration (postgres)")).await?;
    browser.press("#details-close").await?;
    browser.until("location.hash === ''").await?;
    // Views have an address each, and "back" leaves them.
    browser.press("#views a[data-view=pools]").await?;
    browser.until("location.search === '?view=pools' && document.querySelector('.panel.pools').offsetParent").await?;
    browser.press("#views a[data-view=report]").await?;
    browser.until("document.querySelector('.panel.report').offsetParent").await?;
    browser.eval("history.back();").await?;
    browser.until("document.querySelector('.panel.pools').offsetParent && document.querySelector('#views [aria-current]').dataset.view === 'pools'").await
}

async fn no_part_scrolls_on_a_phone(browser: &Browser, server: &Server) -> Result<()> {
    browser.emulate(NARROW, "light").await?;
    for (state, address) in [
        (states::many_jobs(200), String::new()),
        (states::swarm(), "?view=nodes".into()),
        (states::quiet(), format!("#job={SHOWN_JOB}")),
    ] {
        server.show(state);
        open(browser, server, &address).await?;
        if address.starts_with('#') {
            browser.until("document.getElementById('details').open").await?;
        }
        // The dialog is the screen.
        let inside = "[...document.querySelectorAll('main *, dialog *')].some((it) => it.offsetParent &&
            (['auto', 'scroll'].includes(getComputedStyle(it).overflowY) && it.scrollHeight > it.clientHeight + 1 ||
             ['auto', 'scroll'].includes(getComputedStyle(it).overflowX) && it.scrollWidth > it.clientWidth + 1))";
        ensure!(
            browser.eval(&format!("return {inside};")).await? == false,
            "{address}: a part scrolls"
        );
    }
    Ok(())
}
