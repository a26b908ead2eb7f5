//! Tool caches: volumes in which a job finds the tools that earlier jobs have installed.
//!
//! Actions replace a tool that they believe to be incomplete, and no lock keeps another job from
//! using it meanwhile. So a cache belongs to one runner at a time. Docker itself records to which
//! one, by a second, empty volume: of all who create it, one finds its own labels on it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bollard::{
    errors::Error as Bollard,
    models::{Mount, MountType, MountVolumeOptions, VolumeCreateRequest},
    query_parameters::{ListVolumesOptions, RemoveVolumeOptions},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::Instant;
use tracing::info;

use super::{CALL_LIMIT, Docker, error, from_bollard, leftovers::Swept, within};
use crate::provider::{
    error::{Error, ErrorKind},
    labels::{self, Labels},
    order::{Order, TOOL_CACHE_DIRECTORY},
};

/// The name of the cache that a runner has: on the volume that records it.
const USED: &str = "dev.edgerunner.tool-cache-used";
/// The name of a cache that is too large: on a volume that keeps runners from using it.
const FULL: &str = "dev.edgerunner.tool-cache-full";
/// In milliseconds since 1970.
const EXPIRES: &str = "dev.edgerunner.expires";
const MAX_MIB: &str = "dev.edgerunner.max-mib";
/// In place of the target of a cache that all repositories of its pool share.
const ANY_TARGET: &str = "*";

/// Between two measurements: Docker reads the whole directory of every volume for each.
const MEASURE_EVERY: Duration = Duration::from_secs(1_800);
const MIB: u64 = 1 << 20;
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// When volumes were measured last.
#[derive(Debug, Default)]
pub(super) struct Measurements(Mutex<Option<Instant>>);

impl Measurements {
    fn begins(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = last.is_none_or(|last| last.elapsed() >= MEASURE_EVERY);
        if begins {
            *last = Some(Instant::now());
        }
        begins
    }
}

/// A volume, with its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToolCache {
    name: String,
    labels: HashMap<String, String>,
}

