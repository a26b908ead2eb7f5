//! Removal of leftovers of runners, and of nothing else.

use std::collections::HashMap;

use anyhow::Result;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, InspectNetworkOptions, RemoveContainerOptions,
    RemoveVolumeOptions,
};
use edgerunner_tests::{Options, RUNNER_IMAGE, Stack, eventually};

/// A container, a network and a volume of the same name.
struct Leftovers {
    docker: Docker,
    name: String,
}

impl Leftovers {
    async fn create(docker: &Docker, name: String, labels: &[(&str, &str)]) -> Result<Self> {
        let labels: HashMap<String, String> =
            labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let volume = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(labels.clone()),
            ..Default::default()
        };
        docker.create_volume(volume).await?;
        let network = NetworkCreateRequest {
            name: name.clone(),
            labels: Some(labels.clone()),
            ..Default::default()
        };
        docker.create_network(network).await?;
        let options = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
        let body = ContainerCreateBody {
            image: Some(RUNNER_IMAGE.to_owned()),
            labels: Some(labels),
            ..Default::default()
        };
        docker.create_container(Some(options), body).await?;
        Ok(Self { docker: docker.clone(), name })
    }

    /// Whether each exists.
    async fn exist(&self) -> Result<[bool; 3]> {
        let (docker, name) = (&self.docker, &self.name);
        Ok([
            exists(docker.inspect_container(name, None::<InspectContainerOptions>).await)?,
            exists(docker.inspect_network(name, None::<InspectNetworkOptions>).await)?,
            exists(docker.inspect_volume(name).await)?,
        ])
    }

    async fn remove(self) -> Result<()> {
        let (docker, name) = (&self.docker, &self.name);
        let force = RemoveContainerOptions { force: true, ..Default::default() };
        docker.remove_container(name, Some(force)).await?;
        docker.remove_network(name).await?;
        docker.remove_volume(name, None::<RemoveVolumeOptions>).await?;
        Ok(())
    }
}

fn exists<T>(inspected: Result<T, Error>) -> Result<bool> {
    match inspected {
        Ok(_) => Ok(true),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test]
async fn only_leftovers_of_our_runners_are_removed_at_startup() {
    leftovers(Options::default()).await;
}

pub(crate) async fn leftovers(options: Options) {
    Stack::run(options, async |stack| -> Result<()> {
        let (docker, instance) = (stack.containers.docker(), stack.containers.instance());
        let runner = ("dev.edgerunner.runner", "default-1");
        let role = ("dev.edgerunner.role", "dind");
        let ours = [("dev.edgerunner.instance", instance), runner, role];
        // Not ours, although the name is similar.
        let other = format!("{instance}-2");
        let others = [("dev.edgerunner.instance", other.as_str()), runner, role];
        let id = uuid::Uuid::new_v4().simple().to_string();
        let ours = Leftovers::create(docker, format!("swept-{id}"), &ours).await?;
        let others = Leftovers::create(docker, format!("others-{id}"), &others).await?;
        let foreign = Leftovers::create(docker, format!("foreign-{id}"), &[runner, role]).await?;
        stack.sidecar.kill().await?;
        stack.sidecar.start().await?;
        let swept = eventually("our leftovers are gone", async || {
            Ok((ours.exist().await? == [false; 3]).then_some(()))
        })
        .await;
        let kept = [others.exist().await?, foreign.exist().await?];
        others.remove().await?;
        foreign.remove().await?;
        assert_eq!(kept, [[true; 3]; 2]);
        swept
    })
    .await;
}
