//! The version of each pool's runners, and until when GitHub accepts it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use super::Executor;
use crate::{
    config::PoolConfig,
    control::{clock, snapshot::RunnerVersionView},
    github::{GitHub, Purpose, VersionEnd},
    provider::runner_version,
};
use edgerunner_scheduler::model::{Host, ServerTarget, UnixMs};

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// After a failure of GitHub, or a list without the version.
const RETRY_AFTER: Duration = Duration::from_secs(3_600);

#[derive(Default)]
pub(super) struct Versions {
    pools: Mutex<BTreeMap<String, Known>>,
    /// By server and version, with the time of the next question. Locked while GitHub is asked, so
    /// that it is asked once.
    ends: tokio::sync::Mutex<HashMap<(Host, String), (Instant, VersionEnd)>>,
}

/// What is known about a pool's runners.
struct Known {
    /// The name of the image.
    image: String,
    version: Option<String>,
    source: Source,
    /// Where such a runner is registered.
    target: Option<ServerTarget>,
    end: Option<VersionEnd>,
    /// Why the version is not known.
    problem: Option<String>,
    /// When GitHub's list of runners is read again.
    read_at: Instant,
    /// Runners that were created before have an older image.
    image_since: UnixMs,
    /// What the log says about it.
    said: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Image,
    /// GitHub's list or the log of one that was online, which count more.
    Runner,
}

impl Known {
    fn new(pool: &PoolConfig) -> Self {
        Self {
            image: pool.container.runner_image.clone(),
            version: None,
            source: Source::Image,
            target: None,
            end: None,
            problem: None,
            read_at: Instant::now(),
            image_since: 0,
            said: None,
        }
    }

    fn view(&self) -> RunnerVersionView {
        let (ends_ms, problem) = match &self.end {
            _ if self.version.is_none() => (None, self.problem.clone()),
            Some(VersionEnd::At(at)) => (Some(*at), None),
            Some(VersionEnd::Unknown(why)) => (None, Some(why.clone())),
            None => (None, None),
        };
        RunnerVersionView { version: self.version.clone(), ends_ms, problem }
    }

    fn learn(&mut self, version: &str, source: Source) {
        if self.version.as_deref() != Some(version) {
            self.end = None;
        }
        self.version = Some(version.to_owned());
        self.source = source;
        self.problem = None;
    }
}

impl Versions {
    /// Forgets pools that are gone or have another image.
    pub(super) fn retain(&self, pools: &[PoolConfig]) {
        let image = |name: &str| pools.iter().find(|pool| pool.name == name).map(image_of);
        self.pools().retain(|name, known| image(name) == Some(known.image.as_str()));
    }

    /// The pool's image is another one under the same name: its next runners show its version.
    pub(super) fn image_changed(&self, pool: &PoolConfig) {
        let mut pools = self.pools();
        let known = pools.entry(pool.name.clone()).or_insert_with(|| Known::new(pool));
        known.image_since = clock::now().wall;
        known.read_at = Instant::now();
        known.source = Source::Image;
    }

    /// Whether GitHub should be asked about a runner of the pool that was created at `created`.
    /// Then nobody else asks for a while.
    fn is_due(&self, pool: &PoolConfig, created: UnixMs) -> bool {
        let mut pools = self.pools();
        let known = pools.entry(pool.name.clone()).or_insert_with(|| Known::new(pool));
        let due = known.read_at <= Instant::now() && created >= known.image_since;
        if due {
            known.read_at = Instant::now() + RETRY_AFTER;
        }
        due
    }

