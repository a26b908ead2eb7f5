//! The harness of the end-to-end tests: the real Envoy with the real filter, the real
//! sidecar, real containers, and the sandbox in GitHub's place, all new for each test. Only Envoy is
//! used again, if its configuration is the same.

use hmac::{Hmac, KeyInit as _, Mac as _};

mod docker_proxy;
mod engine;
mod kubelet;
mod loop_disk;
mod options;
mod pair;
mod podman;
pub mod raw;
mod shared_envoy;
pub mod sign_in;
mod stack;
mod tcp_proxy;
pub mod tools;

pub use docker_proxy::DockerProxy;
pub use edgerunner_testkit::postgres::Postgres;
pub use edgerunner_testkit::programs::RUNNER_IMAGE;
pub use edgerunner_testkit::swarm::Swarm;
pub use edgerunner_testkit::tls::send_http2;
pub use edgerunner_testkit::webhook::{SECRET, hmac_sha256, payload};
pub use edgerunner_testkit::{
    Answer, Authority, Cluster, Containers, Envoy, Identity, Internet, Process, Programs, Sidecar,
    Webhook, client, eventually, eventually_within, ports, tls,
};
pub use engine::{Engine, gateway};
pub use kubelet::Kubelet;
pub use loop_disk::LoopDisk;
pub use options::{Edge, OTHER_TOKEN, Options, TOKEN};
pub use pair::Pair;
pub use podman::Podman;
pub use stack::Stack;
pub use tcp_proxy::{TcpProxy, Traffic};

/// The obsolete signature of `x-hub-signature`, in hexadecimal.
pub fn hmac_sha1(secret: &str, body: &[u8]) -> String {
    let mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes());
    let mac = mac.expect("HMAC takes a key of any length").chain_update(body);
    hex::encode(mac.finalize().into_bytes())
}
