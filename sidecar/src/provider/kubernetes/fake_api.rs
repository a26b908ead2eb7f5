//! A client of an API server in memory.

use axum::body::Body;
pub(super) use edgerunner_testkit::kubernetes::{ApiServer, Fault, NAMESPACE};
use http::Request;
use kube::Client;
use tower::service_fn;

/// Without a network between them, so that a test can do without real time.
pub(super) fn client(api: &ApiServer) -> Client {
    let api = api.clone();
    let service = service_fn(move |request: Request<kube::client::Body>| {
        let (api, request) = (api.clone(), request.map(Body::new));
        async move { api.respond(request).await }
    });
    Client::new(service, NAMESPACE)
}
