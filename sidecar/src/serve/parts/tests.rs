//! Every part of `serve` is killed once.

use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;

const PARTS: [&str; 9] = [
    "the driver",
    "runner recovery",
    "missed webhooks (github)",
    "missed webhooks",
    "reload",
    "store check",
    "metrics",
    "gRPC",
    "HTTP",
];

async fn started(directory: &tempfile::TempDir) -> Parts {
    let path = directory.path().join("edgerunner.db").display().to_string();
    let socket = directory.path().join("grpc.sock").display().to_string();
    let config = Config::load_to_serve(None, &|name| match name {
        // Nothing listens there.
        "DOCKER_HOST" => Some("tcp://127.0.0.1:9".to_owned()),
        "GITHUB_API_URL" => Some("http://127.0.0.1:9".to_owned()),
        "GITHUB_TOKEN" => Some("token".to_owned()),
        "STORE_PATH" => Some(path.clone()),
        "SERVER_GRPC_ADDRESS" => Some(format!("unix:{socket}")),
        "SERVER_HTTP_ADDRESS" => Some("127.0.0.1:0".to_owned()),
        _ => None,
    });
    let config = config.unwrap();
    let (store, _) = Store::open(&config.store.path, config.default_host(), |_| {}).unwrap();
    let prometheus = PrometheusBuilder::new().build_recorder().handle();
    Parts::start(config, None, store, prometheus).await.unwrap()
}

#[tokio::test]
async fn a_part_that_ends_early_ends_the_process_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(started(&directory).await.supervisor.names(), PARTS);
    for part in PARTS {
        let directory = tempfile::tempdir().unwrap();
        let mut parts = started(&directory).await;
        parts.supervisor.kill(part);
        let error = parts.supervisor.first_exit().await;
        assert_eq!(error.to_string(), format!("{part} was aborted"));
        parts.stop().await;
    }
}

#[tokio::test]
async fn the_parts_stop_on_request() {
    let directory = tempfile::tempdir().unwrap();
    let parts = started(&directory).await;
    let shutdown = parts.shutdown.clone();
    parts.stop().await;
    assert!(shutdown.is_cancelled());
}
