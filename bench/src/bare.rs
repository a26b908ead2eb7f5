//! Runners that are started through the Docker API alone, for comparison.

use std::collections::HashMap;

use anyhow::Result;
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use edgerunner_testkit::Deployment;
use edgerunner_testkit::programs::{RUNNER_CREDENTIALS, RUNNER_IMAGE};
use serde_json::json;

/// The label of these containers.
pub(crate) const LABEL: &str = "dev.edgerunner.bench=bare";
/// The runners' label. No pool has it.
pub(crate) const RUNNER_LABEL: &str = "bare";

/// Registers a runner, starts its container, and returns the container's id.
pub(crate) async fn start(
    deployment: &Deployment,
    docker: &Docker,
    token: &str,
    name: &str,
) -> Result<String> {
    let runner = json!({ "name": name, "runner_group_id": 1, "labels": [RUNNER_LABEL] });
    let credentials = deployment.sandbox().register(token, &runner).await?;
    let (label, value) = LABEL.split_once('=').unwrap_or_default();
    let body = ContainerCreateBody {
        image: Some(RUNNER_IMAGE.to_owned()),
        env: Some(vec![format!("{RUNNER_CREDENTIALS}={credentials}")]),
        labels: Some(HashMap::from([(label.to_owned(), value.to_owned())])),
        host_config: Some(HostConfig {
            network_mode: Some("host".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let id = docker.create_container(None::<CreateContainerOptions>, body).await?.id;
    let started = docker.start_container(&id, None::<StartContainerOptions>).await;
    if started.is_err() {
        remove(docker, &id).await?;
    }
    started?;
    Ok(id)
}

pub(crate) async fn remove(docker: &Docker, id: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    Ok(docker.remove_container(id, Some(options)).await?)
}
