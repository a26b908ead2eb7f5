//! The registry of images that tests pull from.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::apt;
use crate::progress::Step;
use crate::rootfs::find;
use crate::stop::Stop;

/// Debian's name for what others call `registry`.
const PROGRAM: &str = "docker-registry";

/// Finds it, or else installs it.
pub(crate) async fn get(stop: &Stop) -> Result<PathBuf> {
    let mut step = Step::start("registry");
    if find(PROGRAM).is_none() {
        apt::install(stop, &mut step, &[PROGRAM], PROGRAM).await?;
    }
    let program = find(PROGRAM).with_context(|| format!("{PROGRAM} is still missing"))?;
    step.done(&program.display().to_string());
    Ok(program)
}
