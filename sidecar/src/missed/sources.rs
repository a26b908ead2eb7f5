//! Hooks and repositories that news came from, each for the credential that may ask
//! GitHub about it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::mpsc;

use crate::{
    config::CredentialConfig,
    control::Pools,
    github::{Identity, WebhookId},
    store::{Delivery, WebhookRecord},
};
use edgerunner_scheduler::{
    model::{Job, JobKey, Target, UnixMs},
    plan::{Credential, Scope, credential_for},
};

/// Told again after so long, so that what is quiet is known to be.
const AGAIN_MS: u64 = 3_600_000;
/// More of either and all are told anew.
const TOLD_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    WebhookId(WebhookId, WebhookRecord),
    Repository(Origin, UnixMs),
}

/// A repository, with what GitHub tells of its owner in webhooks alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) repository: String,
    pub(super) organization: String,
    pub(super) enterprise: String,
}

/// Cheap where nothing is new.
pub(crate) struct Sources {
    pools: Pools,
    credentials: Vec<Credential>,
    /// The id of each credential that is a GitHub App.
    apps: Vec<Option<String>>,
    /// For each credential.
    watchers: Vec<mpsc::UnboundedSender<Source>>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    hooks: HashMap<u64, UnixMs>,
    repositories: HashMap<String, UnixMs>,
}

impl Sources {
    pub(super) fn new(
        pools: Pools,
        credentials: &[CredentialConfig],
        watchers: Vec<mpsc::UnboundedSender<Source>>,
    ) -> Self {
        let app = |credential: &CredentialConfig| match &credential.identity {
            Identity::Token(_) => None,
            Identity::App { id, .. } => Some(id.clone()),
        };
        Self {
            pools,
            credentials: credentials.iter().map(CredentialConfig::planned).collect(),
            apps: credentials.iter().map(app).collect(),
            watchers,
            told: Mutex::default(),
        }
    }

    pub(crate) fn see(&self, delivery: &Delivery) {
        let Delivery { job, received_at: now, .. } = delivery;
        let (hook_is_new, repository_is_new) = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let hook = is_news(&mut told.hooks, &delivery.hook_id, *now);
            (hook, is_news(&mut told.repositories, job.repository.as_str(), *now))
        };
        if hook_is_new && delivery.hook_id > 0 {
            let hook = WebhookId::of_delivery(
                &delivery.hook_target_type,
                delivery.hook_id,
                &job.repository,
                &job.organization,
            );
            if let Some(hook) = hook {
                let app_id = if hook == WebhookId::App { delivery.hook_target_id } else { 0 };
                self.see_hook(hook, app_id, *now, 0);
            }
        }
        if repository_is_new {
            self.see_repository(job, *now);
        }
    }

    /// `app_id`: 0 for every App.
    pub(super) fn see_hook(
        &self,
        hook: WebhookId,
        app_id: u64,
        seen_at: UnixMs,
        settled_until: UnixMs,
    ) {
        let record = WebhookRecord { hook: hook.to_string(), app_id, seen_at, settled_until };
        let of = |index: usize| {
            // It is gone only at the end of the process.
            let _ = self.watchers[index].send(Source::WebhookId(hook.clone(), record.clone()));
        };
        match &hook {
            WebhookId::At { target, .. } => {
                credential_for(&self.credentials, target).into_iter().for_each(of);
            }
            WebhookId::App => self.apps_with(app_id).for_each(of),
        }
    }

    /// By its id, or else those that go by their client id.
    fn apps_with(&self, app_id: u64) -> impl Iterator<Item = usize> {
        let id = app_id.to_string();
        let known = self.apps.iter().flatten().any(|own| *own == id);
        let apps = self.apps.iter().enumerate();
        apps.filter(move |(_, own)| {
            own.as_ref().is_some_and(|own| match known {
                true => *own == id,
                false => app_id == 0 || own.parse::<u64>().is_err(),
            })
        })
        .map(|(index, _)| index)
    }

    /// Only where a pool may serve its jobs; with what would register the runners.
    pub(super) fn see_repository(&self, job: &Job, seen_at: UnixMs) {
        let pools = self.pools.borrow();
        let serving = pools.iter().filter(|pool| pool.serves_repository(&job.repository));
        let credential = serving
            .filter_map(|pool| pool.target(job))
            .find_map(|target| credential_for(&self.credentials, &target));
        if let Some(index) = credential {
            let origin = Origin {
                repository: job.repository.clone(),
                organization: job.organization.clone(),
                enterprise: job.enterprise.clone(),
            };
            let _ = self.watchers[index].send(Source::Repository(origin, seen_at));
        }
    }

    /// The same for pools that are read anew.
    pub(crate) async fn follow_pools(self: Arc<Self>) {
        let mut pools = self.pools.clone();
        while pools.changed().await.is_ok() {
            self.see_named();
        }
    }

    /// Repositories that pools name are looked at although nothing came from them yet.
    pub(super) fn see_named(&self) {
        let pools = Arc::clone(&self.pools.borrow());
        for pool in pools.iter() {
            for (owner, name) in pool.repositories.iter().filter_map(|pattern| pattern.named()) {
                let of_organization = pool.scope == Scope::Organization;
                let job = Job {
                    key: JobKey { id: 0, run_attempt: 0 },
                    repository: format!("{owner}/{name}"),
                    organization: if of_organization { owner.to_owned() } else { String::new() },
                    enterprise: String::new(),
                    labels: Vec::new(),
                    queued_at: 0,
                    delivery: String::new(),
                };
                self.see_repository(&job, UnixMs::MAX);
            }
        }
    }
}

