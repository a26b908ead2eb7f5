//! The control loop: feeds events to the planner and carries out its decisions.

pub(crate) mod attention;
pub(crate) mod clock;
pub(crate) mod command;
pub(crate) mod driver;
mod event_log;
pub(crate) mod executor;
pub(crate) mod figures;
pub(crate) mod gauges;
pub(crate) mod leadership;
pub(crate) mod notices;
pub(crate) mod reload;
pub(crate) mod request;
pub(crate) mod restore;
pub(crate) mod sidecars;
pub(crate) mod snapshot;
pub(crate) mod supervisor;
mod unmatched;

use std::sync::Arc;

use tokio::sync::watch;

use edgerunner_scheduler::plan::Pool;

/// The current pools; they change on a reload.
pub(crate) type Pools = watch::Receiver<Arc<[Pool]>>;
