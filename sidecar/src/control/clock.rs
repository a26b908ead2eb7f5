//! The only place that reads the clock for the planner's time.

use std::time::{SystemTime, UNIX_EPOCH};

use edgerunner_scheduler::model::UnixMs;

pub(crate) fn now() -> UnixMs {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::try_from(since_epoch.as_millis()).unwrap_or(UnixMs::MAX)
}
