//! The images.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
};
use edgerunner_tests::{Programs, eventually};
use futures_util::TryStreamExt as _;

const FILTER: &str = "edgerunner-filter:local";
const SIDECAR: &str = "edgerunner:local";
/// The Engine's socket, mounted into the sidecar's container.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// A container of an image, which is always removed.
async fn with_container<T>(
    body: ContainerCreateBody,
    test: impl AsyncFnOnce(&Docker, &str) -> Result<T>,
) -> Result<T> {
    let docker = Docker::connect_with_defaults()?;
    let id = docker.create_container(None, body).await?.id;
    let tested = test(&docker, &id).await;
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    docker.remove_container(&id, Some(options)).await?;
    tested
}

#[tokio::test]
async fn the_filters_image_has_it_where_istio_and_envoy_gateway_look() -> Result<()> {
    let body = ContainerCreateBody {
        image: Some(FILTER.to_owned()),
        // It is not started.
        cmd: Some(vec!["none".to_owned()]),
        ..Default::default()
    };
    let archive = with_container(body, async |docker, id| {
        let options = DownloadFromContainerOptionsBuilder::default().path("/plugin.wasm").build();
        let parts: Vec<_> = docker.download_from_container(id, Some(options)).try_collect().await?;
        Ok(parts.concat())
    })
    .await?;
    let mut archive = tar::Archive::new(&*archive);
    let mut module = Vec::new();
    archive.entries()?.next().context("nothing there")??.read_to_end(&mut module)?;
    assert!(module == fs::read(Programs::from_environment()?.module)?);
    Ok(())
}

/// Without CA certificates it would not start, since GitHub is reached over TLS.
#[tokio::test]
async fn the_sidecars_image_needs_nothing_to_talk_to_github() -> Result<()> {
    let variables =
        ["GITHUB_TOKEN=none", "SCHEDULER_INSTANCE=e2e-image", "DOCKER_PULL_POLICY=never"];
    let body = ContainerCreateBody {
        image: Some(SIDECAR.to_owned()),
        env: Some(variables.map(str::to_owned).to_vec()),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            binds: Some(vec![format!("{DOCKER_SOCKET}:{DOCKER_SOCKET}")]),
            group_add: Some(vec![fs::metadata(DOCKER_SOCKET)?.gid().to_string()]),
            readonly_rootfs: Some(true),
            tmpfs: Some([("/var/lib/edgerunner".to_owned(), "uid=65532".to_owned())].into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    with_container(body, async |docker, id| {
        docker.start_container(id, None).await?;
        eventually("it serves", async || {
            let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
            let log: Vec<_> = docker.logs(id, Some(options)).try_collect().await?;
            let log: String = log.iter().map(ToString::to_string).collect();
            anyhow::ensure!(log.contains("serving"), "{log}");
            Ok(Some(()))
        })
        .await
    })
    .await
}
