//! Measurements of an open page: layout shifts, transfers, accessibility.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use edgerunner_tests::tools::axe;
use serde_json::Value;

use crate::browser::Browser;

/// Layout shifts since the page was opened, without those after an input, as in
/// <https://web.dev/articles/cls>.
const SHIFTS: &str = "new Promise((done) => {
    let sum = 0;
    const found = [];
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries().filter((entry) => !entry.hadRecentInput)) {
            sum += entry.value;
            found.push(...entry.sources.map(({ node, previousRect, currentRect }) =>
                `${node?.nodeName} ${node?.id ?? ''} ${node?.className ?? ''} in ` +
                `${node?.parentElement?.className}: ${JSON.stringify(previousRect)} -> ` +
                JSON.stringify(currentRect)));
        }
    }).observe({ type: 'layout-shift', buffered: true });
    setTimeout(() => done({ sum, found: found.slice(0, 12) }), 300);
})";

/// The sum of all layout shifts since the page was opened.
pub(crate) async fn layout_shift(browser: &Browser) -> Result<f64> {
    let shifts = browser.eval_async(SHIFTS).await?;
    let sum = shifts["sum"].as_f64().with_context(|| format!("no sum: {shifts}"))?;
    ensure!(sum < 0.1, "the page moves: {shifts:#}");
    Ok(sum)
}

/// In milliseconds since the request.
pub(crate) async fn first_paint(browser: &Browser) -> Result<f64> {
    let script = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime;";
    browser.eval(script).await?.as_f64().context("nothing was painted")
}

/// Bytes received over the network, including headers, by path.
pub(crate) struct Transfer {
    pub(crate) bytes: u64,
    pub(crate) by_path: Vec<(String, u64)>,
}

/// Fails if there was a request to another server than `origin`.
pub(crate) fn transfer(events: &[Value], origin: &str) -> Result<Transfer> {
    let mut urls: HashMap<&str, &str> = HashMap::new();
    let mut bytes: HashMap<&str, u64> = HashMap::new();
    for event in events {
        let parameters = &event["params"];
        let Some(request) = parameters["requestId"].as_str() else { continue };
        let length = parameters["encodedDataLength"].as_u64().unwrap_or(0);
        match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let url = parameters["request"]["url"].as_str().unwrap_or_default();
                ensure!(url.starts_with(origin), "a request to {url}");
                urls.insert(request, url);
            }
            "Network.responseReceived" => {
                let head = parameters["response"]["encodedDataLength"].as_u64().unwrap_or(0);
                *bytes.entry(request).or_default() += head;
            }
            // For a stream of events, which is not compressed, only `dataLength` is set.
            "Network.dataReceived" => {
                let encoded = parameters["dataLength"].as_u64().filter(|_| length == 0);
                *bytes.entry(request).or_default() += encoded.unwrap_or(length);
            }
            // For the whole response.
            "Network.loadingFinished" => {
                bytes.insert(request, length);
            }
            _ => {}
        }
    }
    let mut by_path: Vec<(String, u64)> = urls
        .iter()
        .map(|(request, url)| {
            let path = url.strip_prefix(origin).unwrap_or(url);
            (format!("/{path}"), bytes.get(request).copied().unwrap_or(0))
        })
        .collect();
    by_path.sort();
    let bytes = bytes.values().sum();
    Ok(Transfer { bytes, by_path })
}

/// Fails if axe-core finds a serious or critical problem. Returns the number of rules that
/// passed, and of minor and moderate findings.
pub(crate) async fn accessible(browser: &Browser, what: &str) -> Result<(usize, usize)> {
    // Bypasses the page's policy, which forbids other scripts.
    let script = std::fs::read_to_string(axe()?)?;
    let expression = serde_json::json!({ "expression": script });
    browser.tool("Runtime.evaluate", expression).await?;
    let report = browser
        .eval_async(
            "axe.run(document, { resultTypes: ['violations'] }).then((report) => ({
                passes: report.passes.length,
                violations: report.violations.map((violation) => ({
                    id: violation.id, impact: violation.impact, help: violation.help,
                    nodes: violation.nodes.slice(0, 3).map((node) => node.html + ' ' + node.failureSummary),
                })),
            }))",
        )
        .await?;
    let violations = report["violations"].as_array().with_context(|| format!("{report}"))?;
    let serious =
        |violation: &&Value| matches!(violation["impact"].as_str(), Some("serious" | "critical"));
    let found: Vec<&Value> = violations.iter().filter(serious).collect();
    ensure!(found.is_empty(), "{what}: axe finds {found:#?}");
    for minor in violations {
        println!("  axe, {what}: {} ({}): {}", minor["id"], minor["impact"], minor["help"]);
    }
    let passes = report["passes"].as_u64().context("no passes")?;
    Ok((usize::try_from(passes)?, violations.len()))
}
