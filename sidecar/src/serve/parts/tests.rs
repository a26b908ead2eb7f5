//! Every part of `serve` is killed once.

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{sync::oneshot, time};

use super::*;
use crate::{
    control::command::{Answer, Command, CommandError},
    store::Term,
};

const PARTS: [&str; 10] = [
    "the driver",
    "runner recovery",
    "egress",
    "missed webhooks (github)",
    "missed webhooks",
    "reload",
    "store check",
    "metrics",
    "gRPC",
    "HTTP",
];

/// `store`: the variable and the value of its location.
async fn start_with(directory: &tempfile::TempDir, store: (&str, &str)) -> Parts {
    let socket = directory.path().join("grpc.sock").display().to_string();
    let config = Config::load_to_serve(None, &|name| match name {
        // Nothing listens there.
        "DOCKER_HOST" => Some("tcp://127.0.0.1:9".to_owned()),
        "GITHUB_API_URL" => Some("http://127.0.0.1:9".to_owned()),
        "GITHUB_TOKEN" => Some("token".to_owned()),
        "SERVER_GRPC_ADDRESS" => Some(format!("unix:{socket}")),
        "SERVER_HTTP_ADDRESS" => Some("127.0.0.1:0".to_owned()),
        _ => (name == store.0).then(|| store.1.to_owned()),
    });
    let config = config.unwrap();
    let (store, _) = match &config.database {
        Some(database) => Store::connect(database, |_| {}).await.unwrap(),
        None => Store::open(&config.store.path, config.default_host(), |_| {}).unwrap(),
    };
    let prometheus = PrometheusBuilder::new().build_recorder().handle();
    Parts::start(config, None, store, prometheus).await.unwrap()
}

async fn started(directory: &tempfile::TempDir) -> Parts {
    let path = directory.path().join("edgerunner.db").display().to_string();
    start_with(directory, ("STORE_PATH", &path)).await
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

/// A sidecar of several, and the directory of its socket.
struct Sidecar {
    parts: Parts,
    _directory: tempfile::TempDir,
}

impl Sidecar {
    async fn start(url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { parts: start_with(&directory, ("STORE_URL", url)).await, _directory: directory }
    }

    fn cluster(&self) -> &Cluster {
        self.parts.cluster.as_ref().unwrap()
    }

    /// Waits until it holds the lease, and returns the term.
    async fn plans(&self) -> i64 {
        let holds = async {
            loop {
                let record = self.cluster().lease_record().await.unwrap();
                if record.holder.as_deref() == Some(self.cluster().id()) {
                    return record.term.0;
                }
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        time::timeout(Duration::from_secs(20), holds).await.expect("it plans")
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, CommandError> {
        let (reply, response) = oneshot::channel();
        assert!(self.parts.commands.send(command(reply)).await.is_ok());
        response.await.unwrap()
    }
}

fn database() -> String {
    let server = edgerunner_testkit::Postgres::shared();
    server.url(&server.database().unwrap())
}

#[tokio::test]
async fn one_of_two_sidecars_plans_and_hands_that_over_when_it_stops() {
    let url = database();
    let first = Sidecar::start(&url).await;
    assert_eq!(first.plans().await, 1);
    let second = Sidecar::start(&url).await;
    // Whoever is asked.
    let (pool, draining) = (None, true);
    second.ask(|reply| Command::Drain { pool, draining, reply }).await.unwrap();
    assert!(first.ask(Command::GetSnapshot).await.unwrap().draining);
    let unknown =
        second.ask(|reply| Command::RemoveRunner { runner: "edge-1".into(), force: false, reply });
    assert!(matches!(unknown.await, Err(CommandError::NoSuchRunner)));

    first.parts.stop().await;
    assert_eq!(second.plans().await, 2);
    assert!(second.ask(Command::GetSnapshot).await.unwrap().draining);
    let names: Vec<String> =
        second.cluster().members().await.unwrap().into_iter().map(|it| it.id).collect();
    assert_eq!(names, [second.cluster().id()]);
    second.parts.stop().await;
}

#[tokio::test]
async fn a_sidecar_whose_lease_was_taken_stands_by_and_plans_again_later() {
    let url = database();
    let first = Sidecar::start(&url).await;
    first.plans().await;
    let second = Sidecar::start(&url).await;
    // The first one does not know it yet.
    first.cluster().release_lease(Term(1)).await.unwrap();
    assert_eq!(second.plans().await, 2);
    // It has noticed that, and asks the other one.
    let answered = async {
        while first.ask(Command::GetSnapshot).await.is_err() {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(Duration::from_secs(20), answered).await.expect("an answer");
    second.parts.stop().await;
    assert_eq!(first.plans().await, 3);
    first.parts.stop().await;
}
