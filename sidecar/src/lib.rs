//! The sidecar's parts; `serve.rs` puts them together.

mod access;
mod api;
mod authorization;
mod client;
mod clock;
pub mod config;
mod contract;
pub mod control;
pub mod docker;
mod driver;
mod execute;
mod flight;
pub mod github;
pub mod inspect;
mod intake;
pub mod listen;
pub mod logging;
mod metrics;
mod missed;
pub mod model;
pub mod plan;
mod rpc;
pub mod schedule;
pub mod serve;
mod snapshot;
pub mod store;
mod webhooks;
