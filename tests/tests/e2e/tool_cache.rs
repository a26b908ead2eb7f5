//! The tool cache of runners.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use bollard::query_parameters::{ListVolumesOptions, RemoveVolumeOptions};
use edgerunner_sandbox::{Conclusion, JobRequest};
use edgerunner_tests::{Options, Stack, eventually};
use tempfile::NamedTempFile;

use crate::documents::answer;

/// Says which job used the cache before, and leaves a tool as actions do.
const SCRIPT: &str = r#"
set -e
tool="$RUNNER_TOOL_CACHE/node"
before=none
if [ -e "$tool" ]; then read -r before <"$tool"; fi
echo "$GITHUB_RUN_ID" >"$tool"
echo "$RUNNER_TOOL_CACHE after $before"
"#;

fn options(script: &NamedTempFile) -> Result<Options> {
    std::fs::write(script.path(), SCRIPT)?;
    let settings = answer("tools_are_there_for_the_next_job_of_the_same_repository_alone", "toml")?;
    let script = script.path().display().to_string();
    Ok(Options::default().file(&settings).sidecar("DOCKER_JOB_STARTED_SCRIPT", &script))
}

fn job(repository: &str, seconds: f64) -> Result<JobRequest> {
    Ok(JobRequest {
        repository: repository.to_owned().try_into()?,
        seconds,
        ..JobRequest::default()
    })
}

/// The job's run, and the run of the job that used the cache before it.
async fn used(stack: &Stack, id: u64) -> Result<(u64, Option<u64>)> {
    let line = stack.log(id, 1).await?.remove(0);
    let before = line.strip_prefix("/opt/hostedtoolcache after ").context(line.clone())?;
    let job = stack.sandbox.job(id).context("no such job")?;
    Ok((job.run_id, before.parse().ok()))
}

async fn short(stack: &Stack, repository: &str) -> Result<(u64, Option<u64>)> {
    let job = stack.completed(stack.sandbox.queue_job(&job(repository, 0.1)?)).await?;
    ensure!(job.conclusion == Some(Conclusion::Success), "{job:?}");
    // Its runner is gone, and what records that it has the cache.
    stack.settled().await?;
    used(stack, job.id).await
}

async fn volumes(stack: &Stack, label: &str) -> Result<Vec<String>> {
    let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
    let options = ListVolumesOptions { filters: Some(filters) };
    let listed = stack.containers.docker().list_volumes(Some(options)).await?;
    let volumes = listed.volumes.unwrap_or_default().into_iter();
    let instance = stack.containers.instance();
    Ok(volumes.map(|it| it.name).filter(|name| name.contains(instance)).collect())
}

async fn remove_all(stack: &Stack) -> Result<()> {
    stack.settled().await?;
    for name in volumes(stack, "dev.edgerunner.tool-cache").await? {
        stack.containers.docker().remove_volume(&name, None::<RemoveVolumeOptions>).await?;
    }
    Ok(())
}

#[tokio::test]
async fn tools_are_there_for_the_next_job_of_the_same_repository_alone() -> Result<()> {
    let script = NamedTempFile::with_suffix(".sh")?;
    Stack::run(options(&script)?, async |stack| -> Result<()> {
        let (first, before) = short(stack, "acme/app").await?;
        assert_eq!(before, None);
        assert_eq!(short(stack, "acme/web").await?.1, None);
        let (second, before) = short(stack, "acme/app").await?;
        assert_eq!(before, Some(first));

        // Two at once have one each.
        let long = stack.sandbox.queue_job(&job("acme/app", 600.0)?);
        assert_eq!(used(stack, long).await?.1, Some(second));
        let (other, before) = {
            let id = stack.sandbox.queue_job(&job("acme/app", 600.0)?);
            let used = used(stack, id).await?;
            // A sweep of a new process takes nothing from those that run.
            stack.sidecar.kill().await?;
            stack.sidecar.start().await?;
            stack.busy(id).await?;
            stack.cancel(id).await?;
            used
        };
        assert_eq!(before, None);
        assert_eq!(volumes(stack, "dev.edgerunner.tool-cache").await?.len(), 3);
        stack.cancel(long).await?;
        stack.settled().await?;
        assert_eq!(volumes(stack, "dev.edgerunner.tool-cache-used").await?, [] as [&str; 0]);
        assert_ne!(other, second);
        remove_all(stack).await
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_tool_cache_that_is_too_large_is_removed() -> Result<()> {
    let script = NamedTempFile::with_suffix(".sh")?;
    let options = options(&script)?.sidecar("DOCKER_TOOL_CACHE_MAX_MIB", "1");
    let large = "i=0; while [ $i -lt 600 ]; do printf '%4096s' x; i=$((i + 1)); done";
    let fill = format!("{SCRIPT}\n({large}) >\"$RUNNER_TOOL_CACHE/large\"\n");
    std::fs::write(script.path(), fill)?;
    Stack::run(options, async |stack| -> Result<()> {
        short(stack, "acme/app").await?;
        assert_eq!(volumes(stack, "dev.edgerunner.tool-cache").await?.len(), 1);
        // It sweeps at its start.
        stack.sidecar.kill().await?;
        stack.sidecar.start().await?;
        eventually("the cache is removed", async || {
            Ok(volumes(stack, "dev.edgerunner.tool-cache").await?.is_empty().then_some(()))
        })
        .await
    })
    .await;
    Ok(())
}