    /// Changes what is known about a pool, if it still has this image.
    fn update(&self, pool: &PoolConfig, change: impl FnOnce(&mut Known)) {
        let mut pools = self.pools();
        let known = pools.entry(pool.name.clone()).or_insert_with(|| Known::new(pool));
        if known.image == image_of(pool) {
            change(known);
        }
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Executor {
    /// By pool. Pools without a runner so far, whose image does not tell, are left out.
    pub(crate) fn versions(&self) -> BTreeMap<String, RunnerVersionView> {
        let pools = self.shared.versions.pools();
        let known = pools.iter().filter(|(_, it)| it.version.is_some() || it.problem.is_some());
        known.map(|(pool, known)| (pool.clone(), known.view())).collect()
    }

    /// Call it when a runner is online: GitHub or its log then shows its version. `None` if that is not due.
    pub(crate) fn read_version(
        &self,
        pool: &str,
        runner: &str,
        target: &ServerTarget,
        created: UnixMs,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let pool = self.pool(pool)?;
        if !self.shared.versions.is_due(&pool, created) {
            return None;
        }
        let (executor, runner, target) = (self.clone(), runner.to_owned(), target.clone());
        Some(async move {
            let name = runner.as_str();
            let find = |github: GitHub| {
                let target = &target.target;
                async move { github.runner_named(target, name).await }
            };
            let found = executor.shared.clients.call(&target, Purpose::LookUps, find).await;
            let listed = match found {
                Ok(found) => found
                    .and_then(|runner| runner.version)
                    .and_then(|version| runner_version::parse(&version))
                    .ok_or("GitHub does not list the version of its runners".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            let version = match listed {
                Ok(version) => Ok(version),
                Err(why) => executor.logged_version(&pool, name).await.ok_or(why),
            };
            executor.shared.versions.update(&pool, |known| {
                known.target = Some(target);
                match version {
                    Ok(version) => {
                        known.learn(&version, Source::Runner);
                        known.read_at = Instant::now() + DAY;
                    }
                    Err(why) => known.problem = Some(why),
                }
            });
            executor.check_version(&pool).await;
        })
    }

    /// As a runner itself says it.
    async fn logged_version(&self, pool: &PoolConfig, runner: &str) -> Option<String> {
        let log = self.shared.places.runner_log(pool.place, runner).await.ok()?;
        runner_version::in_log(&log)
    }

    /// Once a day and version. Nothing waits for it.
    pub(super) async fn check_versions(&self) {
        for pool in self.pools().iter() {
            self.check_version(pool).await;
        }
    }

    async fn check_version(&self, pool: &PoolConfig) {
        let versions = &self.shared.versions;
        let source = versions.pools().get(&pool.name).map(|known| known.source);
        if source != Some(Source::Runner) {
            let provider = &self.shared.places[pool.place].provider;
            if let Some(version) = provider.runner_version(image_of(pool)).await {
                versions.update(pool, |known| {
                    // A runner may have come online meanwhile.
                    if known.source == Source::Image {
                        known.learn(&version, Source::Image);
                    }
                });
            }
        }
        let known = versions
            .pools()
            .get(&pool.name)
            .and_then(|known| Some((known.version.clone()?, known.target.clone())));
        if let Some((version, target)) = known
            && let Some(target) = target.or_else(|| self.known_target(pool))
        {
            let end = self.end_of(&target, &version).await;
            versions.update(pool, |known| {
                if known.version.as_ref() == Some(&version) {
                    known.end = Some(end);
                }
            });
        }
        versions.update(pool, |known| say(&pool.name, known));
    }

    /// One that the pool names, for a pool without a runner so far.
    fn known_target(&self, pool: &PoolConfig) -> Option<ServerTarget> {
        let target = pool.planner_pool().known_targets().into_iter().next()?;
        Some(self.shared.clients.on_server(target, Host::default()))
    }

    async fn end_of(&self, target: &ServerTarget, version: &str) -> VersionEnd {
        let mut ends = self.shared.versions.ends.lock().await;
        let key = (target.host, version.to_owned());
        if let Some((ask_at, end)) = ends.get(&key)
            && *ask_at > Instant::now()
        {
            return end.clone();
        }
        let ask = |github: GitHub| {
            let target = &target.target;
            async move { github.version_end(target, version).await }
        };
        let (again_after, end) = match self.shared.clients.call(target, Purpose::LookUps, ask).await
        {
            Ok(end) => (DAY, end),
            Err(error) => match ends.get(&key) {
                // What GitHub said before is the best there is.
                Some((_, end @ VersionEnd::At(_))) => (RETRY_AFTER, end.clone()),
                _ => (RETRY_AFTER, VersionEnd::Unknown(error.to_string())),
            },
        };
        ends.retain(|_, (ask_at, _)| *ask_at + DAY > Instant::now());
        ends.insert(key, (Instant::now() + again_after, end.clone()));
        end
    }
}

fn image_of(pool: &PoolConfig) -> &str {
    &pool.container.runner_image
}

/// Logs what is known of a pool's runners, unless the log says so.
fn say(pool: &str, known: &mut Known) {
    let view = known.view();
    let (soon, ends) = (view.ends_soon(clock::now().wall), view.end_date());
    let RunnerVersionView { version, ends_ms, problem } = view;
    let said = Some(format!("{version:?} {ends_ms:?} {problem:?} {soon}"));
    if known.said == said || (version.is_none() && problem.is_none()) {
        return;
    }
    known.said = said;
    let error = problem;
    match (soon, &error) {
        (true, _) => warn!(
            pool,
            version,
            ends,
            "GitHub refuses the version of its runners from then on: use a newer image"
        ),
        (false, Some(_)) => info!(
            pool,
            version, error, "how long GitHub accepts the version of its runners is unknown"
        ),
        (false, None) => info!(pool, version, ends, "the version of its runners"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[tokio::test(start_paused = true)]
    async fn a_list_without_the_version_is_read_again_after_an_hour() {
        let pool = &Config::load(None, &|_| None).unwrap().pools[0];
        let versions = Versions::default();
        assert!(versions.is_due(pool, 1));
        assert!(!versions.is_due(pool, 1));
        tokio::time::advance(RETRY_AFTER).await;
        assert!(versions.is_due(pool, 1));
    }

    #[test]
    fn another_image_is_another_version() {
        let mut pools = Config::load(None, &|_| None).unwrap().pools;
        let versions = Versions::default();
        versions.update(&pools[0], |known| known.learn("2.335.0", Source::Runner));
        versions.retain(&pools);
        assert_eq!(versions.pools().len(), 1);
        let before = pools[0].clone();
        pools[0].container.runner_image = "acme/runner".into();
        versions.retain(&pools);
        assert!(versions.pools().is_empty());
        // A question that began before has nothing to say about the new image.
        assert!(versions.is_due(&pools[0], 1));
        versions.update(&before, |known| known.learn("2.335.0", Source::Runner));
        assert_eq!(versions.pools()["default"].version, None);
    }
}
