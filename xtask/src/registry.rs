//! The registry of images that tests pull from.

use std::path::PathBuf;

use anyhow::Result;

use crate::apt;
use crate::stop::Stop;

/// Debian's name for what others call `registry`.
const PROGRAM: &str = "docker-registry";

pub(crate) async fn get(stop: &Stop) -> Result<PathBuf> {
    apt::program(stop, PROGRAM, PROGRAM).await
}
