//! The driver with a fake provider and a GitHub that does not answer.

use std::time::Duration;

use tokio::{sync::oneshot, task::JoinHandle};

use super::*;
use crate::{
    config::{Config, Database},
    control::{
        command::{self, CommandSender, EventSender},
        executor::{LaunchConfig, Places},
    },
    github::clients::Clients,
    provider::{InstanceState, Labels, Node, Provider, fake::Fake},
    telemetry::traces::DeliveryTraces,
};
use edgerunner_scheduler::{
    model::{Host, Instant, Job, JobKey, ServerTarget, Visibility},
    plan::{Adopted, AdoptedContainer, Parameters, Registration},
};
use edgerunner_testkit::Postgres;

const POOLS: &str = r#"
[docker]
runner_image = "runner"
[runner]
labels = ["linux"]
[[pools]]
name = "small"
"#;

struct Running {
    commands: CommandSender,
    fake: Fake,
    store: Store,
    pools: watch::Receiver<Arc<[Pool]>>,
    shutdown: CancellationToken,
    driver: JoinHandle<()>,
    directory: tempfile::TempDir,
}

fn config(text: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("edgerunner.toml");
    std::fs::write(&file, text).unwrap();
    let config = Config::load(Some(&file), &|name| match name {
        // Nothing listens there.
        "GITHUB_API_URL" => Some("http://127.0.0.1:9".to_owned()),
        "GITHUB_TOKEN" => Some("token".to_owned()),
        _ => None,
    });
    config.unwrap()
}

impl Running {
    fn start(grace: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) =
            Store::open(&directory.path().join("edgerunner.db"), Host::default(), |_| {}).unwrap();
        Self::with(store, directory, grace)
    }

    fn with(store: Store, directory: tempfile::TempDir, grace: Duration) -> Self {
        let config = config(POOLS);
        let settings = config.planner_settings();
        let (current_pools, pools) = watch::channel::<Arc<[Pool]>>(settings.pools.clone().into());
        let timetables = PoolConfig::timetables(&config.pools);
        let (commands, receiver) = command::channel();
        let fake = Fake::new();
        let launches = LaunchConfig {
            instance: "edge".into(),
            pools: config.pools,
            registries: config.registries,
            reserves: config.reserves,
        };
        let executor = Executor::new(
            launches,
            Arc::new(Clients::new(&config.credentials, Duration::from_secs(1)).unwrap()),
            Places::new(vec![("Fake".to_owned(), Provider::Fake(fake.clone()))]),
            store.clone(),
            Arc::new(DeliveryTraces::new()),
            EventSender::new(commands.clone()),
        );
        let state = State::new(settings, 1);
        let driver = Driver::new(
            state,
            store.clone(),
            executor,
            timetables,
            current_pools,
            receiver,
            Leadership::permanent(),
        );
        let shutdown = CancellationToken::new();
        let driver = tokio::spawn(driver.run(shutdown.clone(), grace));
        Self { commands, fake, store, pools, shutdown, driver, directory }
    }

    async fn event(&self, event: Event) {
        EventSender::new(self.commands.clone()).send(event).await;
    }

    async fn request<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
        let (reply, response) = oneshot::channel();
        let sent = self.commands.send(command(reply)).await;
        assert!(sent.is_ok(), "the driver has ended");
        response.await.unwrap()
    }

    async fn snapshot(&self) -> Snapshot {
        self.request(Command::GetSnapshot).await.unwrap()
    }

    async fn drain(&self, pool: Option<&str>, draining: bool) -> Result<(), CommandError> {
        let pool = pool.map(str::to_owned);
        self.request(|reply| Command::Drain { pool, draining, reply }).await
    }

    async fn remove(&self, runner: &str, force: bool) -> Result<RunnerView, CommandError> {
        let runner = runner.to_owned();
        self.request(|reply| Command::RemoveRunner { runner, force, reply }).await
    }

    /// A runner of an earlier process, as GitHub lists it.
    async fn adopt(&self, runner: &str, busy: bool) {
        let target: ServerTarget = "repo:acme/app".parse().unwrap();
        self.event(Event::Adopted(Adopted {
            runner: runner.into(),
            pool: "small".into(),
            provider: 0,
            target: target.clone(),
            registration_id: Some(7),
            job: None,
            created_at: clock::now().wall,
            container: AdoptedContainer::Running,
            parameters: Parameters::default(),
            devices: Vec::new(),
            parked: None,
        }))
        .await;
        let listed = Registration { name: runner.into(), id: 7, online: true, busy };
        let requested_at = clock::now().instant;
        self.event(Event::Registrations { target, runners: vec![listed], requested_at }).await;
    }

    /// Returns the store's directory, which goes when it is dropped.
    async fn stop(self) -> tempfile::TempDir {
        self.shutdown.cancel();
        self.driver.await.unwrap();
        self.directory
    }
}

