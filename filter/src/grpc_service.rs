//! `envoy.config.core.v3.GrpcService`, reduced to the cluster and its authority.
//!
//! Envoy accepts either this message or a plain cluster name as the target of a gRPC call,
//! and tries the message first. Some plain names happen to parse as the message, so the filter
//! always sends the message.
//!
//! The authority would default to the cluster's name. Gateways use names such as
//! `outbound|50051||HOST` and `httproute/NAMESPACE/NAME/rule/0`, which are not valid
//! authorities, and the sidecar would reject the call.

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

/// Also the name in sidecars' certificates.
const AUTHORITY: &str = "edgerunner";

/// Longest cluster name, in bytes, with which the message is ASCII, lengths included: the SDK
/// takes the message as a string.
pub(crate) const MAX_CLUSTER_NAME: usize = 113;

/// The encoded message; `None` if it is not valid UTF-8.
pub(crate) fn serialized(cluster_name: &str) -> Option<String> {
    let envoy_grpc =
        EnvoyGrpc { cluster_name: cluster_name.to_owned(), authority: AUTHORITY.to_owned() };
    let service = GrpcService { envoy_grpc: Some(envoy_grpc) };
    String::from_utf8(service.encode_to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_encoded_as_envoy_reads_it() {
        let message = "\x0a\x15\x0a\x07sidecar\x12\x0aedgerunner";
        assert_eq!(serialized("sidecar").as_deref(), Some(message));
    }

    #[test]
    fn the_longest_name_still_fits() {
        assert!(serialized(&"x".repeat(MAX_CLUSTER_NAME)).is_some());
        assert!(serialized(&"x".repeat(MAX_CLUSTER_NAME + 1)).is_none());
    }
}
