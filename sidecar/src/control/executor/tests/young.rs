//! Images that are refreshed, and the versions of the runners.

use super::*;
use crate::{
    config::PullPolicy,
    control::{clock, snapshot::RunnerVersionView},
    provider::Node,
};
use edgerunner_scheduler::model::UnixMs;

const ENDS: &str = "2026-12-08T00:00:00Z";
const ENDS_MS: UnixMs = 1_796_688_000_000;

/// A world whose default pool has these settings.
async fn world(docker: &str) -> World {
    let github = GitHub::default();
    let api_url = github.start().await;
    World::new(github, &api_url, &format!("[docker]\n{docker}\n"))
}

impl World {
    fn listed_as(&self, version: Option<&'static str>, ends: Option<&'static str>) {
        let mut github = self.github.0.lock().unwrap();
        (github.version, github.version_ends) = (version, ends);
    }

    /// A runner of the pool is online that was created at `created`. Returns whether GitHub was
    /// asked about it.
    async fn online(&self, created: UnixMs) -> bool {
        let target = TARGET.parse().unwrap();
        match self.executor.read_version("default", "edge-1", &target, created) {
            Some(read) => {
                read.await;
                true
            }
            None => false,
        }
    }

    fn version(&self) -> Option<RunnerVersionView> {
        self.executor.versions().remove("default")
    }

    fn provider_calls(&self, verb: &str) -> usize {
        self.provider.calls().iter().filter(|call| call.starts_with(verb)).count()
    }

    async fn launched(&mut self, runner: &str) {
        self.launch(runner);
        let event = self.outcome().await;
        assert!(matches!(event, Event::Launched { .. }), "{event:?}");
    }
}

fn known(version: &str, ends_ms: Option<UnixMs>) -> RunnerVersionView {
    RunnerVersionView { version: Some(version.to_owned()), ends_ms, problem: None }
}

#[tokio::test]
async fn github_is_asked_once_for_the_version_of_a_pools_runners_and_its_end() {
    let world = world("runner_image = \"acme/runner\"").await;
    world.listed_as(Some("2.335.0"), Some(ENDS));
    assert_eq!(world.version(), None);
    assert!(world.online(CREATED_AT).await);
    assert_eq!(world.version(), Some(known("2.335.0", Some(ENDS_MS))));
    assert!(!world.online(CREATED_AT).await);
    world.executor.clone().keep_young().await;
    assert_eq!(world.github.calls(), ["GET runners", "GET runners/deprecations/2.335.0"]);
}

#[tokio::test]
async fn what_github_does_not_say_is_unknown_and_holds_nothing_back() {
    let mut world = world("runner_image = \"acme/runner\"").await;
    world.listed_as(Some("2.300.0"), None);
    assert!(world.online(CREATED_AT).await);
    let version = world.version().unwrap();
    assert_eq!((version.version.as_deref(), version.ends_ms), (Some("2.300.0"), None));
    assert!(version.problem.unwrap().contains("does not know version 2.300.0"));
    world.launched("edge-2").await;

    let mut world = World::start().await;
    world.listed_as(Some("none of this world"), None);
    assert!(world.online(CREATED_AT).await);
    let version = world.version().unwrap();
    assert_eq!(version.version, None);
    assert!(version.problem.unwrap().contains("does not list the version"));
    world.launched("edge-2").await;

    let world = World::start().await;
    world.github.refuse(StatusCode::FORBIDDEN);
    assert!(world.online(CREATED_AT).await);
    assert!(world.version().unwrap().problem.unwrap().contains("403"));
}

#[tokio::test]
async fn a_version_that_github_does_not_list_is_read_from_the_runners_log() {
    let mut world = World::start().await;
    world.listed_as(None, Some(ENDS));
    world.launched("edge-1").await;
    world.provider.set_log("Current runner version: '2.334.0'\n");
    assert!(world.online(CREATED_AT).await);
    assert_eq!(world.version(), Some(known("2.334.0", Some(ENDS_MS))));
}

