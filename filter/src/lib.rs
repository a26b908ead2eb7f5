//! A proxy-wasm filter that terminates GitHub's webhooks in Envoy: it verifies
//! signatures, reads `workflow_job` events, and submits them to the sidecar.
//!
//! Everything except `envoy` is pure and also compiles for the host, where the
//! tests run; `envoy` connects it to the proxy.

// A panic here is a trap in Envoy: the VM is lost with every request in it.
#![cfg_attr(
    not(test),
    deny(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]

pub mod answer;
pub mod config;
pub mod delivery;
#[cfg(target_arch = "wasm32")]
mod envoy;
mod event;
mod grpc_service;
pub mod headers;
mod json_error;
mod signature;
pub mod submit_stream;
pub mod unanswered;
