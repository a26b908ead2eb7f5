//! Runners as pods: the sidecar with an API server in memory, and runners that a stand-in for the
//! kubelet runs.

use anyhow::{Context as _, Result, ensure};
use edgerunner_testkit::control_plane::kubeconfig;
use edgerunner_testkit::kubernetes::{ApiServer, NAMESPACE};
use edgerunner_tests::{Authority, Kubelet, Options, Stack, eventually};
use tempfile::TempDir;

const CLUSTER_TOKEN: &str = "cluster-token-sesame";

/// Ends once nothing but the owner is left in the cluster.
async fn with_cluster(test: impl AsyncFnOnce(&mut Stack, &ApiServer) -> Result<()>) -> Result<()> {
    let authority = Authority::new()?;
    let api = ApiServer::new();
    let address = api.serve(&authority.issue("127.0.0.1")?, CLUSTER_TOKEN).await;
    let directory = TempDir::new()?;
    let file = directory.path().join("kubeconfig");
    let text = kubeconfig(address, &authority.certificate, CLUSTER_TOKEN, NAMESPACE);
    std::fs::write(&file, text)?;
    let _kubelet = Kubelet::start(&api);
    let options = Options::default()
        .sidecar("KUBERNETES_KUBECONFIG", &file.display().to_string())
        .sidecar("RUNNER_PROVIDER", "kubernetes")
        // Of the containers of other tests.
        .sidecar("DOCKER_NETWORK", "");
    Stack::run(options, async |stack| -> Result<()> {
        test(stack, &api).await?;
        stack.settled().await?;
        eventually("nothing is left in the cluster", async || {
            let left = [api.names("pods"), api.names("secrets")].concat();
            ensure!(left.is_empty(), "{left:?}");
            Ok(Some(()))
        })
        .await?;
        ensure!(!stack.sidecar.log()?.contains(CLUSTER_TOKEN), "the log has the cluster's token");
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_job_runs_in_a_pod_and_nothing_is_left() -> Result<()> {
    with_cluster(async |stack, api| {
        let id = stack.queue(0.1);
        stack.completed(id).await?;
        let owner = api.names("configmaps");
        ensure!(owner.len() == 1 && owner[0].ends_with("-runners"), "{owner:?}");
        let doctor = stack.sidecar.run(&["doctor"]).await?;
        let printed = String::from_utf8_lossy(&doctor.stdout).into_owned();
        ensure!(printed.contains("v1.37.0, namespace runners"), "{printed}");
        ensure!(printed.contains("may create pods"), "{printed}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn no_job_is_lost_while_the_sidecar_is_killed_again_and_again() -> Result<()> {
    with_cluster(async |stack, _| {
        for _ in 0..5 {
            let jobs: Vec<u64> = (0..4).map(|_| stack.queue(0.2)).collect();
            stack.sidecar.kill().await?;
            stack.sidecar.start().await?;
            for job in jobs {
                stack.completed(job).await?;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_busy_runner_is_adopted_from_its_pod() -> Result<()> {
    with_cluster(async |stack, api| {
        let id = stack.at_work().await?;
        let pod = api.names("pods").pop().context("no pod")?;
        eventually("the pod is kept", async || {
            let annotations = &api.get("pods", &pod).context("no pod")?["metadata"]["annotations"];
            Ok((annotations["karpenter.sh/do-not-disrupt"] == "true").then_some(()))
        })
        .await?;
        stack.sidecar.kill().await?;
        stack.sidecar.start().await?;
        stack.busy(id).await?;
        ensure!(api.names("pods") == [pod], "another pod");
        stack.cancel(id).await
    })
    .await
}

#[tokio::test]
async fn a_pod_that_is_deleted_in_mid_job_ends_its_runner_and_no_other() -> Result<()> {
    with_cluster(async |stack, api| {
        let id = stack.at_work().await?;
        let pod = api.names("pods").pop().context("no pod")?;
        api.remove(&pod);
        stack.completed(id).await?;
        let next = stack.queue(0.1);
        stack.completed(next).await?;
        Ok(())
    })
    .await
}
