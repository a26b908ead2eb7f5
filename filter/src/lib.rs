//! A proxy-wasm filter that ends GitHub's webhooks in Envoy: it verifies the
//! signature, reads `workflow_job`, and hands genuine events to the sidecar.
//!
//! Everything but `envoy` is pure and compiles for the host, where the tests
//! run; `envoy` translates between these parts and Envoy.

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
pub mod event;
pub mod grpc_service;
pub mod headers;
pub mod in_flight;
pub mod repository;
pub mod signature;
