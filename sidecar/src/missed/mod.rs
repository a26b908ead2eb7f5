//! Recovery of missed webhooks: finds events at GitHub that did not arrive.

mod sources;
mod watcher;

pub(crate) use self::watcher::{Context, LOOK_UP_PREFIX, start};
