//! A Swarm of real Docker Engines.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use bollard::models::{
    ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicatedJob, TaskSpec, TaskSpecContainerSpec,
    TaskSpecPlacement, TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum, TaskState,
};
use bollard::query_parameters::ListTasksOptions;
use edgerunner_tests::tools::swarm_programs;
use edgerunner_tests::{Cluster, RUNNER_IMAGE, eventually};

/// A service that runs once, on this node.
fn job(node: &str) -> ServiceSpec {
    ServiceSpec {
        name: Some(format!("job-{node}")),
        mode: Some(ServiceSpecMode {
            replicated_job: Some(ServiceSpecModeReplicatedJob::default()),
            ..ServiceSpecMode::default()
        }),
        task_template: Some(TaskSpec {
            container_spec: Some(TaskSpecContainerSpec {
                image: Some(RUNNER_IMAGE.to_owned()),
                command: Some(["sh", "-c", "exit 0"].map(str::to_owned).into()),
                ..TaskSpecContainerSpec::default()
            }),
            placement: Some(TaskSpecPlacement {
                constraints: Some(vec![format!("node.hostname=={node}")]),
                ..TaskSpecPlacement::default()
            }),
            restart_policy: Some(TaskSpecRestartPolicy {
                condition: Some(TaskSpecRestartPolicyConditionEnum::NONE),
                ..TaskSpecRestartPolicy::default()
            }),
            ..TaskSpec::default()
        }),
        ..ServiceSpec::default()
    }
}

#[tokio::test]
async fn three_engines_form_a_swarm_and_each_runs_a_job() -> Result<()> {
    let cluster = Cluster::start(&swarm_programs()?, 1, 2, &[RUNNER_IMAGE]).await?;
    let docker = cluster.nodes[cluster.leader().await?].docker()?;
    for node in &cluster.nodes {
        docker.create_service(job(node.name()), None).await?;
    }
    eventually("each job is complete", async || {
        let tasks = docker.list_tasks(None::<ListTasksOptions>).await?;
        let complete = |state: Option<TaskState>| state == Some(TaskState::COMPLETE);
        let nodes: HashMap<_, _> = tasks
            .iter()
            .filter(|task| complete(task.status.as_ref().and_then(|status| status.state)))
            .map(|task| (task.node_id.as_deref(), &task.service_id))
            .collect();
        ensure!(nodes.len() == cluster.nodes.len(), "{tasks:?}");
        Ok(Some(()))
    })
    .await
}
