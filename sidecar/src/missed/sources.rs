//! Sources: the webhooks and repositories that are watched, each by the credential that may ask
//! GitHub about it.

use std::{collections::HashMap, future::pending, hash::Hash, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use crate::{
    config::{CredentialConfig, Identity},
    control::{Pools, clock},
    store::{Delivery, WebhookRecord},
};
use edgerunner_scheduler::{
    missed::WebhookId,
    model::{Host, Instant, Job, JobKey, ServerTarget, Target, UnixMs, Visibility},
    plan::{Credential, Scope, credential_for},
};

/// A source that is still active is announced again after this time, so that its watcher knows
/// which ones are quiet.
const ANNOUNCE_AGAIN_AFTER: Duration = Duration::from_secs(3_600);
/// Beyond this number of either kind, all are announced again.
const ANNOUNCED_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Webhook(WebhookId, WebhookRecord),
    /// With the time of its last event. `None`: a pool names it.
    Repository(Origin, Option<UnixMs>),
}

/// A repository, with what only webhooks say about its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Where its runners are registered.
    pub(super) registered_at: ServerTarget,
    pub(super) host: Host,
    pub(super) repository: String,
    pub(super) organization: String,
    pub(super) enterprise: String,
}

/// Announces sources to the watchers of their credentials.
pub(super) struct Sources {
    pools: Pools,
    credentials: Vec<Credential>,
    /// The id of each credential that is a GitHub App.
    apps: Vec<Option<String>>,
    /// For each credential.
    watchers: Vec<mpsc::UnboundedSender<Source>>,
    announced: Announced,
}

/// When each source was last announced.
#[derive(Default)]
struct Announced {
    webhooks: HashMap<(Host, u64), Instant>,
    repositories: HashMap<(Host, String), Instant>,
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
            credentials: credentials.iter().map(CredentialConfig::planner_credential).collect(),
            apps: credentials.iter().map(app).collect(),
            watchers,
            announced: Announced::default(),
        }
    }

    /// Follows arriving deliveries and reloads of the pools. Never returns: if the intake or the
    /// driver ends, the supervisor must name that one as the cause.
    pub(super) async fn follow(mut self, mut arrivals: mpsc::Receiver<Arc<[Delivery]>>) {
        let mut pools = self.pools.clone();
        loop {
            tokio::select! {
                deliveries = arrivals.recv() => {
                    let Some(deliveries) = deliveries else { return pending().await };
                    let now = clock::now().instant;
                    for delivery in &*deliveries {
                        self.on_delivery(delivery, now);
                    }
                }
                changed = pools.changed() => {
                    if changed.is_err() {
                        return pending().await;
                    }
                    self.announce_named();
                }
            }
        }
    }

    fn on_delivery(&mut self, delivery: &Delivery, now: Instant) {
        let Delivery { job, received_at, .. } = delivery;
        let Announced { webhooks, repositories } = &mut self.announced;
        let host = job.key.host;
        let webhook_is_new = is_new(webhooks, (host, delivery.hook_id), now);
        let repository_is_new = is_new(repositories, (host, job.repository.clone()), now);
        if webhook_is_new && delivery.hook_id > 0 {
            let webhook = WebhookId::of_delivery(
                &delivery.hook_target_type,
                delivery.hook_id,
                &job.repository,
                &job.organization,
            );
            if let Some(webhook) = webhook {
                let app_id = if webhook == WebhookId::App { delivery.hook_target_id } else { 0 };
                self.announce_webhook(&webhook, seen(host, &webhook, app_id, *received_at));
            }
        }
        if repository_is_new {
            self.announce_repository(job, Some(*received_at));
        }
    }

    /// An `app_id` of 0 is unknown, which means every App. A host that is not known means every
    /// server for an App, and otherwise that of the first credential that serves the target.
    pub(super) fn announce_webhook(&self, webhook: &WebhookId, record: WebhookRecord) {
        let host = record.host;
        let announce = |index: usize| {
            let record = WebhookRecord { host: self.credentials[index].host, ..record.clone() };
            // A watcher is gone only when the process ends.
            let _ = self.watchers[index].send(Source::Webhook(webhook.clone(), record));
        };
        match webhook {
            WebhookId::At { target, .. } => {
                let target = target.clone().on(host);
                credential_for(&self.credentials, &target).into_iter().for_each(announce);
            }
            WebhookId::App => self.apps_for(host, record.app_id).for_each(announce),
        }
    }

    /// The App with this id, or else all that are configured by client id.
    fn apps_for(&self, host: Host, app_id: u64) -> impl Iterator<Item = usize> {
        let id = app_id.to_string();
        let apps = move || {
            let on_server = self.credentials.iter().map(move |it| it.host.may_be(host));
            self.apps.iter().enumerate().zip(on_server).filter(|(_, on)| *on).map(|(app, _)| app)
        };
        let known = apps().any(|(_, own)| own.as_ref() == Some(&id));
        apps()
            .filter(move |(_, own)| {
                own.as_ref().is_some_and(|own| match known {
                    true => *own == id,
                    false => app_id == 0 || own.parse::<u64>().is_err(),
                })
            })
            .map(|(index, _)| index)
    }

    /// The repository of a job, if a pool may serve it, for the credential that would register
    /// its runner.
    pub(super) fn announce_repository(&self, job: &Job, last_event: Option<UnixMs>) {
        let pools = self.pools.borrow();
        let serving = pools.iter().filter(|pool| pool.serves_repository(&job.repository));
        let found = serving
            .filter_map(|pool| pool.target(job))
            .find_map(|target| Some((credential_for(&self.credentials, &target)?, target)));
        if let Some((index, registered_at)) = found {
            let origin = Origin {
                registered_at,
                host: job.key.host.or(self.credentials[index].host),
                repository: job.repository.clone(),
                organization: job.organization.clone(),
                enterprise: job.enterprise.clone(),
            };
            let _ = self.watchers[index].send(Source::Repository(origin, last_event));
        }
    }

    /// The repositories that pools name, which are watched even before their first event.
    pub(super) fn announce_named(&self) {
        let pools = Arc::clone(&self.pools.borrow());
        for pool in pools.iter() {
            for (owner, name) in pool.repositories.iter().filter_map(|pattern| pattern.exact()) {
                let of_organization = pool.scope == Scope::Organization;
                let job = Job {
                    key: JobKey::new(0, 0),
                    repository: format!("{owner}/{name}"),
                    organization: if of_organization { owner.to_owned() } else { String::new() },
                    enterprise: String::new(),
                    visibility: Visibility::Unknown,
                    run_id: 0,
                    from_fork: None,
                    labels: Vec::new(),
                    queued_at: 0,
                    delivery: String::new(),
                };
                self.announce_repository(&job, None);
            }
        }
    }
}

