//! A proxy for the Docker Engine's socket, which a test can close without affecting other
//! tests.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const ENGINE: &str = "/var/run/docker.sock";

pub struct DockerProxy {
    path: PathBuf,
    closed: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl DockerProxy {
    /// For this Engine; for the machine's own without a host.
    pub(crate) fn start(directory: &Path, host: Option<&String>) -> Result<Self> {
        let engine = match host.cloned().or(std::env::var("DOCKER_HOST").ok()) {
            Some(host) => host.strip_prefix("unix://").map(PathBuf::from).with_context(|| {
                format!("DOCKER_HOST={host}: this test needs an Engine on a unix socket")
            })?,
            None => PathBuf::from(ENGINE),
        };
        let path = directory.join("docker.sock");
        let listener = UnixListener::bind(&path)?;
        let (closed, is_closed) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (engine, is_closed) = (engine.clone(), is_closed.clone());
                tokio::spawn(async move {
                    // On any error the client's connection ends.
                    let _ = pass(client, &engine, is_closed).await;
                });
            }
        });
        Ok(Self { path, closed, accepting })
    }

    /// The value for `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Leaves requests unanswered from now on.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Closes the connections of requests that were left unanswered; the Engine never gets
    /// them.
    pub fn reopen(&self) {
        self.closed.send_replace(false);
    }
}

impl Drop for DockerProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(
    client: UnixStream,
    engine: &Path,
    mut is_closed: watch::Receiver<bool>,
) -> Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_engine, mut to_engine) = UnixStream::connect(engine).await?.into_split();
    let requests = async {
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            buffer.clear();
            if from_client.read_buf(&mut buffer).await? == 0 {
                return anyhow::Ok(());
            }
            if *is_closed.borrow() {
                is_closed.wait_for(|closed| !closed).await?;
                return Ok(());
            }
            to_engine.write_all(&buffer).await?;
        }
    };
    let answers = async {
        copy(&mut from_engine, &mut to_client).await?;
        anyhow::Ok(())
    };
    tokio::select! {
        done = requests => done,
        done = answers => done,
    }
}