fn is_news<K, Q>(told: &mut HashMap<K, UnixMs>, key: &Q, now: UnixMs) -> bool
where
    K: std::hash::Hash + Eq + std::borrow::Borrow<Q>,
    Q: std::hash::Hash + Eq + ToOwned<Owned = K> + ?Sized,
{
    match told.get_mut(key) {
        Some(at) if at.saturating_add(AGAIN_MS) > now => return false,
        Some(at) => *at = now,
        None => {
            if told.len() >= TOLD_MAX {
                told.clear();
            }
            told.insert(key.to_owned(), now);
        }
    }
    true
}

impl Origin {
    /// GitHub ignores case.
    pub(super) fn key(&self) -> String {
        self.repository.to_ascii_lowercase()
    }

    pub(super) fn target(&self) -> Option<Target> {
        format!("repo:{}", self.repository).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::{config::Config, store::JobDetails};
    use edgerunner_scheduler::model::{JobKey, JobState};

    const CONFIG: &str = r#"
        [[credentials]]
        name = "org"
        targets = ["acme"]
        token = "one"
        [[credentials]]
        name = "app"
        targets = ["acme/*"]
        app_id = "12"
        app_private_key_file = "KEY"
        [[credentials]]
        name = "other-app"
        targets = ["octocat/*"]
        app_id = "Iv23liAbC"
        app_private_key_file = "KEY"

        [[pools]]
        name = "shared"
        scope = "organization"
        repositories = ["acme/app", "acme/lib"]
        [[pools]]
        name = "own"
        repositories = ["acme/*", "octocat/tool"]
    "#;

    struct World {
        sources: Sources,
        told: Vec<mpsc::UnboundedReceiver<Source>>,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("edgerunner.toml");
            let key = concat!(env!("CARGO_MANIFEST_DIR"), "/src/github/test-app.pem");
            std::fs::write(&file, CONFIG.replace("KEY", key)).unwrap();
            let config = Config::load_to_serve(Some(&file), &|_| None).unwrap();
            let (senders, told) =
                config.credentials.iter().map(|_| mpsc::unbounded_channel()).unzip();
            let pools = watch::channel(config.planner_settings().pools.into()).1;
            Self { sources: Sources::new(pools, &config.credentials, senders), told }
        }

        /// What each credential was told.
        fn told(&mut self) -> Vec<(usize, String)> {
            let mut all = Vec::new();
            for (index, told) in self.told.iter_mut().enumerate() {
                while let Ok(source) = told.try_recv() {
                    all.push((
                        index,
                        match source {
                            Source::WebhookId(hook, _) => hook.to_string(),
                            Source::Repository(origin, _) => origin.repository,
                        },
                    ));
                }
            }
            all
        }

        fn see(&mut self, kind: &str, hook: u64, target: u64, repository: &str, at: UnixMs) {
            let owner = repository.split('/').next().unwrap();
            self.sources.see(&Delivery {
                hook: String::new(),
                hook_id: hook,
                hook_target_type: kind.into(),
                hook_target_id: target,
                received_at: at,
                state: JobState::Queued,
                job: Job {
                    key: JobKey { id: 1, run_attempt: 1 },
                    repository: repository.into(),
                    organization: if owner == "acme" { owner.into() } else { String::new() },
                    enterprise: String::new(),
                    labels: Vec::new(),
                    queued_at: at,
                    delivery: String::new(),
                },
                details: JobDetails::default(),
                conclusion: String::new(),
                runner_name: String::new(),
            });
        }
    }

    fn told(expected: &[(usize, &str)]) -> Vec<(usize, String)> {
        expected.iter().map(|(index, text)| (*index, (*text).to_owned())).collect()
    }

    #[test]
    fn each_is_told_to_the_credential_that_may_ask_about_it() {
        for (kind, target, repository, expected) in [
            // Runners for it are the organization's, so its token sees it.
            ("organization", 1, "acme/app", &[(0, "orgs/acme/hooks/7"), (0, "acme/app")][..]),
            ("repository", 1, "acme/web", &[(1, "repos/acme/web/hooks/7"), (1, "acme/web")]),
            ("integration", 12, "acme/web", &[(1, "app/hook"), (1, "acme/web")]),
            // By its client id the other App cannot be told.
            ("integration", 13, "octocat/tool", &[(2, "app/hook"), (2, "octocat/tool")]),
            ("business", 1, "acme/web", &[(1, "acme/web")]),
            ("repository", 1, "octocat/none", &[(2, "repos/octocat/none/hooks/7")]),
            ("repository", 1, "nobody/none", &[]),
        ] {
            let mut world = World::new();
            world.see(kind, 7, target, repository, 1);
            assert_eq!(world.told(), told(expected), "{kind} {repository}");
        }
    }

    #[test]
    fn what_is_known_is_told_once_an_hour() {
        let mut world = World::new();
        let both = [(1, "repos/acme/web/hooks/7"), (1, "acme/web")];
        for (at, expected) in [(1, &both[..]), (2, &[]), (AGAIN_MS, &[]), (AGAIN_MS + 1, &both)] {
            world.see("repository", 7, 1, "acme/web", at);
            assert_eq!(world.told(), told(expected), "{at}");
        }
        world.see("", 0, 0, "acme/web", 3 * AGAIN_MS);
        assert_eq!(world.told(), told(&both[1..]));
    }

    #[test]
    fn repositories_that_pools_name_are_told_before_any_news() {
        let mut world = World::new();
        world.sources.see_named();
        let named = [(0, "acme/app"), (0, "acme/lib"), (2, "octocat/tool")];
        assert_eq!(world.told(), told(&named));
        world.sources.see_hook(WebhookId::App, 0, 1, 0);
        assert_eq!(world.told(), told(&[(1, "app/hook"), (2, "app/hook")]));
    }
}
