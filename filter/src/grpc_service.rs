//! The part of `envoy.config.core.v3.GrpcService` that names a cluster.
//!
//! Envoy takes the upstream of a gRPC call for this message first and for the
//! name of a cluster second, and some plain names parse as the message. The
//! timeout goes with the call itself; the authority defaults to the cluster.

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
}

/// Longest cluster name whose message, lengths included, is ASCII: the SDK
/// takes it as text.
pub const MAX_CLUSTER_NAME: usize = 120;

/// The serialized message; `None` if the SDK could not carry it.
pub fn serialized(cluster_name: &str) -> Option<String> {
    let service =
        GrpcService { envoy_grpc: Some(EnvoyGrpc { cluster_name: cluster_name.to_owned() }) };
    String::from_utf8(service.encode_to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_what_envoy_reads() {
        assert_eq!(serialized("sidecar").as_deref(), Some("\x0a\x09\x0a\x07sidecar"));
    }

    #[test]
    fn the_longest_name_still_fits() {
        assert!(serialized(&"x".repeat(MAX_CLUSTER_NAME)).is_some());
    }
}
