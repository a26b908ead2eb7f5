//! People who sign in: what each role sees and may do, and what is refused.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use edgerunner_tests::sign_in::{PASSWORD, SignIn, To, by_mutual_tls, by_socket};
use edgerunner_tests::{Authority, Options, Stack, ports};
use serde_json::{Value, json};

use crate::browser::{Browser, NARROW, WIDE};
use crate::measure::accessible;

const API_TOKEN: &str = "api-token-sesame";

pub(crate) async fn run() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("sign-in.sock");
    let options = by_socket(&socket)
        .iter()
        .fold(Options::default(), |it, (name, value)| it.sidecar(name, value))
        .sidecar("SERVER_API_TOKEN", API_TOKEN);
    Stack::run(options, async |stack| {
        let sign_in = SignIn::start(directory.path(), To::Socket(&socket)).await?;
        Browser::run(async |browser| {
            browser.emulate(WIDE, "light").await?;
            operator(browser, stack, &sign_in).await?;
            reader(browser, &sign_in).await?;
            outsider(browser, &sign_in).await?;
            without_sign_in(browser, stack).await
        })
        .await?;
        sign_in.end().await
    })
    .await;
    mutual_tls(directory.path()).await;
}

/// The other file, by which Envoy reaches sidecars on other machines.
async fn mutual_tls(directory: &Path) {
    let address = ports::free().expect("a port");
    let authority = Authority::new().expect("an authority");
    let variables = by_mutual_tls(&directory.join("sidecar-tls"), address, &authority);
    let options = variables
        .expect("certificates")
        .iter()
        .fold(Options::default(), |it, (name, value)| it.sidecar(name, value));
    Stack::run(options, async |_| {
        let sign_in = SignIn::start(directory, To::MutualTls(address, &authority)).await?;
        Browser::run(async |browser| {
            signed_in(browser, &sign_in, "reader").await?;
            browser.until("document.getElementById('pools').textContent.includes('default')").await
        })
        .await?;
        sign_in.end().await
    })
    .await;
}

async fn operator(browser: &Browser, stack: &Stack, sign_in: &SignIn) -> Result<()> {
    let busy = stack.at_work().await?;
    signed_in(browser, sign_in, "operator").await?;
    shows(browser, "caller", "operator@example.com").await?;
    browser.until("document.body.classList.contains('operates')").await?;
    shows(browser, "connection", "Live").await?;

    view(browser, sign_in, "pools").await?;

    // A person changes their mind.
    browser.press("#pools button.operate").await?;
    shows(browser, "confirm-title", "Drain pool default?").await?;
    browser.screenshot("sign-in-confirm").await?;
    accessible(browser, "a question before a change").await?;
    browser.press("#confirm-cancel").await?;
    ensure!(audit(browser).await?.is_empty(), "a change that nobody confirmed");

    confirmed(browser, "#pools button.operate", "Drain pool default?").await?;
    shows(browser, "pools", "draining").await?;
    shows(browser, "audit", "drained pool default").await?;
    confirmed(browser, "#pools button.operate", "Resume pool default?").await?;
    shows(browser, "audit", "resumed pool default").await?;
    confirmed(browser, "#drain-all", "Drain all pools?").await?;
    shows(browser, "audit", "drained all pools").await?;
    confirmed(browser, "#drain-all", "Resume all pools?").await?;

    // A runner of the job that runs.
    view(browser, sign_in, "overview").await?;
    let open = "document.querySelector('#runners tbody button.link')";
    browser.until(open).await?;
    browser.eval(&format!("{open}.click();")).await?;
    browser.until("document.querySelector('#details-body button.operate')").await?;
    browser.press("#details-body button.operate").await?;
    shows(browser, "confirm-effect", "running a job, which fails").await?;
    browser.press("#confirm-do").await?;
    shows(browser, "audit", "removed runner").await?;
    stack.completed(busy).await?;
    browser.press("#details-close").await?;

    let changes = audit(browser).await?;
    let by: Vec<&Value> = changes.iter().map(|change| &change["who"]).collect();
    ensure!(by.len() == 5 && by.iter().all(|who| *who == "operator@example.com"), "{by:?}");
    view(browser, sign_in, "changes").await?;
    shows(browser, "audit", "removed runner").await?;
    for (name, size, scheme) in [
        ("sign-in", WIDE, "light"),
        ("sign-in-dark", WIDE, "dark"),
        ("sign-in-narrow", NARROW, "light"),
    ] {
        browser.emulate(size, scheme).await?;
        accessible(browser, name).await?;
        browser.screenshot(name).await?;
    }
    browser.emulate(WIDE, "light").await?;
    // Those of the provider's page are its own.
    browser.no_errors("htmx").await?;

    // Another site in the same browser, which sends the cookies along.
    let before = refused(stack, "origin").await?;
    browser.tool("Page.setBypassCSP", json!({ "enabled": true })).await?;
    browser.open(&sign_in.provider_page()).await?;
    let post = format!(
        "fetch('{}api/v1/drain', {{method: 'POST', mode: 'no-cors', credentials: 'include', \
         body: '{{\"pool\":null}}'}}).then(() => 'sent', (error) => String(error))",
        sign_in.page()
    );
    browser.eval_async(&post).await?;
    ensure!(refused(stack, "origin").await? == before + 1, "it was not refused");
    ensure!(stack.sidecar.status().await?["draining"] == false, "another site drained");
    browser.tool("Page.setBypassCSP", json!({ "enabled": false })).await?;
    browser.open(&format!("{}oauth2/sign-out", sign_in.page())).await
}

