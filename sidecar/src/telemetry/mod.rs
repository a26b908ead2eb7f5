//! Logs, metrics and traces.

mod json;
pub(crate) mod logging;
pub(crate) mod metrics;
pub(crate) mod outage;
pub(crate) mod recurring;
pub(crate) mod traces;
