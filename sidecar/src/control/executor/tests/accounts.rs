//! What runners used.

use super::*;
use crate::{control::executor::usage::Sampling, provider::Usage};

#[tokio::test]
async fn what_runners_use_is_measured_until_they_are_gone() {
    let world = World::offline();
    world.provider.set_usage("edge-1", Usage { memory_bytes: 5, cpu_ns: 1 });
    let sampling =
        |runner: &str| Sampling { runner: runner.into(), pool: "default".into(), provider: 0 };
    let runners = vec![sampling("edge-1"), sampling("edge-2")];
    world.executor.clone().sample_usages(runners).await;
    let measured = Peak { memory_bytes: Some(5), cpu_millis: None };
    assert_eq!(world.executor.peak("edge-1"), measured);
    assert_eq!(world.executor.peak("edge-2"), Peak::default());
    world.executor.forget("edge-1");
    assert_eq!(world.executor.peak("edge-1"), Peak::default());
}
