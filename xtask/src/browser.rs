//! What the status page is tested with: Chromium, the program that drives it, and axe-core,
//! which finds what keeps people from using a page.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::apt;
use crate::command;
use crate::progress::Step;
use crate::rootfs::find;
use crate::stop::Stop;
use crate::workspace;

const AXE: &str = "4.14.1";
/// Of the archive in npm's registry.
const AXE_SHA256: &str = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745";

pub(crate) struct Browser {
    pub(crate) chromium: PathBuf,
    pub(crate) chromedriver: PathBuf,
    pub(crate) axe: PathBuf,
}

/// Finds them, or else installs and fetches them.
pub(crate) async fn get(stop: &Stop) -> Result<Browser> {
    let mut step = Step::start("Chromium");
    if find("chromium").is_none() || find("chromedriver").is_none() {
        apt::install(stop, &mut step, &["chromium", "chromium-driver"], "Chromium").await?;
    }
    let program = |name| find(name).with_context(|| format!("{name} is still missing"));
    let (chromium, chromedriver) = (program("chromium")?, program("chromedriver")?);
    step.done(&chromium.display().to_string());
    Ok(Browser { chromium, chromedriver, axe: axe(stop).await? })
}

async fn axe(stop: &Stop) -> Result<PathBuf> {
    let directory = workspace::target().join("axe-core");
    let script = directory.join(format!("axe-{AXE}.min.js"));
    if script.is_file() {
        return Ok(script);
    }
    let mut step = Step::start("fetching axe-core");
    for (program, package) in [("curl", "curl"), ("tar", "tar")] {
        if find(program).is_none() {
            apt::install(stop, &mut step, &[package], program).await?;
        }
    }
    std::fs::create_dir_all(&directory)?;
    let archive = directory.join("axe-core.tgz");
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--silent", "--show-error", "--location", "--proto", "=https"])
        .args(["--retry", "3", "--max-time", "120", "--output"])
        .arg(&archive)
        .arg(format!("{ARCHIVES}/axe-core-{AXE}.tgz"));
    command::run(stop, &mut step, curl).await.context("axe-core cannot be fetched")?;
    check(&archive)?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&archive).arg("-C").arg(&directory).arg("package/axe.min.js");
    command::run(stop, &mut step, tar).await?;
    // Under its own name only once it is whole.
    std::fs::rename(directory.join("package/axe.min.js"), &script)?;
    step.done(&workspace::shown(&script));
    Ok(script)
}

fn check(archive: &Path) -> Result<()> {
    let found = hex::encode(Sha256::digest(std::fs::read(archive)?));
    ensure!(
        found == AXE_SHA256,
        "{} has the SHA-256 {found} and not {AXE_SHA256}: it is not axe-core {AXE}",
        archive.display()
    );
    Ok(())
}
