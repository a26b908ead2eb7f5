//! The sidecar's gRPC service, `edgerunner.v1.Intake`, as Envoy calls it.

use std::rc::Rc;

use edgerunner_proto::{CONTRACT_METADATA, CONTRACT_VERSION};
use prost::Message;
use proxy_wasm::{hostcalls, types::Status};

use super::ticker::Ticker;
use crate::{config::Sidecar, submit_stream::Host};

const SERVICE: &str = "edgerunner.v1.Intake";

/// Starts a unary call. The reply goes to the effective context.
pub(super) fn call(sidecar: &Sidecar, method: &str, message: &impl Message) -> Result<u32, Status> {
    hostcalls::dispatch_grpc_call(
        &sidecar.grpc_service,
        SERVICE,
        method,
        vec![(CONTRACT_METADATA, CONTRACT_VERSION.as_bytes())],
        Some(&message.encode_to_vec()),
        sidecar.timeout,
    )
}

/// Where the stream of submissions runs: in the root context, since the streams of a request's
/// context would end with the request.
pub(super) struct StreamHost {
    root_context: u32,
    grpc_service: String,
    ticker: Rc<Ticker>,
}

impl StreamHost {
    pub(super) fn new(root_context: u32, sidecar: &Sidecar, ticker: Rc<Ticker>) -> Self {
        Self { root_context, grpc_service: sidecar.grpc_service.clone(), ticker }
    }
}

/// The calls may change the effective context.
impl Host for StreamHost {
    fn open(&self) -> Option<u32> {
        let initial_metadata = vec![(CONTRACT_METADATA, CONTRACT_VERSION.as_bytes())];
        hostcalls::open_grpc_stream(&self.grpc_service, SERVICE, "SubmitStream", initial_metadata)
            .ok()
    }

    fn send(&self, stream: u32, message: &[u8]) -> bool {
        hostcalls::set_effective_context(self.root_context)
            .and_then(|()| hostcalls::send_grpc_stream_message(stream, Some(message), false))
            .is_ok()
    }

    fn cancel(&self, stream: u32) {
        let in_root = hostcalls::set_effective_context(self.root_context);
        let _ = in_root.and_then(|()| hostcalls::cancel_grpc_stream(stream));
    }

    fn tick_soon(&self) {
        if hostcalls::set_effective_context(self.root_context).is_ok() {
            self.ticker.soon();
        }
    }
}