/// The audit log.
async fn audit(browser: &Browser) -> Result<Vec<Value>> {
    let changes = browser.eval_async("fetch('/api/v1/audit').then((it) => it.json())").await?;
    changes.as_array().cloned().context("no changes")
}

async fn reader(browser: &Browser, sign_in: &SignIn) -> Result<()> {
    forget(browser).await?;
    signed_in(browser, sign_in, "reader").await?;
    shows(browser, "caller", "reader@example.com").await?;
    view(browser, sign_in, "changes").await?;
    shows(browser, "audit", "drained all pools").await?;
    view(browser, sign_in, "pools").await?;
    let visible =
        "[...document.querySelectorAll('button.operate')].filter((it) => it.offsetParent)";
    ensure!(browser.eval(&format!("return {visible}.length;")).await? == 0, "a button is shown");
    let drain = "fetch('/api/v1/drain', {method: 'POST', body: '{}', \
                 headers: {'x-edgerunner-role': 'operate'}}).then((it) => it.status)";
    ensure!(browser.eval_async(drain).await? == 403, "a reader drained");
    Ok(())
}

async fn outsider(browser: &Browser, sign_in: &SignIn) -> Result<()> {
    forget(browser).await?;
    login(browser, sign_in, "outsider").await?;
    browser.until("document.body.textContent.includes('none of their groups permits')").await
}

/// At the address of before, nobody has a name or a button.
async fn without_sign_in(browser: &Browser, stack: &Stack) -> Result<()> {
    browser.open(&stack.sidecar.page()).await?;
    shows(browser, "connection", "Live").await?;
    ensure!(browser.eval("return document.getElementById('caller').hidden;").await? == true);
    ensure!(browser.eval("return document.body.classList.contains('operates');").await? == false);
    let before = refused(stack, "user").await?;
    let forged = "fetch('/api/v1/drain', {method: 'POST', body: '{}', headers: \
                  {'x-edgerunner-user': 'operator@example.com', 'x-edgerunner-role': 'operate'}}) \
                  .then((it) => it.status)";
    ensure!(browser.eval_async(forged).await? == 403, "a forged name was believed");
    ensure!(refused(stack, "user").await? == before + 1, "it was not counted");
    Ok(())
}

async fn view(browser: &Browser, sign_in: &SignIn, name: &str) -> Result<()> {
    browser.open(&format!("{}?view={name}", sign_in.page())).await?;
    shows(browser, "connection", "Live").await
}

/// Presses a button, and then the one that confirms it.
async fn confirmed(browser: &Browser, button: &str, question: &str) -> Result<()> {
    let asks = format!(
        "document.querySelector('{button}').getAttribute('aria-label') === '{}'",
        question.replace('?', "")
    );
    browser.until(&asks).await?;
    browser.press(button).await?;
    shows(browser, "confirm-title", question).await?;
    browser.press("#confirm-do").await?;
    browser.until("!document.getElementById('confirm').open").await
}

async fn signed_in(browser: &Browser, sign_in: &SignIn, who: &str) -> Result<()> {
    login(browser, sign_in, who).await?;
    browser.until("document.getElementById('pools')").await
}

async fn login(browser: &Browser, sign_in: &SignIn, who: &str) -> Result<()> {
    browser.open(&sign_in.page()).await?;
    for (field, text) in [("login", who), ("password", PASSWORD)] {
        let input = format!("input[name={field}]");
        browser.until(&format!("document.querySelector('{input}')")).await?;
        browser.fill(&input, text).await?;
        browser.eval(&format!("document.querySelector('{input}').form.requestSubmit();")).await?;
    }
    let back = format!("location.href.startsWith('{}')", sign_in.page());
    browser.until(&back).await
}

/// As a new browser.
async fn forget(browser: &Browser) -> Result<()> {
    browser.tool("Network.clearBrowserCookies", json!({})).await?;
    Ok(())
}

async fn shows(browser: &Browser, id: &str, text: &str) -> Result<()> {
    browser.until(&format!("document.getElementById('{id}').textContent.includes('{text}')")).await
}

/// How many requests the sidecar has refused for this reason.
async fn refused(stack: &Stack, reason: &str) -> Result<u64> {
    let metrics = stack.sidecar.metrics().await?;
    let line = format!("edgerunner_api_refused_total{{reason=\"{reason}\"}} ");
    let found = metrics.lines().find_map(|it| it.strip_prefix(&line));
    Ok(found.context("no such metric")?.parse()?)
}
