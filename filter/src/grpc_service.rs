//! The part of `envoy.config.core.v3.GrpcService` that names a cluster.
//!
//! Envoy takes the upstream of a gRPC call for this message first and for the
//! name of a cluster second, and some plain names parse as the message. The
//! timeout goes with the call itself. The authority would default to the cluster's name,
//! which need not be one: gateways call clusters `outbound|50051||HOST` or
//! `httproute/NAMESPACE/NAME/rule/0`, and the sidecar's HTTP library refuses such.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct GrpcService {
    #[prost(message, optional, tag = "1")]
    envoy_grpc: Option<EnvoyGrpc>,
}

#[derive(Clone, PartialEq, Message)]
struct EnvoyGrpc {
    #[prost(string, tag = "1")]
    cluster_name: String,
    #[prost(string, tag = "2")]
    authority: String,
}

/// What sidecars are called in their certificates as well.
const AUTHORITY: &str = "edgerunner";

/// Longest cluster name whose message, lengths included, is ASCII: the SDK
/// takes it as text.
pub const MAX_CLUSTER_NAME: usize = 113;

/// The serialized message; `None` if the SDK could not carry it.
pub fn serialized(cluster_name: &str) -> Option<String> {
    let envoy_grpc =
        EnvoyGrpc { cluster_name: cluster_name.to_owned(), authority: AUTHORITY.to_owned() };
    let service = GrpcService { envoy_grpc: Some(envoy_grpc) };
    String::from_utf8(service.encode_to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_what_envoy_reads() {
        let message = "\x0a\x15\x0a\x07sidecar\x12\x0aedgerunner";
        assert_eq!(serialized("sidecar").as_deref(), Some(message));
    }

    #[test]
    fn the_longest_name_still_fits() {
        assert!(serialized(&"x".repeat(MAX_CLUSTER_NAME)).is_some());
        assert!(serialized(&"x".repeat(MAX_CLUSTER_NAME + 1)).is_none());
    }
}
