//! Recovery of missed webhooks: asks GitHub for events that did not arrive.

mod sources;
mod watcher;

pub(crate) use self::watcher::{Context, LOOK_UP, start};
