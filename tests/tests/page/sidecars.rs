//! The page of one of two sidecars: which one plans, and what it shows while none does.

use anyhow::Result;
use edgerunner_tests::Pair;

use crate::browser::{Browser, NARROW, WIDE};
use crate::measure::accessible;

pub(crate) async fn run() {
    let mut pair = Pair::start(&[], &[]).await.expect("two sidecars");
    let shown = Browser::run(async |browser| {
        browser.emulate(WIDE, "light").await?;
        browser.open(&pair.sidecars[1].page()).await?;
        let shows = async |id: &str, text: &str| {
            let shown = format!("document.getElementById('{id}').textContent");
            browser.until(&format!("{shown}.includes('{text}')")).await
        };
        for text in ["Plans", "Accepts", "term 1"] {
            shows("sidecars", text).await?;
        }
        shows("attention", "Nothing is broken").await?;
        browser.until("document.getElementById('outdated').hidden").await?;
        all_sizes(browser, "sidecars").await?;

        pair.take_lease_away()?;
        shows("outdated-title", "No sidecar plans").await?;
        shows("outdated-text", "accepts deliveries").await?;
        shows("outdated-since", "the state of").await?;
        shows("connection", "Out of date").await?;
        // What was there before is still there.
        shows("pools", "default").await?;
        all_sizes(browser, "no-planner").await?;
        pair.free_lease()?;
        browser.until("document.getElementById('outdated').hidden").await?;
        shows("sidecars", "Plans").await?;
        shows("connection", "Live").await?;

        // It is gone without a word.
        let planner = pair.planner().await?;
        let other = 1 - planner;
        browser.open(&pair.sidecars[other].page()).await?;
        shows("sidecars", "Accepts").await?;
        shows("pools", "default").await?;
        pair.sidecars[planner].kill().await?;
        shows("outdated-title", "does not answer").await?;
        browser.until("document.getElementById('outdated').hidden").await?;
        shows("sidecars", "Silent").await?;
        shows("attention", "1 sidecar silent").await?;

        pair.postgres.stop()?;
        shows("outdated-title", "The store does not answer").await?;
        all_sizes(browser, "store-away").await?;
        pair.postgres.run()?;
        browser.until("document.getElementById('outdated').hidden").await?;
        browser.no_errors("").await
    })
    .await;
    shown.expect("the page");
}

async fn all_sizes(browser: &Browser, name: &str) -> Result<()> {
    for (kind, size, scheme) in
        [("", WIDE, "light"), ("-dark", WIDE, "dark"), ("-narrow", NARROW, "light")]
    {
        browser.emulate(size, scheme).await?;
        let name = format!("{name}{kind}");
        accessible(browser, &name).await?;
        browser.screenshot(&name).await?;
    }
    browser.emulate(WIDE, "light").await
}
