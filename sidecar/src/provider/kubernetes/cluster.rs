//! The connection to a cluster's API server.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{
    Api, Client,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep, timeout_at},
};

use super::error::{error, from_kube, no_answer};
use crate::{
    config::KubernetesConfig,
    provider::{
        docker::connection::innermost,
        error::{Error, ErrorKind},
    },
};

/// For one call with all of its attempts.
const CALL_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Attempts that get no answer, in about six seconds.
const UNANSWERED_MAX: u32 = 6;

/// The API server, and how to reach it. It may be away.
pub(super) struct Cluster {
    config: KubernetesConfig,
    connected: OnceCell<Connected>,
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) client: Client,
    /// Of the runners.
    pub(super) namespace: String,
}

impl Connected {
    pub(super) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(super) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(super) fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

impl Cluster {
    pub(super) fn new(config: &KubernetesConfig) -> Self {
        Self { config: config.clone(), connected: OnceCell::new() }
    }

    #[cfg(test)]
    pub(super) fn of(client: Client, namespace: &str) -> Self {
        let connected = Connected { client, namespace: namespace.to_owned() };
        Self { config: KubernetesConfig::default(), connected: OnceCell::new_with(Some(connected)) }
    }

    /// Reads the credentials if that has not been done.
    pub(super) async fn connected(&self) -> Result<&Connected, Error> {
        self.connected.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Connected, Error> {
        const CALL: &str = "connect";
        let refused = |cause: &(dyn std::error::Error + 'static)| {
            error(ErrorKind::Unavailable, CALL, innermost(cause))
        };
        let mut config = match self.config.kubeconfig.clone() {
            Some(file) => {
                let read = tokio::task::spawn_blocking(move || Kubeconfig::read_from(file)).await;
                let kubeconfig = read.map_err(|it| refused(&it))?.map_err(|it| refused(&it))?;
                let context = self.config.context.clone();
                let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
                let read = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
                read.map_err(|it| refused(&it))?
            }
            None => kube::Config::incluster().map_err(|cause| {
                let what = format_args!(
                    "this is no pod with a service account ({}): set kubernetes.kubeconfig, or \
                     automountServiceAccountToken of the sidecar's pod",
                    innermost(&cause)
                );
                error(ErrorKind::Unavailable, CALL, what)
            })?,
        };
        config.connect_timeout = Some(CONNECT_LIMIT);
        // `call` repeats requests.
        config.default_retry = false;
        let namespace =
            self.config.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let builder = ClientBuilder::try_from(config).map_err(|it| refused(&it))?;
        Ok(Connected { client: builder.build(), namespace })
    }

    /// Makes a request, again and again while the API server is busy or away. The request may have
    /// been carried out before. Bounded in time.
    pub(super) async fn call<T, F>(
        &self,
        call: &str,
        request: impl Fn(Connected) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let deadline = Instant::now() + CALL_LIMIT;
        let connected = self.connected().await?;
        let mut pause = FIRST_PAUSE;
        let mut unanswered = 0;
        loop {
            let Ok(result) = timeout_at(deadline, request(connected.clone())).await else {
                return Err(no_answer(call));
            };
            let cause = match result {
                Ok(done) => return Ok(done),
                Err(cause) => cause,
            };
            let asked = match Unready::of(&cause) {
                Some(Unready::Busy(asked)) => asked,
                Some(Unready::Away) => {
                    unanswered += 1;
                    Duration::ZERO
                }
                None => return Err(from_kube(call, &cause)),
            };
            let until = Instant::now() + pause.max(asked);
            if until >= deadline || unanswered == UNANSWERED_MAX {
                return Err(from_kube(call, &cause));
            }
            sleep(until.duration_since(Instant::now())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Why a request may succeed later.
enum Unready {
    /// For how long the API server asks to wait.
    Busy(Duration),
    Away,
}

impl Unready {
    fn of(cause: &kube::Error) -> Option<Self> {
        match cause {
            kube::Error::Api(status) => matches!(status.code, 429 | 502..=504).then(|| {
                let asked = status.details.as_ref().map_or(0, |it| it.retry_after_seconds);
                Self::Busy(Duration::from_secs(asked.into()))
            }),
            kube::Error::HyperError(_) | kube::Error::Service(_) => Some(Self::Away),
            _ => None,
        }
    }
}
