//! The long-lived tasks of `serve`: if one ends early, the process ends.

use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use futures_util::future::select_all;
use tokio::{
    task::{JoinError, JoinHandle},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Tasks that must not end before shutdown.
pub(crate) struct Supervisor {
    tasks: Vec<Task>,
    shutdown: CancellationToken,
}

struct Task {
    name: String,
    handle: JoinHandle<Result<()>>,
}

impl Supervisor {
    pub(crate) fn new(shutdown: CancellationToken) -> Self {
        Self { tasks: Vec::new(), shutdown }
    }

    /// Runs an endless task until `shutdown`.
    pub(crate) fn spawn_endless(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let shutdown = self.shutdown.clone();
        self.spawn(name, async move {
            shutdown.run_until_cancelled_owned(task).await;
            Ok(())
        });
    }

    /// Runs a task that handles `shutdown` itself.
    pub(crate) fn spawn(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        self.tasks.push(Task { name: name.into(), handle: tokio::spawn(task) });
    }

    /// Waits until the first task ends, and returns which one it was and why. A task that
    /// returns `Ok` has also ended early.
    pub(crate) async fn first_exit(&mut self) -> Error {
        if self.tasks.is_empty() {
            return std::future::pending().await;
        }
        let (end, index, _) = select_all(self.tasks.iter_mut().map(|it| &mut it.handle)).await;
        let Task { name, .. } = self.tasks.swap_remove(index);
        match end {
            Ok(Ok(())) => anyhow!("{name} ended unexpectedly"),
            Ok(Err(error)) => error.context(format!("{name} failed")),
            Err(error) => failed(&name, error),
        }
    }

    /// Waits until the task has ended, after shutdown was requested. One that takes longer than
    /// `limit` is aborted.
    pub(crate) async fn finish(&mut self, name: &str, limit: Duration) {
        let Some(index) = self.tasks.iter().position(|task| task.name == name) else { return };
        let Task { mut handle, .. } = self.tasks.swap_remove(index);
        match timeout(limit, &mut handle).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => error!(error = format!("{error:#}"), "{name} failed"),
            Ok(Err(error)) => error!(error = format!("{:#}", failed(name, error)), "shutdown"),
            Err(_) => handle.abort(),
        }
    }

    /// Aborts the tasks that are left.
    pub(crate) fn abort(self) {
        self.tasks.into_iter().for_each(|task| task.handle.abort());
    }

    #[cfg(test)]
    pub(crate) fn names(&self) -> Vec<String> {
        self.tasks.iter().map(|task| task.name.clone()).collect()
    }

    #[cfg(test)]
    pub(crate) fn kill(&self, name: &str) {
        let task = self.tasks.iter().find(|task| task.name == name).expect("no such task");
        task.handle.abort();
    }
}

fn failed(name: &str, error: JoinError) -> Error {
    match error.try_into_panic() {
        Ok(panic) => {
            let message = panic
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            anyhow!("{name} panicked: {message}")
        }
        Err(_) => anyhow!("{name} was aborted"),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    async fn first_exit(task: impl Future<Output = Result<()>> + Send + 'static) -> String {
        let mut supervisor = Supervisor::new(CancellationToken::new());
        supervisor.spawn("HTTP", pending());
        supervisor.spawn("the driver", task);
        let error = supervisor.first_exit().await;
        assert_eq!(supervisor.names(), ["HTTP"]);
        format!("{error:#}")
    }

    #[tokio::test]
    async fn a_task_that_ends_early_is_named_with_its_reason() {
        assert_eq!(first_exit(async { Ok(()) }).await, "the driver ended unexpectedly");
        let error = first_exit(async { Err(anyhow!("no sockets left")) }).await;
        assert_eq!(error, "the driver failed: no sockets left");
        let error = first_exit(async { panic!("index {} is out of range", 7) }).await;
        assert_eq!(error, "the driver panicked: index 7 is out of range");
        assert_eq!(first_exit(async { panic!("no") }).await, "the driver panicked: no");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_finish_in_time_is_aborted() {
        let mut supervisor = Supervisor::new(CancellationToken::new());
        supervisor.spawn("gRPC", pending());
        supervisor.finish("gRPC", Duration::from_secs(5)).await;
        supervisor.finish("unknown", Duration::from_secs(5)).await;
        assert!(supervisor.names().is_empty());
    }
}