#[tokio::test]
async fn an_image_that_tells_its_version_is_believed_until_a_runner_is_online() {
    let image = "runner_image = \"acme/runner:2.334.0\"\n[runner]\nrepositories = [\"acme/app\"]";
    let world = world(image).await;
    world.listed_as(Some("2.335.0"), Some(ENDS));
    world.executor.clone().keep_young().await;
    assert_eq!(world.version(), Some(known("2.334.0", Some(ENDS_MS))));
    assert!(world.online(CREATED_AT).await);
    assert_eq!(world.version(), Some(known("2.335.0", Some(ENDS_MS))));
    world.executor.clone().keep_young().await;
    assert_eq!(world.version(), Some(known("2.335.0", Some(ENDS_MS))));
}

#[tokio::test]
async fn a_tag_is_asked_for_once_and_its_new_image_shows_in_the_next_runner() {
    let world = world("runner_image = \"acme/runner\"").await;
    world.listed_as(Some("2.334.0"), Some(ENDS));
    assert!(world.online(CREATED_AT).await);
    world.provider.move_tag("acme/runner");
    world.executor.clone().keep_young().await;
    world.executor.clone().keep_young().await;
    assert_eq!(world.provider.calls(), ["refresh acme/runner"]);
    world.listed_as(Some("2.335.0"), Some(ENDS));
    assert!(!world.online(CREATED_AT).await, "it has the old image");
    assert!(world.online(clock::now().wall + 1).await);
    assert_eq!(world.version(), Some(known("2.335.0", Some(ENDS_MS))));
}

#[tokio::test]
async fn digests_and_pools_that_never_pull_or_refresh_are_left_alone() {
    for docker in
        ["runner_image = \"acme/runner@sha256:0f\"", "pull_policy = \"never\"", "refresh_hours = 0"]
    {
        let mut world = world(docker).await;
        world.executor.clone().keep_young().await;
        if docker != "refresh_hours = 0" {
            world.executor.pull_at_next_launch("default", &Parameters::default());
        }
        world.launched("edge-1").await;
        assert_eq!(world.provider_calls("refresh"), 0, "{docker}");
    }
}

#[tokio::test]
async fn a_registry_that_does_not_answer_delays_no_launch_and_is_asked_again_within_an_hour() {
    let mut world = world("runner_image = \"acme/runner\"").await;
    world.provider.fail_next("refresh", ErrorKind::Image);
    world.executor.clone().keep_young().await;
    world.launched("edge-1").await;
    let hung = world.provider.hold_next("refresh");
    time::pause();
    time::advance(Duration::from_secs(3_600)).await;
    let refresh = tokio::spawn(world.executor.clone().keep_young());
    while world.provider_calls("refresh") < 2 {
        tokio::task::yield_now().await;
    }
    time::resume();
    world.launched("edge-2").await;
    hung.notify_one();
    refresh.await.unwrap();
}

#[tokio::test]
async fn after_a_runner_that_was_too_old_one_launch_pulls_even_if_that_fails() {
    let mut world = world("runner_image = \"acme/runner\"").await;
    world.executor.pull_at_next_launch("default", &Parameters::default());
    world.launched("edge-1").await;
    world.launched("edge-2").await;
    let calls = world.provider.calls();
    assert_eq!(
        calls,
        [
            "refresh acme/runner",
            "prepare acme/runner",
            "launch edge-1",
            "prepare acme/runner",
            "launch edge-2"
        ]
    );
    world.executor.pull_at_next_launch("default", &Parameters::default());
    world.provider.fail_next("refresh", ErrorKind::Image);
    world.launched("edge-3").await;
    assert_eq!(world.provider_calls("refresh"), 2);
}

#[tokio::test]
async fn where_nodes_pull_the_order_of_one_launch_tells_them_to() {
    let mut world = world("runner_image = \"acme/runner\"").await;
    world.provider.set_nodes(vec![Node::example("build-1")]);
    world.executor.pull_at_next_launch("default", &Parameters::default());
    for (runner, expected) in [("edge-1", PullPolicy::Always), ("edge-2", PullPolicy::Missing)] {
        world.launched(runner).await;
        assert_eq!(world.provider.order(runner).unwrap().images.pull_policy, expected);
    }
}