impl ToolCache {
    /// Docker creates the volume with its labels if it does not exist.
    pub(super) fn mount(&self) -> Mount {
        Mount {
            typ: Some(MountType::VOLUME),
            source: Some(self.name.clone()),
            target: Some(TOOL_CACHE_DIRECTORY.to_owned()),
            volume_options: Some(MountVolumeOptions {
                labels: Some(self.labels.clone()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn number(&self, label: &str) -> Option<u64> {
        self.labels.get(label)?.parse().ok()
    }

    fn has_expired(&self, now_ms: u64) -> bool {
        self.number(EXPIRES).is_none_or(|at| at <= now_ms)
    }

    fn used_marker(&self) -> String {
        format!("{}-used", self.name)
    }

    fn full_marker(&self) -> String {
        format!("{}-full", self.name)
    }
}

fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default()
}

impl Docker {
    /// A cache that no other runner has, for as long as this runner's volumes exist. A second call
    /// returns the same one.
    pub(super) async fn tool_cache(&self, order: &Order) -> Result<Option<ToolCache>, Error> {
        let Some(settings) = &order.tool_cache else { return Ok(None) };
        let runner = &order.labels;
        let target = match settings.across_repositories {
            true => ANY_TARGET,
            false => &*runner.target,
        };
        let mut own: Vec<(&str, &str)> = vec![
            (labels::TOOL_CACHE, &*self.instance),
            (labels::POOL, &*runner.pool),
            (labels::HOST, &*runner.host),
            (labels::TARGET, target),
        ];
        let wanted = own.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let (used, found) = tokio::try_join!(self.used_caches(), self.volumes(wanted))?;
        let age = DAY.checked_mul(settings.days.try_into().unwrap_or(i32::MAX)).unwrap_or(DAY);
        let (expires, max_mib) =
            ((Timestamp::now() + age).as_millisecond().to_string(), settings.max_mib.to_string());
        own.extend([(EXPIRES, &*expires), (MAX_MIB, &*max_mib)]);
        let new = |name: String| ToolCache {
            name,
            labels: own.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        };
        let (full, mut caches): (Vec<ToolCache>, Vec<ToolCache>) =
            found.into_iter().partition(|volume| volume.labels.contains_key(FULL));
        let full: HashSet<&String> = full.iter().filter_map(|it| it.labels.get(FULL)).collect();
        if let Some((name, _)) = used.iter().find(|(_, user)| **user == runner.runner) {
            let known = caches.iter().find(|cache| cache.name == *name).cloned();
            return Ok(Some(known.unwrap_or_else(|| new(name.clone()))));
        }
        let now = now_ms();
        caches.retain(|it| {
            !it.has_expired(now) && !full.contains(&it.name) && !used.contains_key(&it.name)
        });
        // The oldest first: few are filled if few are needed at a time.
        caches.sort_unstable_by_key(|cache| (cache.number(EXPIRES), cache.name.clone()));
        for cache in caches {
            if self.use_cache(&cache, runner).await? {
                return Ok(Some(cache));
            }
        }
        let cache = new(format!("{}-tools", runner.runner));
        match self.use_cache(&cache, runner).await? {
            true => Ok(Some(cache)),
            false => {
                let what = "another runner has the volume with this runner's name";
                Err(error(ErrorKind::Refused, "create a tool cache", what))
            }
        }
    }

    /// Whether the runner has it now, and not another one.
    async fn use_cache(&self, cache: &ToolCache, runner: &Labels) -> Result<bool, Error> {
        let mut map = runner.to_map();
        map.insert(USED.to_owned(), cache.name.clone());
        let found = self.create_volume(cache.used_marker(), map).await?;
        Ok(found.get(labels::RUNNER) == Some(&runner.runner))
    }

    /// By the names of the caches, the runners that have them.
    async fn used_caches(&self) -> Result<HashMap<String, String>, Error> {
        let own = format!("{}={}", labels::INSTANCE, self.instance);
        let used = self.volumes(vec![own, USED.to_owned()]).await?;
        let pairs = used.into_iter().filter_map(|mut marker| {
            Some((marker.labels.remove(USED)?, marker.labels.remove(labels::RUNNER)?))
        });
        Ok(pairs.collect())
    }

    /// Returns the labels of the volume, which are others if it existed.
    async fn create_volume(
        &self,
        name: String,
        labels: HashMap<String, String>,
    ) -> Result<HashMap<String, String>, Error> {
        let call = format!("create volume {name}");
        let volume =
            VolumeCreateRequest { name: Some(name), labels: Some(labels), ..Default::default() };
        let created = self.bollard.create_volume(volume);
        let created = within(CALL_LIMIT, &call, async {
            created.await.map_err(|error| from_bollard(&call, &error))
        });
        Ok(created.await?.labels)
    }

    /// Those with all these labels, each as `NAME=VALUE`, or `NAME` with any value.
    async fn volumes(&self, labels: Vec<String>) -> Result<Vec<ToolCache>, Error> {
        let call = "list volumes";
        let filters = [("label".to_owned(), labels)].into();
        let listed = self.bollard.list_volumes(Some(ListVolumesOptions { filters: Some(filters) }));
        let listed = within(CALL_LIMIT, call, async {
            listed.await.map_err(|error| from_bollard(call, &error))
        });
        let volumes = listed.await?.volumes.unwrap_or_default().into_iter();
        Ok(volumes.map(|it| ToolCache { name: it.name, labels: it.labels }).collect())
    }

    /// Removes caches that are too old or too large and that no runner has. One that a runner has
    /// is given to no other one.
    pub(super) async fn prune_tool_caches(&self, swept: &mut Swept) {
        let own = format!("{}={}", labels::TOOL_CACHE, self.instance);
        let mut found = match self.volumes(vec![own]).await {
            Ok(found) => found,
            Err(error) => return swept.failed.push(error),
        };
        // Nothing else is ever removed, whatever Docker answers.
        found.retain(|it| {
            it.labels.get(labels::TOOL_CACHE).is_some_and(|it| **it == *self.instance)
        });
        if found.is_empty() {
            return;
        }
        // After the caches: one that is new by now is not in the list.
        let used = match self.used_caches().await {
            Ok(used) => used,
            Err(error) => return swept.failed.push(error),
        };
        let sizes = match self.volume_sizes().await {
            Ok(sizes) => sizes,
            Err(error) => {
                swept.failed.push(error);
                HashMap::new()
            }
        };
        let (markers, caches): (Vec<ToolCache>, Vec<ToolCache>) =
            found.into_iter().partition(|volume| volume.labels.contains_key(FULL));
        let full: HashSet<&String> = markers.iter().filter_map(|it| it.labels.get(FULL)).collect();
        let now = now_ms();
        for cache in &caches {
            let size_mib = sizes.get(&cache.name).map(|bytes| bytes / MIB);
            let is_full = full.contains(&cache.name);
            let too_large = is_full || size_mib > Some(cache.number(MAX_MIB).unwrap_or(u64::MAX));
            let why = match (too_large, cache.has_expired(now)) {
                (true, _) => "too large",
                (false, true) => "too old",
                (false, false) => continue,
            };
            if !used.contains_key(&cache.name) {
                info!(volume = cache.name, size_mib, why, "removing a tool cache");
                self.remove_volume(&cache.name, swept).await;
            } else if too_large && !is_full {
                info!(volume = cache.name, size_mib, why, "no other runner gets a tool cache");
                let mut labels = cache.labels.clone();
                labels.insert(FULL.to_owned(), cache.name.clone());
                let created = self.create_volume(cache.full_marker(), labels).await;
                swept.failed.extend(created.err());
            }
        }
        for marker in &markers {
            let marked = marker.labels.get(FULL);
            if !caches.iter().any(|cache| Some(&cache.name) == marked) {
                self.remove_volume(&marker.name, swept).await;
            }
        }
    }

    /// Names of the caches that no runner has, those that expire first at the beginning.
    pub(super) async fn unused_tool_caches(&self) -> Result<Vec<String>, Error> {
        let own = format!("{}={}", labels::TOOL_CACHE, self.instance);
        let mut found = self.volumes(vec![own]).await?;
        found.retain(|it| {
            it.labels.get(labels::TOOL_CACHE).is_some_and(|it| **it == *self.instance)
                && !it.labels.contains_key(FULL)
        });
        // After the caches: one that is new by now is not in the list.
        let used = self.used_caches().await?;
        found.retain(|cache| !used.contains_key(&cache.name));
        found.sort_unstable_by_key(|cache| (cache.number(EXPIRES), cache.name.clone()));
        Ok(found.into_iter().map(|cache| cache.name).collect())
    }

    /// In bytes, by name. Empty if they were measured a short time ago.
    async fn volume_sizes(&self) -> Result<HashMap<String, u64>, Error> {
        if !self.measurements.begins() {
            return Ok(HashMap::new());
        }
        let call = "measure volumes";
        // Docker Engine 29 has the list in another place, and only if asked.
        let query = [("type", "volume"), ("verbose", "true")];
        let usage = self.connection.get("/system/df", &query);
        let usage: Value = within(CALL_LIMIT, call, async {
            usage.await.map_err(|error| from_bollard(call, &error))
        })
        .await?;
        let lists = [&usage["Volumes"], &usage["VolumeUsage"]["Items"]];
        let volumes = lists.into_iter().filter_map(Value::as_array).flatten();
        let size = |volume: &Value| {
            // -1: not known.
            Some((volume["Name"].as_str()?.to_owned(), volume["UsageData"]["Size"].as_u64()?))
        };
        Ok(volumes.filter_map(size).collect())
    }

    /// One that is in use after all stays.
    pub(super) async fn remove_volume(&self, name: &str, swept: &mut Swept) {
        match self.bollard.remove_volume(name, None::<RemoveVolumeOptions>).await {
            Ok(()) | Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => {
                swept.add(Ok(()));
            }
            Err(Bollard::DockerResponseServerError { status_code: 409, .. }) => {}
            Err(error) => swept.add(Err(from_bollard(&format!("remove volume {name}"), &error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use axum::{
        Json, Router,
        extract::{Path, Query},
        routing::{delete, get, post},
    };
    use http::StatusCode;
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        config::{Container, EngineAddress, ToolCache as Setting},
        provider::docker::fake_engine,
    };

    /// An Engine with volumes alone, and their sizes in MiB.
    #[derive(Clone, Default)]
    struct Volumes {
        labels: Arc<Mutex<BTreeMap<String, HashMap<String, String>>>>,
        sizes: Arc<Mutex<HashMap<String, u64>>>,
    }

    impl Volumes {
        async fn engine(&self) -> Docker {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let authority = listener.local_addr().unwrap().to_string();
            let (listed, created, removed, used) =
                (self.clone(), self.clone(), self.clone(), self.clone());
            let list = async move |Query(query): Query<HashMap<String, String>>| {
                let filters: Value = serde_json::from_str(&query["filters"]).unwrap();
                let wanted = |labels: &HashMap<String, String>| {
                    filters["label"].as_array().unwrap().iter().all(|label| {
                        match label.as_str().unwrap().split_once('=') {
                            Some((name, value)) => labels.get(name).is_some_and(|it| it == value),
                            None => labels.contains_key(label.as_str().unwrap()),
                        }
                    })
                };
                let labels = listed.labels.lock().unwrap();
                let found = labels.iter().filter(|(_, labels)| wanted(labels));
                let volumes: Vec<Value> = found.map(|(name, it)| volume(name, it)).collect();
                Json(json!({ "Volumes": volumes }))
            };
            let create = async move |Json(body): Json<Value>| {
                let name = body["Name"].as_str().unwrap();
                let labels = serde_json::from_value(body["Labels"].clone()).unwrap();
                let mut all = created.labels.lock().unwrap();
                // Of one that exists, Docker keeps the labels.
                Json(volume(name, all.entry(name.to_owned()).or_insert(labels)))
            };
            let remove = async move |Path(name): Path<String>| {
                removed.labels.lock().unwrap().remove(&name).unwrap();
                StatusCode::NO_CONTENT
            };
            let usage = async move || {
                let sizes = used.sizes.lock().unwrap();
                let volumes: Vec<Value> = sizes
                    .iter()
                    .map(|(name, mib)| json!({ "Name": name, "UsageData": { "Size": mib * MIB } }))
                    .collect();
                Json(json!({ "Volumes": volumes }))
            };
            let router = Router::new()
                .route("/volumes", get(list))
                .route("/volumes/create", post(create))
                .route("/volumes/{name}", delete(remove))
                .route("/system/df", get(usage));
            tokio::spawn(axum::serve(listener, router).into_future());
            Docker::connect(&EngineAddress::Tcp { authority, tls: None }, "edge")
        }

        /// What Docker does when it creates a container with the cache.
        fn mounted(&self, cache: &ToolCache) {
            self.labels.lock().unwrap().insert(cache.name.clone(), cache.labels.clone());
        }

        /// What the removal of a runner removes.
        fn runner_removed(&self, runner: &str) {
            let of_runner = |map: &HashMap<String, String>| {
                map.get(labels::RUNNER).is_some_and(|it| it == runner)
            };
            self.labels.lock().unwrap().retain(|_, map| !of_runner(map));
        }

        fn names(&self) -> Vec<String> {
            self.labels.lock().unwrap().keys().cloned().collect()
        }

        fn set(&self, name: &str, label: &str, value: &str) {
            let mut labels = self.labels.lock().unwrap();
            labels.get_mut(name).unwrap().insert(label.into(), value.into());
        }
    }

    fn volume(name: &str, labels: &HashMap<String, String>) -> Value {
        json!({
            "Name": name, "Labels": labels, "Driver": "local", "Mountpoint": "/", "Scope": "local",
            "Options": {},
        })
    }

    fn order(runner: &str, target: &str, tool_cache: Setting) -> Order {
        let container = Container { tool_cache, tool_cache_max_mib: 10, ..Container::default() };
        let mut order = fake_engine::order(container);
        order.labels.runner = runner.into();
        order.labels.target = target.into();
        order
    }

    /// The cache that a runner of `repo:acme/app` gets.
    async fn cache(docker: &Docker, volumes: &Volumes, runner: &str) -> ToolCache {
        let order = order(runner, "repo:acme/app", Setting::Repository);
        let cache = docker.tool_cache(&order).await.unwrap().unwrap();
        volumes.mounted(&cache);
        cache
    }

    async fn pruned(docker: &Docker) -> usize {
        let mut swept = Swept::default();
        docker.prune_tool_caches(&mut swept).await;
        assert!(swept.failed.is_empty(), "{:?}", swept.failed);
        swept.removed
    }

    #[tokio::test]
    async fn a_cache_is_handed_on_and_no_two_runners_have_it_at_once() {
        let volumes = Volumes::default();
        let docker = volumes.engine().await;
        let first = cache(&docker, &volumes, "a").await;
        assert_eq!(first, cache(&docker, &volumes, "a").await);
        let second = cache(&docker, &volumes, "b").await;
        assert_ne!(first.name, second.name);
        volumes.runner_removed("a");
        assert_eq!(cache(&docker, &volumes, "c").await, first);
        let mount = first.mount();
        assert_eq!(mount.target.as_deref(), Some("/opt/hostedtoolcache"));
        assert_eq!(mount.volume_options.unwrap().labels.unwrap(), first.labels);
        // The caches stay, and what records who has them goes with the runners.
        volumes.runner_removed("b");
        volumes.runner_removed("c");
        assert_eq!(volumes.names(), ["a-tools", "b-tools"]);
    }

    /// Other processes launch runners on a node of a Docker Swarm.
    #[tokio::test]
    async fn of_launches_at_the_same_time_each_gets_another_cache() {
        let volumes = Volumes::default();
        for runner in ["a", "b", "c"] {
            let docker = volumes.engine().await;
            cache(&docker, &volumes, runner).await;
        }
        for runner in ["a", "b", "c"] {
            volumes.runner_removed(runner);
        }
        let engines = [volumes.engine().await, volumes.engine().await, volumes.engine().await];
        let caches = engines.iter().zip(["d", "e", "f"]).map(|(docker, runner)| {
            let volumes = &volumes;
            async move { cache(docker, volumes, runner).await.name }
        });
        let mut names = futures_util::future::join_all(caches).await;
        names.sort_unstable();
        assert_eq!(names, ["a-tools", "b-tools", "c-tools"]);
    }

    #[tokio::test]
    async fn repositories_share_a_cache_only_if_the_pool_says_so() {
        let volumes = Volumes::default();
        let docker = volumes.engine().await;
        for (setting, same) in [(Setting::Repository, false), (Setting::Pool, true)] {
            let get = async |runner: &str, target: &str| {
                let found = docker.tool_cache(&order(runner, target, setting)).await;
                let found = found.unwrap().unwrap();
                volumes.mounted(&found);
                volumes.runner_removed(runner);
                found.name
            };
            let (one, other) = (format!("one-{same}"), format!("other-{same}"));
            let first = get(&one, "repo:acme/app").await;
            assert_eq!(get(&other, "repo:acme/web").await == first, same);
            assert_eq!(get(&other, "repo:acme/app").await, first);
        }
        let without = order("x", "repo:acme/app", Setting::None);
        assert_eq!(docker.tool_cache(&without).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_cache_that_is_too_old_is_given_to_nobody_and_removed_once_it_is_free() {
        let volumes = Volumes::default();
        let docker = volumes.engine().await;
        let old = cache(&docker, &volumes, "a").await;
        volumes.set(&old.name, EXPIRES, "1000");
        assert_eq!(pruned(&docker).await, 0);
        volumes.runner_removed("a");
        assert_ne!(cache(&docker, &volumes, "b").await.name, old.name);
        assert_eq!(pruned(&docker).await, 1);
        assert_eq!(volumes.names(), ["b-tools", "b-tools-used"]);
    }

    #[tokio::test]
    async fn a_cache_that_is_too_large_is_given_to_no_other_runner_and_removed_once_it_is_free() {
        let volumes = Volumes::default();
        cache(&volumes.engine().await, &volumes, "a").await;
        volumes.sizes.lock().unwrap().extend([("a-tools".into(), 11), ("else".into(), 99)]);
        // An Engine measures its volumes from time to time.
        let docker = volumes.engine().await;
        assert_eq!(pruned(&docker).await, 0);
        assert_eq!(volumes.names(), ["a-tools", "a-tools-full", "a-tools-used"]);
        volumes.runner_removed("a");
        assert_eq!(cache(&docker, &volumes, "b").await.name, "b-tools");
        assert_eq!(pruned(&docker).await, 1);
        assert_eq!(pruned(&docker).await, 1);
        assert_eq!(volumes.names(), ["b-tools", "b-tools-used"]);

        volumes.sizes.lock().unwrap().insert("b-tools".into(), 10);
        volumes.runner_removed("b");
        assert_eq!(pruned(&volumes.engine().await).await, 0);
        volumes.sizes.lock().unwrap().insert("b-tools".into(), 12);
        assert_eq!(pruned(&volumes.engine().await).await, 1);
        assert_eq!(volumes.names(), [] as [&str; 0]);
    }

    #[tokio::test]
    async fn caches_that_no_runner_has_are_listed_by_when_they_expire() {
        let volumes = Volumes::default();
        let docker = volumes.engine().await;
        for runner in ["a", "b", "c"] {
            cache(&docker, &volumes, runner).await;
        }
        volumes.runner_removed("a");
        volumes.runner_removed("b");
        volumes.set("b-tools", EXPIRES, "1");
        assert_eq!(docker.unused_tool_caches().await.unwrap(), ["b-tools", "a-tools"]);
    }
}
