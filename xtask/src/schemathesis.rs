//! What tries the HTTP API against its own description.

use std::path::Path;

use anyhow::Result;

use crate::python::{self, Packages};
use crate::stop::Stop;

pub(crate) async fn get(stop: &Stop) -> Result<Packages> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis");
    python::packages(stop, "schemathesis", &source.join("requirements.txt")).await
}
