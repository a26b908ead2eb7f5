//! Logs: readable text on a terminal, JSON otherwise.
//!
//! A field is called `error` if it says why something failed, and never `message`, which is the
//! text itself. Values are strings, numbers, truth values and [`List`]s, never Rust's `Debug`.

use std::io::{IsTerminal as _, stderr};

use tracing::{Subscriber, subscriber::set_global_default};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, fmt::MakeWriter, layer::SubscriberExt as _,
    registry::LookupSpan,
};

pub(crate) use super::json::List;
use super::{json::JsonLines, traces::Exporter};
use crate::config::{Log, LogFormat};

pub(crate) fn init(log: &Log, traces: Option<&Exporter>) {
    let human = match log.format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = match human {
        true => text(&log.filter(), stderr, stderr().is_terminal()).boxed(),
        false => json(&log.filter(), stderr).boxed(),
    };
    let subscriber = Registry::default().with(traces.map(Exporter::layer)).with(lines);
    // Not `init`: that would also log the records of the `log` crate. Those of bollard contain
    // the environment of containers, and with it credentials.
    if set_global_default(subscriber).is_err() {
        eprintln!("edgerunner: logging is already set up");
    }
}

fn text<S, W>(level: &str, writer: W, ansi: bool) -> impl Layer<S> + Send + Sync + use<S, W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer).with_target(false).with_ansi(ansi);
    lines.with_filter(filter(level))
}

fn json<S, W>(level: &str, writer: W) -> impl Layer<S> + Send + Sync + use<S, W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    JsonLines::new(writer).with_filter(filter(level))
}

fn filter(level: &str) -> EnvFilter {
    // It logs responses that it cannot read, and those may hold credentials.
    let filter =
        |level: &str| EnvFilter::try_new(format!("{level},kube_client=off,kube_runtime=off"));
    filter(level).or_else(|_| filter("info")).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests;
