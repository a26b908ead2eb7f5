//! Logs: for people on a terminal, JSON otherwise.

use std::io::{IsTerminal as _, stderr};

use tracing::subscriber::set_global_default;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

pub fn init(log: &Log) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let human = match log.format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let builder = fmt().with_env_filter(filter).with_writer(stderr).with_target(false);
    // Not `init`: that would also take in the records of the `log` crate, among them
    // bollard's, which show a container's environment and with it its credentials.
    let set = if human {
        set_global_default(builder.with_ansi(stderr().is_terminal()).finish())
    } else {
        set_global_default(builder.json().flatten_event(true).with_current_span(false).finish())
    };
    if set.is_err() {
        eprintln!("edgerunner: logging was set up before");
    }
}
