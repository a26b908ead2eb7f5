//! Hosts that containers of a job's own Docker Engine may connect to, on an Engine that manages the
//! packet filter of its machine.

use anyhow::{Result, ensure};
use edgerunner_tests::tools::{dind_image, egress_image, hostile_image, swarm_programs};
use edgerunner_tests::{Cluster, Stack, eventually};

use crate::egress::{Outside, closed_ways, denials, end, options, tried};

#[tokio::test]
async fn containers_of_a_jobs_own_engine_take_the_way_of_their_pool() -> Result<()> {
    let dind = dind_image()?;
    let (egress, hostile) = (egress_image()?, hostile_image()?);
    let images = [&*dind, &egress, &hostile];
    let cluster = Cluster::start(&swarm_programs()?, 1, 0, &images).await?;
    let outside = Outside::start().await?;
    let options = options(&outside, "enforce")?
        .sidecar("DOCKER_COMMAND", "/usr/bin/bash,/inner_ways_out.sh")
        .sidecar("DOCKER_DOCKER", "dind")
        .sidecar("DOCKER_DIND_IMAGE", &dind)
        .node(&cluster.nodes[0], &cluster.swarm());
    let instance = Stack::run(options, async |stack| -> Result<String> {
        let id = stack.queue(600.0);
        let log = tried(stack).await?;
        ensure!(closed_ways(&log) == 7, "{log}");
        eventually("what the containers tried is counted", async || {
            let denials = denials(stack).await?;
            let counted = |host: &str| denials.contains_key(&(host.into(), "host".into()));
            ensure!(counted("forbidden.test:443") && counted("forbidden.test"), "{denials:?}");
            Ok(Some(()))
        })
        .await?;
        end(stack, id).await
    })
    .await;
    outside.end(&instance).await
}
