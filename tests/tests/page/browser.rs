//! A real browser, driven by WebDriver.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use edgerunner_tests::tools::browser;
use edgerunner_tests::{Process, eventually, ports};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{
    Capabilities, ChromiumLikeCapabilities as _, DesiredCapabilities, WebDriver, prelude::*,
};
use tokio::net::TcpStream;
use tokio::process::Command;

/// Widths and heights in CSS pixels.
pub(crate) const WIDE: (u32, u32) = (1440, 1000);
pub(crate) const NARROW: (u32, u32) = (320, 780);

/// For root, and without network requests of Chromium's own.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // DNS rebinding: an attacker's name resolves to this machine.
    "--host-resolver-rules=MAP rebound.test 127.0.0.1",
];

/// A browser with one tab.
pub(crate) struct Browser {
    driver: WebDriver,
    process: Process,
    _profile: TempDir,
}

impl Browser {
    pub(crate) async fn run<T>(test: impl AsyncFnOnce(&Self) -> Result<T>) -> Result<T> {
        let browser = Self::start().await?;
        let tested = test(&browser).await;
        // The driver closes the browser on request.
        let quit = browser.driver.quit().await;
        browser.process.end(Signal::TERM).await?;
        let tested = tested?;
        quit?;
        Ok(tested)
    }

    async fn start() -> Result<Self> {
        let (chromedriver, chromium) = browser()?;
        let profile = TempDir::new()?;
        let address = ports::free()?;
        let mut command = Command::new(chromedriver);
        command.arg(format!("--port={}", address.port()));
        let process = Process::start("chromedriver", command, &profile.path().join("driver.log"))?;
        eventually("the driver listens", async || Ok(Some(TcpStream::connect(address).await?)))
            .await?;
        let mut wanted = DesiredCapabilities::chrome();
        // Of a CA that a test has made.
        wanted.accept_insecure_certs(true)?;
        wanted.set_binary(chromium.to_str().context("no UTF-8")?)?;
        for flag in FLAGS {
            wanted.add_arg(flag)?;
        }
        wanted.add_arg(&format!("--user-data-dir={}", profile.path().join("data").display()))?;
        let mut wanted = Capabilities::from(wanted);
        wanted.set("goog:loggingPrefs", json!({ "performance": "ALL", "browser": "ALL" }))?;
        let driver = WebDriver::new(format!("http://{address}"), wanted).await?;
        Ok(Self { driver, process, _profile: profile })
    }

    pub(crate) async fn open(&self, url: &str) -> Result<()> {
        Ok(self.driver.goto(url).await?)
    }

    /// Sets the window's size, and light or dark mode.
    pub(crate) async fn emulate(&self, (width, height): (u32, u32), scheme: &str) -> Result<()> {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
        });
        self.tool("Emulation.setDeviceMetricsOverride", size).await?;
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.tool("Emulation.setEmulatedMedia", json!({ "features": features })).await?;
        Ok(())
    }

    pub(crate) async fn tool(&self, command: &str, parameters: Value) -> Result<Value> {
        Ok(self.driver.cdp().send_raw(command, parameters).await?)
    }

    /// Runs a script and returns its value.
    pub(crate) async fn eval(&self, script: &str) -> Result<Value> {
        Ok(self.driver.execute(script, Vec::new()).await?.json().clone())
    }

    /// Runs a script with a promise and returns the promise's value.
    pub(crate) async fn eval_async(&self, expression: &str) -> Result<Value> {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             Promise.resolve({expression}).then(done, (error) => done({{ error: String(error) }}));"
        );
        Ok(self.driver.execute_async(script, Vec::new()).await?.json().clone())
    }

    /// Waits until an expression holds.
    pub(crate) async fn until(&self, expression: &str) -> Result<()> {
        eventually(expression, async || {
            Ok((self.eval(&format!("return !!({expression});")).await? == true).then_some(()))
        })
        .await
    }

    /// Types into the search field and submits it.
    pub(crate) async fn find(&self, text: &str) -> Result<()> {
        let field = self.driver.find(By::Id("wanted")).await?;
        field.clear().await?;
        field.send_keys(text + Key::Enter).await?;
        Ok(())
    }

    /// Types into a field.
    pub(crate) async fn fill(&self, selector: &str, text: &str) -> Result<()> {
        Ok(self.driver.find(By::Css(selector)).await?.send_keys(text).await?)
    }

    pub(crate) async fn press(&self, selector: &str) -> Result<()> {
        Ok(self.driver.find(By::Css(selector)).await?.click().await?)
    }

    /// Takes a screenshot of the whole page.
    pub(crate) async fn screenshot(&self, name: &str) -> Result<()> {
        let directory = screenshots();
        std::fs::create_dir_all(&directory)?;
        let size = self.eval("return [innerWidth, document.documentElement.scrollHeight];").await?;
        let open = self.eval("return document.getElementById('details').open;").await?;
        // Some elements have the window's height.
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let whole = json!({ "captureBeyondViewport": true, "clip": clip });
        let wanted = if open == true { json!({}) } else { whole };
        let taken = self.tool("Page.captureScreenshot", wanted).await?;
        let image = taken["data"].as_str().context("no image")?;
        std::fs::write(directory.join(format!("{name}.png")), base64(image)?)?;
        Ok(())
    }

    /// Chromium's network events since the last call.
    pub(crate) async fn network(&self) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        for entry in self.driver.handle().get_log("performance").await? {
            let entry: Value = serde_json::from_str(&entry.message)?;
            events.push(entry["message"].clone());
        }
        Ok(events)
    }

    /// Fails if the browser logged an error, such as of a script or the page's policy.
    pub(crate) async fn no_errors(&self, but: &str) -> Result<()> {
        let log = self.driver.handle().browser_log().await?;
        let errors: Vec<&str> = log
            .iter()
            .filter(|entry| entry.level != "INFO" && entry.level != "DEBUG")
            .map(|entry| entry.message.as_str())
            .filter(|message| but.is_empty() || !message.contains(but))
            .collect();
        ensure!(errors.is_empty(), "the browser logged: {errors:#?}");
        Ok(())
    }
}

fn screenshots() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(target).join("screenshots")
}

fn base64(text: &str) -> Result<Vec<u8>> {
    use ::base64::Engine as _;
    Ok(::base64::engine::general_purpose::STANDARD.decode(text)?)
}
