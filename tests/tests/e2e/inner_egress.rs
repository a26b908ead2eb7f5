//! Hosts that containers of a job's own Docker Engine may connect to, on an Engine that manages the
//! packet filter of its machine.

use anyhow::{Result, ensure};
use edgerunner_tests::tools::{dind_image, egress_image, hostile_image, swarm_programs};
use edgerunner_tests::{Cluster, Stack, eventually};

use crate::egress::{Outside, closed_ways, denials, end, options, tried};

const WAYS: [&str; 10] = [
    "inner-connect-forbidden",
    "inner-http-forbidden",
    "inner-private",
    "inner-direct",
    "inner-direct-metadata",
    "inner-no-variables",
    "inner-udp-resolver",
    "inner-dns",
    "inner-host-network",
    "engine-pull",
];
/// What reaches the pool's Envoy.
const COUNTED: [(&str, &str); 3] =
    [("forbidden.test:443", "host"), ("forbidden.test", "host"), ("private.test:443", "address")];

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
        assert_eq!(closed_ways(&log), WAYS.into());
        eventually("what the containers tried is counted", async || {
            let denials = denials(stack).await?;
            let missing = COUNTED
                .iter()
                .find(|(host, reason)| !denials.contains_key(&((*host).into(), (*reason).into())));
            ensure!(missing.is_none(), "{missing:?}: {denials:?}");
            Ok(Some(()))
        })
        .await?;
        end(stack, id).await
    })
    .await;
    outside.end(&instance).await
}
