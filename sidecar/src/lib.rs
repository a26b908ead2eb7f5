//! The sidecar's parts; `serve.rs` puts them together.

mod api;
pub mod cli;
mod config;
mod control;
mod github;
mod intake;
mod missed;
mod page;
mod provider;
mod serve;
mod singleflight;
mod store;
mod telemetry;
