//! SIGHUP: reads the configuration again and replaces the pools.

use std::{future::pending, path::PathBuf};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
};
use tracing::{error, info, warn};

use crate::{
    config::{Config, ProviderName, RestartRequired},
    control::{
        command::{Command, CommandSender},
        sidecars::Sidecars,
    },
    store::{Cluster, Topic},
    telemetry::logging::List,
};

pub(crate) struct Reload {
    pub(crate) file: Option<PathBuf>,
    /// Settings that only a restart changes, as they were at the start.
    pub(crate) restart_required: RestartRequired,
    pub(crate) commands: CommandSender,
    /// The sidecars that share the store: a reload of one is a reload of all, each from its own
    /// file.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) sidecars: Sidecars,
}

impl Reload {
    /// Once called, SIGHUP no longer ends the process. The future never ends.
    pub(crate) fn on_hangup(self) -> Result<impl Future<Output = ()> + Send> {
        let mut hangup = signal(SignalKind::hangup()).context("no SIGHUP handler")?;
        Ok(async move {
            let mut announced = self.cluster.as_ref().map(|it| it.notifications(Topic::Reload));
            loop {
                let requested = async {
                    match &mut announced {
                        Some(announced) => announced.next().await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    hangup = hangup.recv() => {
                        if hangup.is_none() {
                            return;
                        }
                        if self.announce().await {
                            continue;
                        }
                    }
                    () = requested => {}
                }
                self.reload(|name| std::env::var(name).ok()).await;
            }
        })
    }

    /// Returns whether the sidecars that share the store are asked to reload, this one too.
    async fn announce(&self) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        match cluster.announce_reload().await {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, "SIGHUP: cannot notify the other sidecars: send SIGHUP to each of them");
                false
            }
        }
    }

    async fn reload(&self, env: impl Fn(&str) -> Option<String> + Send + 'static) {
        let file = self.file.clone();
        // Files may be on a disk that is slow or hangs.
        let load = move || Config::load_to_serve(file.as_deref(), &env);
        let config = match spawn_blocking(load).await {
            // The process ends.
            Err(_) => return,
            Ok(Ok(config)) => config,
            Ok(Err(errors)) => {
                let error = errors.to_string();
                error!(error, "SIGHUP: the configuration is invalid; the pools are unchanged");
                return;
            }
        };
        let changed = self.restart_required.changed(&config.restart_required);
        // The providers are those of the start, and in that order.
        let elsewhere = config.pools.iter().any(|pool| pool.provider != ProviderName::Docker);
        let providers = ["swarm", "kubernetes"];
        if elsewhere
            && let Some(section) = changed.iter().find(|it| providers.contains(&it.as_str()))
        {
            error!("SIGHUP: [{section}] has changed: restart the sidecar; the pools are unchanged");
            return;
        }
        if !changed.is_empty() {
            warn!(
                changed = %List(&changed),
                "SIGHUP: only pools are reloaded; restart the sidecar for these changes"
            );
        }
        let pools: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
        info!(pools = %List(&pools), "SIGHUP: pools reloaded");
        self.sidecars.reloaded(&config.fingerprints);
        // The driver is gone only when the process ends.
        let _ = self.commands.send(Command::SetPools(config.pools)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::command;

    /// The names of the pools that the driver is asked to take over.
    async fn reloaded(before: &str, after: &str) -> Option<Vec<String>> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("edgerunner.toml");
        std::fs::write(&file, before).unwrap();
        let store = directory.path().join("store.db").display().to_string();
        let env = move |name: &str| match name {
            "GITHUB_TOKEN" => Some("token".to_owned()),
            "STORE_PATH" => Some(store.clone()),
            _ => None,
        };
        let config = Config::load_to_serve(Some(&file), &env).unwrap();
        let (commands, mut receiver) = command::channel();
        let restart_required = config.restart_required;
        let (cluster, sidecars) = (None, Sidecars::default());
        let reload =
            Reload { file: Some(file.clone()), restart_required, commands, cluster, sidecars };
        std::fs::write(&file, after).unwrap();
        reload.reload(env).await;
        match receiver.try_recv().ok()? {
            Command::SetPools(pools) => Some(pools.into_iter().map(|pool| pool.name).collect()),
            _ => panic!("another command"),
        }
    }

    #[tokio::test]
    async fn the_pools_of_a_valid_configuration_are_taken_over() {
        let pools = "[[pools]]\nname = \"small\"\n[[pools]]\nname = \"large\"\n";
        let names = reloaded("[[pools]]\nname = \"small\"\n", pools).await;
        assert_eq!(names.unwrap(), ["small", "large"]);
    }

    #[tokio::test]
    async fn an_invalid_configuration_changes_nothing() {
        assert_eq!(reloaded("[[pools]]\nname = \"small\"\n", "[[pools]]\nmax = -1\n").await, None);
        assert_eq!(reloaded("", "not TOML").await, None);
    }

    #[tokio::test]
    async fn other_changes_wait_for_a_restart_and_the_pools_are_taken_over() {
        let names = reloaded("", "[server]\nhttp_address = \"127.0.0.1:9999\"\n").await;
        assert_eq!(names.unwrap(), ["default"]);
    }

    #[tokio::test]
    async fn a_configuration_that_comes_slowly_stops_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("edgerunner.toml");
        rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RWXU).unwrap();
        let (commands, mut receiver) = command::channel();
        let restart_required = Config::load(None, &|_| None).unwrap().restart_required;
        let (cluster, sidecars) = (None, Sidecars::default());
        let reload =
            Reload { file: Some(file.clone()), restart_required, commands, cluster, sidecars };
        let token = |name: &str| (name == "GITHUB_TOKEN").then(|| "token".to_owned());
        let reloading = tokio::spawn(async move { reload.reload(token).await });
        tokio::task::yield_now().await;
        // Would come too late if the reload kept this thread.
        std::fs::write(&file, "[[pools]]\nname = \"small\"\n").unwrap();
        reloading.await.unwrap();
        let Ok(Command::SetPools(pools)) = receiver.try_recv() else { panic!("no pools") };
        assert_eq!(pools[0].name, "small");
    }
}
