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
const FLAGS: [&str; 14] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // The same pixels on every machine.
    "--disable-lcd-text",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
    "--lang=en-GB",
    // DNS rebinding: an attacker's name resolves to this machine.
    "--host-resolver-rules=MAP rebound.test 127.0.0.1",
];

/// The only fonts that the browser sees: those of Debian's package fonts-dejavu-core.
const FONTS: &str = r#"<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>/usr/share/fonts/truetype/dejavu</dir>
  <cachedir>CACHE</cachedir>
  <selectfont><rejectfont><pattern>
    <patelt name="family"><string>DejaVu Serif</string></patelt>
  </pattern></rejectfont></selectfont>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
  <match target="pattern">
    <edit name="family" mode="append_last"><string>DejaVu Sans</string></edit>
  </match>
</fontconfig>
"#;

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
        let fonts = profile.path().join("fonts.conf");
        let cache = profile.path().join("fonts").display().to_string();
        std::fs::write(&fonts, FONTS.replace("CACHE", &cache))?;
        command.env("FONTCONFIG_FILE", fonts);
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

    /// Presses Enter where the focus is.
    pub(crate) async fn type_enter(&self) -> Result<()> {
        Ok(self.driver.active_element().await?.send_keys("" + Key::Enter).await?)
    }

    pub(crate) async fn press(&self, selector: &str) -> Result<()> {
        Ok(self.driver.find(By::Css(selector)).await?.click().await?)
    }

    /// Takes a screenshot of the whole page.
    pub(crate) async fn screenshot(&self, name: &str) -> Result<()> {
        let directory = target("screenshots");
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

    /// Takes a screenshot of what the window shows, as a PNG.
    pub(crate) async fn window(&self) -> Result<Vec<u8>> {
        let taken = self.tool("Page.captureScreenshot", json!({})).await?;
        base64(taken["data"].as_str().context("no image")?)
    }

    /// Keeps what the window shows as a screenshot.
    pub(crate) async fn first_screen(&self, name: &str) -> Result<()> {
        let directory = target("screenshots");
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join(format!("{name}.png")), self.window().await?)?;
        Ok(())
    }

    /// Runs a script at the start of each page that is opened from now on.
    pub(crate) async fn prepare(&self, script: &str) -> Result<()> {
        let source = json!({ "source": script });
        self.tool("Page.addScriptToEvaluateOnNewDocument", source).await?;
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

/// `directory` in that of the build.
pub(crate) fn target(directory: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(target).join(directory)
}

fn base64(text: &str) -> Result<Vec<u8>> {
    use ::base64::Engine as _;
    Ok(::base64::engine::general_purpose::STANDARD.decode(text)?)
}
