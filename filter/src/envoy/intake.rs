//! The sidecar's gRPC service, `edgerunner.v1.Intake`, as Envoy calls it.

use edgerunner_proto::{CONTRACT_METADATA, CONTRACT_VERSION};
use prost::Message;
use proxy_wasm::{hostcalls, types::Status};

use crate::config::Sidecar;

const SERVICE: &str = "edgerunner.v1.Intake";

/// Starts a unary call. The reply goes to the effective context.
pub(super) fn call(
    sidecar: &Sidecar,
    method: &str,
    metadata: &[(&str, &[u8])],
    message: &impl Message,
) -> Result<u32, Status> {
    let mut initial_metadata = vec![(CONTRACT_METADATA, CONTRACT_VERSION.as_bytes())];
    initial_metadata.extend_from_slice(metadata);
    hostcalls::dispatch_grpc_call(
        &sidecar.grpc_service,
        SERVICE,
        method,
        initial_metadata,
        Some(&message.encode_to_vec()),
        sidecar.timeout,
    )
}

/// Opens a stream, which belongs to the effective context.
pub(super) fn open_stream(grpc_service: &str, method: &str) -> Result<u32, Status> {
    let initial_metadata = vec![(CONTRACT_METADATA, CONTRACT_VERSION.as_bytes())];
    hostcalls::open_grpc_stream(grpc_service, SERVICE, method, initial_metadata)
}