fn job(id: u64, label: &str) -> Job {
    Job {
        key: JobKey::new(id, 1),
        repository: "acme/app".into(),
        organization: "acme".into(),
        enterprise: String::new(),
        visibility: Visibility::Private,
        run_id: 0,
        from_fork: None,
        labels: vec![label.into()],
        queued_at: clock::now().wall,
        delivery: format!("delivery-{id}"),
    }
}

const GRACE: Duration = Duration::from_secs(10);
/// For launches that are held until the end of the test.
const SHORT_GRACE: Duration = Duration::from_millis(20);

#[tokio::test]
async fn nothing_is_launched_before_the_runners_of_the_last_process_are_adopted() {
    let running = Running::start(SHORT_GRACE);
    let _image = running.fake.hold_next("prepare");
    running.event(Event::JobQueued(job(1, "linux"))).await;
    assert!(running.snapshot().await.runners.is_empty());
    running.event(Event::Recovered { provider: 0 }).await;
    assert_eq!(running.snapshot().await.runners.len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_shutdown_in_mid_launch_lets_the_launch_end_in_an_event() {
    let running = Running::start(GRACE);
    let image = running.fake.hold_next("prepare");
    running.event(Event::Recovered { provider: 0 }).await;
    running.event(Event::JobQueued(job(1, "linux"))).await;
    running.fake.called("prepare runner").await;
    let store = running.store.clone();
    running.shutdown.cancel();
    // It is not over before the launch is.
    assert!(!running.driver.is_finished());
    running.fake.set_away(true);
    image.notify_one();
    running.driver.await.unwrap();
    let runners = store.recent_runners(10).await.unwrap();
    assert_eq!(runners.len(), 1, "one launch, and none after the shutdown");
    assert!(runners[0].runner.why.as_ref().unwrap().starts_with("launch failed"), "{runners:?}");
}

#[tokio::test]
async fn a_launch_that_outlasts_the_grace_period_does_not_hold_the_shutdown() {
    let running = Running::start(SHORT_GRACE);
    let _image = running.fake.hold_next("prepare");
    running.event(Event::Recovered { provider: 0 }).await;
    running.event(Event::JobQueued(job(1, "linux"))).await;
    running.fake.called("prepare runner").await;
    let store = running.store.clone();
    let recorded = async {
        while store.present_runners().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    time::timeout(GRACE, recorded).await.unwrap();
    let _directory = running.stop().await;
    // The next start finds it there and cleans up.
    assert_eq!(store.present_runners().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_record_that_could_not_be_stored_is_stored_once_the_store_is_back() {
    let server = Postgres::start().unwrap();
    let url = server.url(&server.database().unwrap()).parse().unwrap();
    let database = Database { url, password_file: None, ca: Vec::new() };
    let (store, _closed) = Store::connect(&database, |_| {}).await.unwrap();
    let running = Running::with(store, tempfile::tempdir().unwrap(), SHORT_GRACE);
    running.adopt("edge-small-1", false).await;
    let phase = async || {
        let recorded = running.store.present_runners().await.unwrap_or_default();
        recorded.first().map(|record| record.phase.clone())
    };
    let becomes = async |expected: &str| {
        let becomes = async {
            while phase().await.as_deref() != Some(expected) {
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        time::timeout(Duration::from_secs(20), becomes).await.expect("the phase is stored");
    };
    becomes("idle").await;
    server.stop().unwrap();
    let job = job(1, "linux");
    running.event(Event::JobStarted { job, runner: "edge-small-1".into() }).await;
    // A write that was queued after its record fails: so did that.
    while running.store.save_draining(None, false).await.is_ok() {}
    server.run().unwrap();
    becomes("busy").await;
    running.stop().await;
}

#[tokio::test]
async fn a_reload_replaces_the_pools_everywhere() {
    let running = Running::start(SHORT_GRACE);
    let _image = running.fake.hold_next("prepare");
    running.event(Event::Recovered { provider: 0 }).await;
    running.event(Event::JobQueued(job(1, "gpu"))).await;
    assert!(running.snapshot().await.runners.is_empty());
    let reloaded = POOLS.replace("\"small\"", "\"large\"\nlabels = [\"gpu\"]");
    let sent = running.commands.send(Command::SetPools(config(&reloaded).pools)).await;
    assert!(sent.is_ok());
    let snapshot = running.snapshot().await;
    assert_eq!(snapshot.pools.len(), 1);
    assert_eq!(snapshot.pools[0].name, "large");
    assert_eq!(running.pools.borrow()[0].name, "large");
    assert_eq!(snapshot.runners[0].pool, "large", "the job that waited is served");
    running.stop().await;
}

#[tokio::test]
async fn a_reload_obeys_the_schedule_from_its_first_moment() {
    let running = Running::start(SHORT_GRACE);
    let _image = running.fake.hold_next("prepare");
    running.event(Event::Recovered { provider: 0 }).await;
    let scheduled = |min_idle: usize| {
        let idle = "repositories = [\"acme/app\"]\nmin_idle = 5\nmax = 9";
        let schedule = format!("schedules = [{{ min_idle = {min_idle} }}]");
        POOLS.replace("\"small\"", &format!("\"small\"\n{idle}\n{schedule}"))
    };
    for (min_idle, runners) in [(0, 0), (2, 2)] {
        let pools = config(&scheduled(min_idle)).pools;
        assert!(running.commands.send(Command::SetPools(pools)).await.is_ok());
        let snapshot = running.snapshot().await;
        assert_eq!((snapshot.pools[0].min_idle, snapshot.runners.len()), (min_idle, runners));
    }
    running.stop().await;
}

#[tokio::test]
async fn a_drain_is_stored_and_an_unknown_pool_refused() {
    let running = Running::start(SHORT_GRACE);
    let _image = running.fake.hold_next("prepare");
    running.event(Event::Recovered { provider: 0 }).await;
    let error = running.drain(Some("large"), true).await.unwrap_err();
    assert_eq!(error.to_string(), "no such pool; the pools are small");
    running.drain(Some("small"), true).await.unwrap();
    assert_eq!(running.store.draining().await.unwrap(), [Some("small".to_owned())]);
    running.event(Event::JobQueued(job(1, "linux"))).await;
    let snapshot = running.snapshot().await;
    assert!(snapshot.pools[0].draining && snapshot.runners.is_empty());
    running.drain(Some("small"), false).await.unwrap();
    assert_eq!(running.store.draining().await.unwrap(), []);
    assert_eq!(running.snapshot().await.runners.len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_runner_that_is_launched_or_busy_is_not_removed_without_force() {
    let running = Running::start(SHORT_GRACE);
    let _image = running.fake.hold_next("prepare");
    running.event(Event::Recovered { provider: 0 }).await;
    running.event(Event::JobQueued(job(1, "linux"))).await;
    let launching = running.snapshot().await.runners[0].name.clone();
    let refused = running.remove(&launching, false).await.unwrap_err();
    assert!(matches!(refused, CommandError::Launching));
    let accepted = running.remove(&launching, true).await.unwrap();
    assert_eq!(accepted.why.as_deref(), Some("it is removed once its launch has ended"));
    let refused = running.remove("unknown", false).await.unwrap_err();
    assert!(matches!(refused, CommandError::NoSuchRunner));

    running.adopt("edge-small-busy", true).await;
    let refused = running.remove("edge-small-busy", false).await.unwrap_err();
    assert!(matches!(refused, CommandError::Busy));
    let removed = running.remove("edge-small-busy", true).await.unwrap();
    assert_eq!(removed.phase, "leaving");
    // By force the container goes first, although GitHub does not answer.
    running.fake.called("remove edge-small-busy").await;
}

#[tokio::test]
async fn a_runner_is_protected_once_its_job_starts() {
    let running = Running::start(SHORT_GRACE);
    let _image = running.fake.hold_next("prepare");
    running.event(Event::Recovered { provider: 0 }).await;
    running.event(Event::JobQueued(job(1, "linux"))).await;
    let runner = running.snapshot().await.runners[0].name.clone();
    assert!(!running.fake.calls().iter().any(|call| call.starts_with("protect")));
    running.event(Event::JobStarted { job: job(1, "linux"), runner: runner.clone() }).await;
    running.fake.called(&format!("protect {runner}")).await;
}

#[tokio::test]
async fn a_launch_that_waits_for_room_is_removed_without_force() {
    let running = Running::start(SHORT_GRACE);
    let _image = running.fake.hold_next("prepare");
    running.event(Event::Recovered { provider: 0 }).await;
    running.event(Event::JobQueued(job(1, "linux"))).await;
    let runner = running.snapshot().await.runners[0].name.clone();
    let message = "no node has 32 CPUs".into();
    let credentials_end = Instant::MAX;
    running.event(Event::NoRoom { runner: runner.clone(), message, credentials_end }).await;
    let removed = running.remove(&runner, false).await.unwrap();
    assert_eq!(removed.phase, "leaving");
}

#[tokio::test]
async fn one_pool_cannot_be_resumed_while_all_drain() {
    let running = Running::start(SHORT_GRACE);
    running.drain(None, true).await.unwrap();
    let refused = running.drain(Some("small"), false).await.unwrap_err();
    assert!(matches!(refused, CommandError::AllDraining));
    assert!(refused.to_string().contains("run `edgerunner resume`"), "{refused}");
    assert_eq!(running.store.draining().await.unwrap(), [None]);
    assert!(running.snapshot().await.pools[0].all_draining);
    running.drain(None, false).await.unwrap();
    running.drain(Some("small"), false).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn the_pool_and_the_reason_of_each_queued_job_are_told() {
    let running = Running::start(SHORT_GRACE);
    running.event(Event::JobQueued(job(1, "linux"))).await;
    running.event(Event::JobQueued(job(2, "gpu"))).await;
    let jobs = [1, 2, 3].map(|id| job(id, "").key).to_vec();
    let queued = running.request(|reply| Command::GetQueued { jobs, reply }).await.unwrap();
    let waiting = |index: usize| queued[index].waiting.as_ref().map(|(reason, _)| reason.as_str());
    assert_eq!((queued[0].pool.as_deref(), waiting(0)), (Some("small"), Some("recovering")));
    assert_eq!(queued[1..], [QueuedJob::default(), QueuedJob::default()]);
    let readiness = running.request(Command::GetReadiness).await;
    assert!(matches!(readiness, Readiness::Recovering(_)));
    running.event(Event::Recovered { provider: 0 }).await;
    assert_eq!(running.request(Command::GetReadiness).await, Readiness::Ready);
    running.stop().await;
}

/// What is logged on this thread while the guard lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self, part: &str) -> Vec<String> {
        let bytes = self.0.lock().unwrap();
        let lines = String::from_utf8_lossy(&bytes);
        lines.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn labels_that_no_pool_has_are_logged_once_for_each_set() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let running = Running::start(SHORT_GRACE);
    let unserved = |id, labels: &[&str]| Job {
        labels: labels.iter().map(ToString::to_string).collect(),
        ..job(id, "")
    };
    for id in 1..=3 {
        running.event(Event::JobQueued(unserved(id, &["self-hosted", "gpu"]))).await;
    }
    running.event(Event::JobQueued(unserved(4, &["self-hosted", "arm"]))).await;
    running.event(Event::JobQueued(unserved(5, &["ubuntu-latest"]))).await;
    running.event(Event::JobQueued(unserved(6, &["larger-runner"]))).await;
    running.event(Event::Tick).await;
    running.snapshot().await;
    let lines = log.lines("no pool serves jobs with these labels");
    let of = |level: &str| lines.iter().filter(|line| line.contains(level)).collect::<Vec<_>>();
    let (warnings, infos) = (of("WARN"), of("INFO"));
    assert_eq!((warnings.len(), infos.len()), (2, 1), "{lines:#?}");
    for part in ["self-hosted", "gpu", "acme/app", "closest: small"] {
        assert!(warnings[0].contains(part), "{part}: {}", warnings[0]);
    }
    assert!(infos[0].contains("larger-runner"), "{}", infos[0]);
    running.event(Event::JobQueued(unserved(7, &["gpu", "self-hosted"]))).await;
    running.event(Event::Tick).await;
    running.snapshot().await;
    assert_eq!(log.lines("no pool serves").len(), 3);
    running.stop().await;
}

#[tokio::test]
async fn removing_a_runner_that_is_leaving_says_what_happens() {
    let running = Running::start(GRACE);
    running.event(Event::Recovered { provider: 0 }).await;
    // A list of containers must not find that it is gone.
    let labels = Labels {
        instance: "edge".into(),
        pool: "small".into(),
        runner: "edge-small-idle".into(),
        target: "repo:acme/app".into(),
        host: String::new(),
        launched_unix_ms: clock::now().wall,
        parameters: String::new(),
        devices: Vec::new(),
        parked: None,
    };
    running.fake.insert(labels, InstanceState::Running);
    running.adopt("edge-small-idle", false).await;
    // GitHub does not answer, so the container stays.
    let removed = running.remove("edge-small-idle", false).await.unwrap();
    assert_eq!(removed.phase, "leaving");
    let waits = async {
        loop {
            let refused = running.remove("edge-small-idle", false).await.unwrap_err().to_string();
            if refused.contains("not removed yet") {
                break refused;
            }
            tokio::task::yield_now().await;
        }
    };
    let refused = time::timeout(GRACE, waits).await.unwrap();
    assert!(refused.starts_with("the runner is already being removed (removed by an operator; "));
    assert!(refused.ends_with("use --force"), "{refused}");
    assert!(!running.fake.calls().iter().any(|call| call.starts_with("remove")));

    let forced = running.remove("edge-small-idle", true).await.unwrap();
    assert!(forced.why.unwrap().contains("its registration may be left at GitHub"));
    running.fake.called("remove edge-small-idle").await;
    let ended = async {
        while !running.snapshot().await.runners.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    time::timeout(GRACE, ended).await.unwrap();
    let store = running.store.clone();
    let _directory = running.stop().await;
    let why = store.recent_runners(1).await.unwrap()[0].runner.why.clone().unwrap();
    assert!(
        why.starts_with("removed by force by an operator; its registration may be left"),
        "{why}"
    );
}

#[tokio::test]
async fn the_last_list_of_nodes_is_shown_while_their_provider_is_away() {
    let running = Running::start(Duration::ZERO);
    assert!(running.snapshot().await.nodes.is_empty());
    running.fake.set_nodes(vec![Node::example("build-1")]);
    let shown = async || {
        let snapshot = running.snapshot().await;
        let figures = running.request(Command::GetFigures).await.unwrap();
        let shown: Vec<String> = snapshot.nodes.into_iter().map(|node| node.name).collect();
        let counted: Vec<String> = figures.nodes.into_iter().map(|node| node.name).collect();
        assert_eq!(shown, counted);
        shown
    };
    assert_eq!(shown().await, ["build-1"]);
    running.fake.set_away(true);
    assert_eq!(shown().await, ["build-1"]);
    running.fake.set_away(false);
    running.fake.set_nodes(Vec::new());
    assert!(shown().await.is_empty());
}

#[tokio::test]
async fn a_runner_that_exits_because_it_is_too_old_makes_the_next_launch_pull() {
    let exited = |runner: &str, survey: bool| match survey {
        false => Event::ContainerExited { runner: runner.into(), status: 7.into() },
        true => Event::Survey {
            provider: 0,
            containers: vec![Adopted {
                runner: runner.into(),
                pool: "small".into(),
                provider: 0,
                target: "repo:acme/app".parse().unwrap(),
                registration_id: None,
                job: None,
                created_at: clock::now().wall,
                container: AdoptedContainer::Exited(7.into()),
                parameters: Parameters::default(),
                devices: Vec::new(),
                parked: None,
            }],
            taken_at: clock::now().instant,
        },
    };
    for survey in [false, true] {
        let running = Running::start(SHORT_GRACE);
        // That of the start.
        running.fake.called("refresh runner").await;
        let _image = running.fake.hold_next("prepare");
        running.event(Event::Recovered { provider: 0 }).await;
        running.adopt("edge-small-a", false).await;
        running.event(exited("edge-small-a", survey)).await;
        running.event(Event::JobQueued(job(1, "linux"))).await;
        time::timeout(GRACE, running.fake.called("prepare runner")).await.unwrap();
        let calls = running.fake.calls();
        assert_eq!(calls.iter().filter(|call| *call == "refresh runner").count(), 2, "{calls:?}");
        running.stop().await;
    }
}
