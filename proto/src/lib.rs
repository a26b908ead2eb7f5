//! Types generated from `proto/edgerunner/v1/intake.proto`.

/// Version 1 of the contract.
#[allow(clippy::all, unreachable_pub, unused_qualifications, missing_docs)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/edgerunner.v1.rs"));
}

/// What a [`v1::JobEvent`] may take, which is far more than GitHub's. The filter
/// sends nothing larger, since a message that the sidecar cannot read ends the
/// stream and every delivery on it.
pub const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Raised whenever a filter and a sidecar of different versions would misunderstand each
/// other. The filter tells it with every call, and the sidecar takes no other.
pub const CONTRACT: &str = "1";
/// The metadata it is told in.
pub const CONTRACT_METADATA: &str = "edgerunner-contract";

/// Which build this is: the release workflow sets it to the commit.
pub const BUILD: &str = match option_env!("EDGERUNNER_BUILD") {
    Some(build) => build,
    None => "local build",
};

/// The compiled contract, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/edgerunner.bin"));
