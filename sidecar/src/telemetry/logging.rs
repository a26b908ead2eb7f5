//! Logs: readable text on a terminal, JSON otherwise.

use std::io::{IsTerminal as _, stderr};

use tracing::subscriber::set_global_default;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, layer::SubscriberExt as _};

use crate::{
    config::{Log, LogFormat},
    telemetry::traces::Exporter,
};

pub(crate) fn init(log: &Log, traces: Option<&Exporter>) {
    let filter = EnvFilter::try_new(log.filter()).unwrap_or_else(|_| EnvFilter::new("info"));
    let human = match log.format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = fmt::layer().with_writer(stderr).with_target(false);
    let lines = match human {
        true => lines.with_ansi(stderr().is_terminal()).boxed(),
        false => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    let subscriber =
        Registry::default().with(traces.map(Exporter::layer)).with(lines.with_filter(filter));
    // Not `init`: that would also log the records of the `log` crate. Those of bollard contain
    // the environment of containers, and with it credentials.
    if set_global_default(subscriber).is_err() {
        eprintln!("edgerunner: logging is already set up");
    }
}
