//! The sidecar's parts; `serve.rs` puts them together.

mod api;
mod blocking;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench {
    pub use crate::store::{accept, measure as store};
}
pub mod cli;
mod config;
mod control;
mod disk;
mod github;
mod http_client;
mod intake;
mod jwt;
mod launcher;
mod listen;
mod missed;
mod notifications;
mod page;
mod provider;
mod secret;
mod serve;
mod singleflight;
mod store;
mod telemetry;
