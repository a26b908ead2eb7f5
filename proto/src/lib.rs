//! Types generated from `proto/edgerunner/v1/intake.proto`.

/// Version 1 of the contract.
#[allow(clippy::all, unreachable_pub, unused_qualifications, missing_docs)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/edgerunner.v1.rs"));
}

/// The compiled contract, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/edgerunner.bin"));
