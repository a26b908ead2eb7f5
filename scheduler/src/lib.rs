//! The scheduler: decides which runners to launch and remove, and which requests to send to
//! GitHub to find missed webhooks. It reads no clock, draws no random numbers, does no I/O, and
//! cannot fail.

mod host;
pub mod missed;
pub mod model;
pub mod plan;
pub mod schedule;
mod time;
