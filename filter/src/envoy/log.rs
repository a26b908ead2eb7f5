//! Envoy's log.

use proxy_wasm::{hostcalls, types::LogLevel};

pub(super) fn log(level: LogLevel, message: &str) {
    // If the log cannot be written, there is nowhere to report that.
    let _ = hostcalls::log(level, message);
}
