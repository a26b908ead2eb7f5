//! What the end-to-end tests stand on: the shipped Envoy configuration with the
//! real filter, the real sidecar, real containers, and the sandbox in GitHub's
//! place, all of them once for each test.

mod answer;
mod certificates;
mod compose;
mod containers;
mod docker_gate;
mod engine;
mod envoy;
mod eventually;
mod newcomer;
pub mod ports;
mod process;
mod programs;
pub mod raw;
mod registry;
mod sidecar;
mod stack;
mod terminal;
mod webhook;

pub use answer::Answer;
pub use compose::{Compose, DOCKER_SOCKET, docker_group};
pub use containers::Containers;
pub use docker_gate::DockerGate;
pub use edgerunner_certificates::{Authority, Identity};
pub use engine::Engine;
pub use envoy::{Edge, Envoy};
pub use eventually::{eventually, eventually_within};
pub use newcomer::Newcomer;
pub use process::Process;
pub use programs::{Programs, axe, browser, dind_image, promtool, schemathesis};
pub use registry::Registry;
pub use sidecar::Sidecar;
pub use stack::{OTHER_TOKEN, Options, SECRET, Stack, TOKEN};
pub use terminal::Terminal;
pub use webhook::{Webhook, hmac_sha1, hmac_sha256, payload};
