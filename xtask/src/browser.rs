//! What the status page is tested with: Chromium, the program that drives it, and axe-core,
//! which finds what keeps people from using a page.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::apt;
use crate::progress::Step;
use crate::python;
use crate::rootfs::find;
use crate::stop::Stop;

/// In the Python package that brings it along.
const AXE: &str = "axe_playwright_python/axe.min.js";

pub(crate) struct Browser {
    pub(crate) chromium: PathBuf,
    pub(crate) chromedriver: PathBuf,
    pub(crate) axe: PathBuf,
}

/// Finds them, or else installs them.
pub(crate) async fn get(stop: &Stop) -> Result<Browser> {
    let mut step = Step::start("Chromium");
    if find("chromium").is_none() || find("chromedriver").is_none() {
        apt::install(stop, &mut step, &["chromium", "chromium-driver"], "Chromium").await?;
    }
    let program = |name| find(name).with_context(|| format!("{name} is still missing"));
    let (chromium, chromedriver) = (program("chromium")?, program("chromedriver")?);
    step.done(&chromium.display().to_string());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("axe-core/requirements.txt");
    let packages = python::packages(stop, "axe-core", &source).await?;
    Ok(Browser { chromium, chromedriver, axe: packages.directory.join(AXE) })
}
