//! The gRPC contract between filter and sidecar, generated from
//! `proto/edgerunner/v1/intake.proto`.

/// Messages, and with the features `client` and `server` the service.
#[allow(clippy::all, unreachable_pub, unused_qualifications, missing_docs)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/edgerunner.v1.rs"));
}

/// Maximum size of an encoded [`v1::JobEvent`], in bytes; GitHub's are far smaller. The filter
/// sends nothing larger: a message that exceeds the sidecar's limit would end the stream, and
/// with it every delivery that waits for a reply.
pub const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Version of the contract, to be raised whenever a filter and a sidecar of different releases
/// would misunderstand each other. The filter sends it with every call; the sidecar accepts no
/// other.
pub const CONTRACT_VERSION: &str = "1";
/// Key of the gRPC metadata that carries [`CONTRACT_VERSION`].
pub const CONTRACT_METADATA: &str = "edgerunner-contract";

/// Identifies the build: the commit, in releases.
pub const BUILD: &str = match option_env!("EDGERUNNER_BUILD") {
    Some(build) => build,
    None => "local build",
};

/// The compiled contract, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/edgerunner.bin"));