/// A webhook that was seen, of whose deliveries nothing is known.
pub(super) fn seen(host: Host, webhook: &WebhookId, app_id: u64, seen_at: UnixMs) -> WebhookRecord {
    WebhookRecord { host, path: webhook.to_string(), app_id, seen_at, settled_until: 0 }
}

fn is_new<K: Hash + Eq>(announced: &mut HashMap<K, Instant>, key: K, now: Instant) -> bool {
    match announced.get_mut(&key) {
        Some(at) if *at + ANNOUNCE_AGAIN_AFTER > now => return false,
        Some(at) => *at = now,
        None => {
            if announced.len() >= ANNOUNCED_MAX {
                announced.clear();
            }
            announced.insert(key, now);
        }
    }
    true
}

impl Origin {
    /// In lower case, because GitHub ignores case.
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
        watchers: Vec<mpsc::UnboundedReceiver<Source>>,
    }

    impl World {
        fn new() -> Self {
            Self::with(CONFIG)
        }

        fn with(config: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("edgerunner.toml");
            let key = concat!(env!("CARGO_MANIFEST_DIR"), "/src/github/test-app.pem");
            std::fs::write(&file, config.replace("KEY", key)).unwrap();
            let config = Config::load_to_serve(Some(&file), &|_| None).unwrap();
            let (senders, watchers) =
                config.credentials.iter().map(|_| mpsc::unbounded_channel()).unzip();
            let pools = watch::channel(config.planner_settings().pools.into()).1;
            Self { sources: Sources::new(pools, &config.credentials, senders), watchers }
        }

        /// The sources that were announced, each with the index of its credential.
        fn announced(&mut self) -> Vec<(usize, String)> {
            let mut all = Vec::new();
            for (index, watcher) in self.watchers.iter_mut().enumerate() {
                while let Ok(source) = watcher.try_recv() {
                    all.push((
                        index,
                        match source {
                            Source::Webhook(webhook, _) => webhook.to_string(),
                            Source::Repository(origin, _) => origin.repository,
                        },
                    ));
                }
            }
            all
        }

        fn on_delivery(&mut self, kind: &str, hook: u64, target: u64, repository: &str, at: u64) {
            self.on_delivery_from("", kind, hook, target, repository, at);
        }

        fn on_delivery_from(
            &mut self,
            host: &str,
            kind: &str,
            hook: u64,
            target: u64,
            repository: &str,
            at: u64,
        ) {
            let owner = repository.split('/').next().unwrap();
            let delivery = Delivery {
                hook: String::new(),
                hook_id: hook,
                hook_target_type: kind.into(),
                hook_target_id: target,
                received_at: at,
                state: JobState::Queued,
                job: Job {
                    key: JobKey::new(1, 1).on(Host::new(host)),
                    repository: repository.into(),
                    organization: if owner == "acme" { owner.into() } else { String::new() },
                    enterprise: String::new(),
                    visibility: Visibility::Unknown,
                    run_id: 0,
                    from_fork: None,
                    labels: Vec::new(),
                    queued_at: at,
                    delivery: String::new(),
                },
                details: JobDetails::default(),
                conclusion: String::new(),
                runner_name: String::new(),
            };
            self.sources.on_delivery(&delivery, Instant::from_millis(at as i64));
        }
    }

    fn sources(expected: &[(usize, &str)]) -> Vec<(usize, String)> {
        expected.iter().map(|(index, text)| (*index, (*text).to_owned())).collect()
    }

    #[test]
    fn each_source_is_announced_to_the_credential_that_may_ask_about_it() {
        for (kind, target, repository, expected) in [
            // Runners for it are the organization's, so its token sees it.
            ("organization", 1, "acme/app", &[(0, "orgs/acme/hooks/7"), (0, "acme/app")][..]),
            ("repository", 1, "acme/web", &[(1, "repos/acme/web/hooks/7"), (1, "acme/web")]),
            ("integration", 12, "acme/web", &[(1, "app/hook"), (1, "acme/web")]),
            // An App that is configured by client id may have any id.
            ("integration", 13, "octocat/tool", &[(2, "app/hook"), (2, "octocat/tool")]),
            ("business", 1, "acme/web", &[(1, "acme/web")]),
            ("repository", 1, "octocat/none", &[(2, "repos/octocat/none/hooks/7")]),
            ("repository", 1, "nobody/none", &[]),
        ] {
            let mut world = World::new();
            world.on_delivery(kind, 7, target, repository, 1);
            assert_eq!(world.announced(), sources(expected), "{kind} {repository}");
        }
    }

    #[test]
    fn a_repository_of_the_same_name_is_watched_on_each_of_its_servers() {
        let mut world = World::with(
            r#"
            [[credentials]]
            name = "ours"
            targets = ["acme/*"]
            token = "one"
            api_url = "https://ghe.example.com/api/v3"
            [[credentials]]
            name = "public"
            targets = ["acme/*"]
            token = "two"
            [[pools]]
            name = "default"
            repositories = ["acme/*"]
            "#,
        );
        let both = [(0, "repos/acme/web/hooks/7"), (0, "acme/web")];
        let both_public = [(1, "repos/acme/web/hooks/7"), (1, "acme/web")];
        for (host, expected) in [
            ("ghe.example.com", &both[..]),
            ("github.com", &both_public),
            ("github.com", &[]),
            ("other.example.com", &[]),
        ] {
            world.on_delivery_from(host, "repository", 7, 1, "acme/web", 1);
            assert_eq!(world.announced(), sources(expected), "{host}");
        }
    }

    #[test]
    fn a_known_source_is_announced_once_an_hour() {
        let mut world = World::new();
        let again = ANNOUNCE_AGAIN_AFTER.as_millis() as u64;
        let both = [(1, "repos/acme/web/hooks/7"), (1, "acme/web")];
        for (at, expected) in [(1, &both[..]), (2, &[]), (again, &[]), (again + 1, &both)] {
            world.on_delivery("repository", 7, 1, "acme/web", at);
            assert_eq!(world.announced(), sources(expected), "{at}");
        }
        world.on_delivery("", 0, 0, "acme/web", 3 * again);
        assert_eq!(world.announced(), sources(&both[1..]));
    }

    #[test]
    fn repositories_that_pools_name_are_announced_before_any_event() {
        let mut world = World::new();
        world.sources.announce_named();
        let named = [(0, "acme/app"), (0, "acme/lib"), (2, "octocat/tool")];
        assert_eq!(world.announced(), sources(&named));
        let app = seen(Host::default(), &WebhookId::App, 0, 1);
        world.sources.announce_webhook(&WebhookId::App, app);
        assert_eq!(world.announced(), sources(&[(1, "app/hook"), (2, "app/hook")]));
    }
}
