//! Recovery of missed webhooks: finds events at GitHub that did not arrive.

mod registered;
mod sources;
mod watcher;

pub(crate) use self::{
    registered::places,
    watcher::{Context, LOOK_UP_PREFIX, start},
};
