//! Paths in this checkout.

use std::path::{Path, PathBuf};

pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Cargo's target directory. Downloads go there too, so that `cargo clean` removes them.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// A path relative to the checkout, if it is inside.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

pub fn read(path: &str) -> anyhow::Result<String> {
    let path = root().join(path);
    let text = std::fs::read_to_string(&path);
    anyhow::Context::with_context(text, || format!("cannot read {}", path.display()))
}
