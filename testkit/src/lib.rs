//! The harness that `cargo xtask up`, the end-to-end tests and the benchmarks share: it
//! starts the programs with the configurations that ship, and talks to them.

pub mod certificates;
pub mod client;
pub mod containers;
pub mod control_plane;
pub mod deployment;
pub mod envoy;
pub mod envoy_config;
mod eventually;
mod hosts;
pub mod images;
mod internet;
pub mod json_log;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod runtime;
pub mod sandbox;
mod sidecar;
pub mod swarm;
#[cfg(feature = "tls")]
pub mod tls;
pub mod webhook;
pub mod workspace;

pub use certificates::{Authority, Identity};
pub use client::Answer;
pub use containers::Containers;
pub use deployment::Deployment;
pub use envoy::Envoy;
pub use eventually::{eventually, eventually_within};
pub use internet::Internet;
pub use postgres::Postgres;
pub use process::Process;
pub use programs::Programs;
pub use sidecar::Sidecar;
pub use swarm::Cluster;
pub use webhook::Webhook;
