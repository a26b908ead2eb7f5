//! What machines have for runners, and space on their disks.

use super::*;
use crate::{
    provider::{Capacity, PulledImage},
    store::ImageRecord,
};
use edgerunner_scheduler::plan::Disk;

fn free(mib: u64) -> Capacity {
    Capacity { free_disk_mib: Some(mib), ..Capacity::default() }
}

fn pulled(id: &str, name: &str) -> PulledImage {
    PulledImage { engine: "e1".into(), id: id.into(), name: name.into() }
}

async fn disk(world: &mut World) -> Disk {
    let Event::Machine { provider: 0, machine } = world.event().await else { panic!("no machine") };
    machine.disk.unwrap()
}

#[tokio::test]
async fn what_a_machine_has_is_known_before_anything_is_launched() {
    let mut world = World::offline();
    world.provider.set_capacity(free(5_000));
    world.executor.recover(0, Vec::new()).await;
    assert_eq!(disk(&mut world).await, Disk { free_mib: 5_000, reserve_mib: 1_024 });
    assert!(matches!(world.event().await, Event::Recovered { provider: 0 }));
    // What is known stays while the provider is away.
    world.provider.set_away(true);
    world.executor.clone().keep_machines().await;
    world.no_event();
}

#[tokio::test]
async fn images_that_no_pool_names_go_while_the_disk_is_nearly_full() {
    let mut world = World::offline();
    let named = world.executor.pools()[0].container.runner_image.clone();
    for image in [pulled("sha256:01", "old"), pulled("sha256:02", &named)] {
        world.provider.add_pulled(image);
    }
    world.executor.clone().pull_images().await;
    let prepared = world.provider.calls();
    world.provider.set_capacity(free(1_024));
    world.executor.clone().keep_machines().await;
    assert_eq!(disk(&mut world).await.free_mib, 1_024);
    assert_eq!(world.provider.calls(), prepared);
    let recorded = async || -> Vec<String> {
        world.store.images().await.unwrap().into_iter().map(|image| image.id).collect()
    };
    assert_eq!(recorded().await, ["sha256:01", "sha256:02"]);

    world.provider.set_capacity(free(1_023));
    world.executor.clone().keep_machines().await;
    assert_eq!(recorded().await, ["sha256:02"]);
    assert_eq!(world.provider.calls()[prepared.len()..], ["make_space"]);
    assert_eq!(disk(&mut world).await.free_mib, 1_023);
    assert_eq!(disk(&mut world).await.free_mib, u64::MAX);
    world.no_event();
}

#[tokio::test]
async fn a_failure_to_make_space_is_tried_again() {
    let mut world = World::offline();
    let image = ImageRecord {
        engine: "e1".into(),
        id: "sha256:01".into(),
        name: "old".into(),
        pulled_at: CREATED_AT,
    };
    world.store.save_image(image).await.unwrap();
    world.provider.set_capacity(free(0));
    world.provider.fail_next("make_space", ErrorKind::Unavailable);
    world.executor.clone().keep_machines().await;
    assert_eq!(world.store.images().await.unwrap().len(), 1);
    world.executor.clone().keep_machines().await;
    assert_eq!(world.store.images().await.unwrap(), []);
    assert!(disk(&mut world).await.is_short() && disk(&mut world).await.is_short());
}
