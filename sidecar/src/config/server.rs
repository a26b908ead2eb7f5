//! The section `[server]`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::{ListenAddress, TlsFiles};

/// The addresses the sidecar listens on, and who may use them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Server {
    /// Address of the gRPC service that the filter calls: an address and port, or
    /// `unix:/PATH` for a Unix socket, which members of its group can use.
    #[schemars(
        with = "String",
        extend("x-write" = "an address and port such as 127.0.0.1:50051, or unix:/PATH")
    )]
    pub grpc_address: ListenAddress,
    /// Certificate of the gRPC service, a PEM file with the whole chain. Mutual TLS needs
    /// this, `grpc_key_file` and `grpc_client_ca_file`. All three are read again for each
    /// connection.
    #[schemars(extend("x-write" = "a file path"))]
    pub grpc_certificate_file: Option<PathBuf>,
    /// Private key of the certificate, a PEM file.
    #[schemars(extend("x-write" = "a file path"))]
    pub grpc_key_file: Option<PathBuf>,
    /// CA certificates that sign the certificates of allowed clients, a PEM file.
    #[schemars(extend("x-write" = "a file path"))]
    pub grpc_client_ca_file: Option<PathBuf>,
    /// Address and port of the status page, metrics, health checks and API.
    #[schemars(extend("x-write" = "an address and port such as 127.0.0.1:8081"))]
    pub http_address: SocketAddr,
    /// Host names, without a port, by which a proxy in front of `http_address` or `sign_in_address`
    /// is reached. If the sidecar listens on a loopback address, it refuses other names, so that
    /// no page of another site can read it through somebody's browser.
    #[schemars(extend("x-write" = "a list of host names such as [\"runners.example.com\"]"))]
    pub trusted_names: Vec<String>,
    /// Address of the status page and API for an Envoy that signs people in, as
    /// `envoy/sign-in.yaml` does: `unix:/PATH`, or an address and port with mutual TLS. The
    /// sidecar believes who a request here is from, and whether they may change something, so let
    /// nothing but that Envoy reach it. Needs `trusted_names`.
    #[schemars(
        with = "Option<String>",
        extend("x-write" = "unix:/PATH, or an address and port such as 10.0.0.2:8444")
    )]
    pub sign_in_address: Option<ListenAddress>,
    /// Certificate for `sign_in_address`, a PEM file with the whole chain. An address and port
    /// needs this, `sign_in_key_file` and `sign_in_client_ca_file`. All three are read again for
    /// each connection.
    #[schemars(extend("x-write" = "a file path"))]
    pub sign_in_certificate_file: Option<PathBuf>,
    /// Private key of the certificate, a PEM file.
    #[schemars(extend("x-write" = "a file path"))]
    pub sign_in_key_file: Option<PathBuf>,
    /// CA certificates that sign the certificate of the Envoy, a PEM file. Use a CA that signs
    /// nothing else: whoever has a certificate of it can act as anyone.
    #[schemars(extend("x-write" = "a file path"))]
    pub sign_in_client_ca_file: Option<PathBuf>,
    /// Bearer token for API calls that change something, such as those of `edgerunner
    /// drain` and `resume`. Without a token, such calls are refused.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub api_token: Option<SecretString>,
    /// File that contains the API token.
    #[schemars(extend("x-write" = "a file path"))]
    pub api_token_file: Option<PathBuf>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            grpc_address: ListenAddress::Tcp((Ipv4Addr::LOCALHOST, 50051).into()),
            grpc_certificate_file: None,
            grpc_key_file: None,
            grpc_client_ca_file: None,
            http_address: (Ipv4Addr::LOCALHOST, 8081).into(),
            trusted_names: Vec::new(),
            sign_in_address: None,
            sign_in_certificate_file: None,
            sign_in_key_file: None,
            sign_in_client_ca_file: None,
            api_token: None,
            api_token_file: None,
        }
    }
}

impl Server {
    /// `None` if mutual TLS is not configured.
    pub(crate) fn grpc_tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            setting: "grpc",
            certificate: self.grpc_certificate_file.clone()?,
            key: self.grpc_key_file.clone()?,
            client_ca: self.grpc_client_ca_file.clone()?,
        })
    }

    /// `None` if the address for sign-in has no mutual TLS.
    pub(crate) fn sign_in_tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            setting: "sign_in",
            certificate: self.sign_in_certificate_file.clone()?,
            key: self.sign_in_key_file.clone()?,
            client_ca: self.sign_in_client_ca_file.clone()?,
        })
    }
}
