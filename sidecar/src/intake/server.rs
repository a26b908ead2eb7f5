//! The gRPC server: intake, health and reflection.

use anyhow::Result;
use edgerunner_proto::{EVENT_BYTES_MAX, FILE_DESCRIPTOR_SET, v1::intake_server::IntakeServer};
use tokio_util::sync::CancellationToken;
use tonic::{service::interceptor::InterceptedService, transport::Server};
use tracing::error;

use crate::{
    intake::grpc::{self, Submissions},
    listen::Listener,
};

/// An event and its metadata.
const MESSAGE_BYTES_MAX: usize = EVENT_BYTES_MAX + 64 * 1024;

/// Serves until `closing`, then reports NOT_SERVING and answers what is in progress.
pub(crate) async fn serve(
    listener: Listener,
    submissions: Submissions,
    closing: CancellationToken,
) -> Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<IntakeServer<Submissions>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let reflection = match reflection {
        Ok(reflection) => Some(reflection),
        Err(error) => {
            error!(%error, "gRPC reflection is not available");
            None
        }
    };
    let intake = IntakeServer::new(submissions).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let router = Server::builder()
        .add_service(health_service)
        .add_optional_service(reflection)
        .add_service(InterceptedService::new(intake, grpc::check_contract_version));
    let closed = async move {
        closing.cancelled().await;
        // Envoy's health check then sends new events elsewhere; without another sidecar, the
        // filter holds them.
        health.set_not_serving::<IntakeServer<Submissions>>().await;
    };
    match listener {
        Listener::Tcp(connections) => {
            router.serve_with_incoming_shutdown(connections, closed).await?;
        }
        Listener::Tls(connections) => {
            router.serve_with_incoming_shutdown(connections, closed).await?;
        }
        Listener::Unix(connections) => {
            router.serve_with_incoming_shutdown(connections, closed).await?;
        }
    }
    Ok(())
}
