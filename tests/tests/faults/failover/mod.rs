//! Several sidecars that share a Postgres store: the one that plans is killed, stopped or cut off
//! from Postgres, and Postgres is restarted.

mod events;
mod history;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use edgerunner_sandbox::{JobRequest, JobStatus, Sandbox};
use edgerunner_tests::{
    Options, Postgres, Sidecar, Stack, TcpProxy, Traffic, eventually_within, ports,
};
use fastrand::Rng;
use jiff::Timestamp;
use tokio::sync::SemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::account::{Account, redelivering};
use crate::figures::Figures;
use crate::plan::Plan;
use events::Events;
use history::{History, Holder, Stop};

const MAX: usize = 4;
/// More than runners, so that a runner that ends is replaced at once.
const JOBS_MAX: usize = 3 * MAX;
const JOB_EVERY_MS: RangeInclusive<u64> = 50..=250;
const WORK_MS: RangeInclusive<u32> = 300..=1_500;
/// The long form launches more than GitHub permits with one credential.
const REQUESTS_PER_HOUR: u32 = 50_000;
/// Before each fault.
const PAUSE_MS: RangeInclusive<u64> = 2_200..=4_000;
/// How long a sidecar is away that was killed.
const AWAY_MS: RangeInclusive<u64> = 0..=8_000;
/// How long one is stopped or cut off, in turns: it holds the lease no longer, or it still may.
const STOPPED_MS: [RangeInclusive<u64>; 2] = [7_000..=15_000, 1_000..=6_000];
/// While no events come, at the begin of a cut.
const QUIET: Duration = Duration::from_millis(500);
/// How long Postgres is away.
const RESTART_MS: RangeInclusive<u64> = 0..=3_000;
/// How often a launch is looked for; its time is exact.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A launch that was on its way when the fault began does not count.
const ON_ITS_WAY: Duration = Duration::from_millis(250);
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// A planner that learns only from the store that a runner's job is over waits for a minute until
/// it is sure.
const RECORDS_LIMIT: Duration = Duration::from_secs(90);
/// The next launch after a fault, of 95 %.
const GOAL: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Killed,
    Stopped,
    /// Nothing from or to Postgres arrives for a while.
    CutOff,
    /// Connections to Postgres are refused for a while.
    Refused,
    PostgresRestarted,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Killed => "killed",
            Self::Stopped => "stopped",
            Self::CutOff => "cut off from Postgres",
            Self::Refused => "refused by Postgres",
            Self::PostgresRestarted => "Postgres restarted",
        })
    }
}

/// In random order.
fn faults(plan: &Plan, random: &mut Rng) -> Vec<Fault> {
    let each = plan.pick(2, 50);
    let cut_off = [Fault::CutOff, Fault::Refused].into_iter().cycle();
    let mut faults: Vec<Fault> = [Fault::Killed, Fault::Stopped]
        .into_iter()
        .flat_map(|fault| std::iter::repeat_n(fault, each))
        .chain(cut_off.take(each))
        .chain([Fault::PostgresRestarted])
        .collect();
    random.shuffle(&mut faults);
    faults
}

pub(crate) async fn run(plan: &Plan, sidecars: usize) -> Figures {
    let postgres = spawn_blocking(Postgres::start).await.expect("no panic").expect("Postgres");
    let postgres = Arc::new(postgres);
    let database = postgres.database().expect("a database");
    let mut random = plan.random();
    let faults = faults(plan, &mut random);
    let mut proxies = Vec::new();
    for _ in 0..sidecars {
        let proxy = TcpProxy::start(ports::local(postgres.port())).await;
        proxies.push(proxy.expect("a proxy"));
    }
    let options = Options::default()
        .sidecars(sidecars)
        .store_url(&postgres.url(&database))
        .sidecar("RUNNER_MAX", &MAX.to_string())
        .requests_per_hour(REQUESTS_PER_HOUR)
        // A line for each event is too much.
        .sidecar("LOG_LEVEL", "info,edgerunner=debug,edgerunner::intake=warn");
    Stack::run(options, async |stack| {
        let mut account = Account::open(MAX);
        start_with_proxies(stack, &proxies, &postgres, &database).await?;
        let Stack { sandbox, sidecar, others, envoy, .. } = &mut *stack;
        let events = Events::send(envoy.address(), plan.pick(60, 500), random.fork());
        let mut cluster = Cluster {
            database: Database { postgres: Arc::clone(&postgres), name: database.clone() },
            sidecars: [sidecar].into_iter().chain(others).collect(),
            proxies: &proxies,
            stops: Vec::new(),
            endured: BTreeMap::new(),
        };
        let begun = Instant::now();
        let load = jobs(sandbox, random.fork());
        tokio::select! {
            done = cluster.endure(&faults, &events, &mut random) => done?,
            never = load => match never {},
            never = redelivering(sandbox) => match never {},
        }
        let per_second = events.accepted() as f64 / begun.elapsed().as_secs_f64();
        let Cluster { stops, endured, .. } = cluster;
        let answers = tokio::select! {
            answers = events.end() => answers?,
            never = redelivering(sandbox) => match never {},
        };
        account.faults += faults.len();
        let figures = account.close(stack).await?;
        let history = History { postgres: &postgres, database: &database };
        eventually_within(RECORDS_LIMIT, "all jobs and runners have ended", async || {
            sleep(LOOK_EVERY).await;
            let open = history.open()?;
            ensure!(open.is_empty(), "{open}");
            Ok(Some(()))
        })
        .await?;
        let terms = history.check(&stack.sandbox, stack.sidecars(), &stops)?;
        let failed: Vec<u16> = stack.sandbox.deliveries().iter().map(|it| it.status_code).collect();
        let failed = failed.into_iter().filter(|status| *status != 202).count();
        println!(
            "{sidecars} sidecars, seed {}: {} events accepted, {per_second:.0} a second; \
             answers {:?}, the slowest in {:.1?}; of the jobs' own, {failed} others than 202; \
             {terms} terms; {} launches for {} jobs",
            plan.seed,
            answers.accepted,
            answers.all,
            answers.slowest,
            figures.launches,
            figures.ran,
        );
        print(&endured);
        let all = endured.into_values().flat_map(|endured| endured.recoveries).collect();
        // A few may be slow by chance, or because the machine is busy.
        ensure!(!plan.long || percentile(all, 95) <= GOAL, "the goal is {GOAL:?}");
        Ok(figures)
    })
    .await
}

/// Starts each sidecar again with a role of its own, and its connections through its proxy.
async fn start_with_proxies(
    stack: &mut Stack,
    proxies: &[TcpProxy],
    postgres: &Postgres,
    database: &str,
) -> Result<()> {
    for sidecar in stack.sidecars_mut() {
        sidecar.terminate().await?;
    }
    History { postgres, database }.begin()?;
    for (position, (sidecar, proxy)) in stack.sidecars_mut().zip(proxies).enumerate() {
        let (role, port) = (role(position), proxy.address().port());
        postgres.sql(database, &format!("CREATE ROLE {role} LOGIN SUPERUSER"))?;
        let url = format!("postgres://{role}@127.0.0.1:{port}/{database}?sslmode=disable");
        sidecar.configure("STORE_URL", &url);
        sidecar.start().await?;
    }
    Ok(())
}

fn role(position: usize) -> String {
    format!("sidecar_{position}")
}

/// Queues jobs at random moments until it is dropped.
async fn jobs(sandbox: &Sandbox, mut random: Rng) -> Infallible {
    loop {
        let left = sandbox.jobs().iter().filter(|it| it.status != JobStatus::Completed).count();
        if left < JOBS_MAX {
            let seconds = f64::from(random.u32(WORK_MS)) / 1_000.0;
            sandbox.queue_job(&JobRequest { seconds, ..JobRequest::default() });
        }
        sleep(Duration::from_millis(random.u64(JOB_EVERY_MS))).await;
    }
}

/// The one that the sidecars share, asked on another thread.
struct Database {
    postgres: Arc<Postgres>,
    name: String,
}

impl Database {
    /// Waits until one plans.
    async fn holder(&self) -> Result<Holder> {
        eventually_within(RECOVERY_LIMIT, "a sidecar plans", async || {
            sleep(LOOK_EVERY).await;
            self.ask(|history| history.holder()).await
        })
        .await
    }

    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(History<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (postgres, database) = (Arc::clone(&self.postgres), self.name.clone());
        spawn_blocking(move || ask(History { postgres: &postgres, database: &database })).await?
    }

    async fn launched_after(&self, begun: i64) -> Result<i64> {
        let time = begun + i64::try_from(ON_ITS_WAY.as_millis())?;
        eventually_within(RECOVERY_LIMIT, "a runner is launched", async || {
            sleep(LOOK_EVERY).await;
            self.ask(move |history| history.launched_after(time)).await
        })
        .await
    }
}

struct Cluster<'a> {
    database: Database,
    sidecars: Vec<&'a mut Sidecar>,
    /// Between each sidecar and Postgres.
    proxies: &'a [TcpProxy],
    stops: Vec<Stop>,
    endured: BTreeMap<Fault, Endured>,
}

/// What faults of one kind did.
#[derive(Clone, Default)]
struct Endured {
    /// From each fault to the next launch.
    recoveries: Vec<Duration>,
    /// Events that were answered with anything but 202, until the next fault.
    refused: usize,
}

impl Cluster<'_> {
    async fn endure(&mut self, faults: &[Fault], events: &Events, random: &mut Rng) -> Result<()> {
        let mut last = None;
        let mut refused = 0;
        for fault in faults {
            let pause = Duration::from_millis(random.u64(PAUSE_MS));
            self.database.holder().await?;
            sleep(pause).await;
            // All of them run, and any of them may be asked.
            events.are_known(async || self.sidecars[0].status().await).await?;
            let Holder { role, term } = self.database.holder().await?;
            self.count_refused(last.replace(*fault), events, &mut refused);
            // So that what is held is a write of the planner, and arrives after its term.
            let quiet = match fault {
                Fault::CutOff => Some(events.quiet().await?),
                _ => None,
            };
            let begun = now();
            let at = match self.strike(*fault, &role, (begun, quiet), random).await {
                Ok(at) => at,
                Err(error) => {
                    let planner = self.planner().await;
                    bail!("{role} in term {term}: {fault}: {error:#}\n{planner}");
                }
            };
            let took = Duration::from_millis(u64::try_from(at - begun)?);
            self.endured.entry(*fault).or_default().recoveries.push(took);
        }
        self.database.holder().await?;
        events.are_known(async || self.sidecars[0].status().await).await?;
        self.count_refused(last, events, &mut refused);
        Ok(())
    }

    /// What the planner knows, in short: most jobs wait for a pool that does not exist.
    async fn planner(&self) -> String {
        let status = match self.sidecars[0].status().await {
            Ok(status) => status,
            Err(error) => return format!("no status: {error:#}"),
        };
        let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
        for job in status["waiting"].as_array().into_iter().flatten() {
            *waiting.entry(job["message"].as_str().unwrap_or_default()).or_default() += 1;
        }
        let figures = ["recovered", "provider_error", "pools", "runners", "failures", "sidecars"];
        let figures = figures.map(|figure| format!("{figure}: {}", status[figure]));
        format!("{}\nwaiting: {waiting:?}", figures.join("\n"))
    }

    /// What was refused since the last call, for the fault in between.
    fn count_refused(&mut self, fault: Option<Fault>, events: &Events, before: &mut usize) {
        let refused = events.refused();
        if let Some(endured) = fault.and_then(|fault| self.endured.get_mut(&fault)) {
            endured.refused += refused - *before;
        }
        *before = refused;
    }

    /// Returns when a runner was launched after the fault, once the fault is over.
    async fn strike(
        &mut self,
        fault: Fault,
        role: &str,
        (begun, quiet): (i64, Option<SemaphorePermit<'_>>),
        random: &mut Rng,
    ) -> Result<i64> {
        let position = (0..self.sidecars.len()).find(|it| self::role(*it) == role);
        let position = position.context("an unknown role holds the lease")?;
        let before = self.endured.get(&fault).map_or(0, |endured| endured.recoveries.len());
        let stopped_ms = STOPPED_MS[before % STOPPED_MS.len()].clone();
        let mut ms = |range: RangeInclusive<u64>| Duration::from_millis(random.u64(range));
        match fault {
            Fault::Killed => {
                let away = ms(AWAY_MS);
                let sidecar = &mut self.sidecars[position];
                let killed = async {
                    sidecar.kill().await?;
                    sleep(away).await;
                    sidecar.start().await
                };
                let (at, ()) = tokio::try_join!(self.database.launched_after(begun), killed)?;
                Ok(at)
            }
            Fault::Stopped => {
                let time = ms(stopped_ms);
                let stopped = async {
                    self.sidecars[position].freeze()?;
                    sleep(time).await;
                    self.sidecars[position].thaw()
                };
                let (at, ()) = tokio::try_join!(self.database.launched_after(begun), stopped)?;
                self.stops.push(Stop { sidecar: position, from: begun, to: now() });
                Ok(at)
            }
            Fault::CutOff | Fault::Refused => {
                let time = ms(stopped_ms);
                let cut_off = async {
                    let is_cut_off = matches!(fault, Fault::CutOff);
                    let how = if is_cut_off { Traffic::Held } else { Traffic::Refused };
                    self.proxies[position].set(how);
                    if quiet.is_some() {
                        sleep(QUIET).await;
                    }
                    drop(quiet);
                    sleep(time).await;
                    self.proxies[position].set(Traffic::Passes);
                    Ok(())
                };
                let (at, ()) = tokio::try_join!(self.database.launched_after(begun), cut_off)?;
                Ok(at)
            }
            Fault::PostgresRestarted => {
                let postgres = Arc::clone(&self.database.postgres);
                spawn_blocking(move || postgres.stop()).await??;
                sleep(ms(RESTART_MS)).await;
                let postgres = Arc::clone(&self.database.postgres);
                spawn_blocking(move || postgres.run()).await??;
                self.database.launched_after(begun).await
            }
        }
    }
}

fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

fn print(endured: &BTreeMap<Fault, Endured>) {
    let mut all = Endured::default();
    for Endured { recoveries, refused } in endured.values() {
        all.recoveries.extend(recoveries);
        all.refused += refused;
    }
    let rows = endured.iter().map(|(fault, endured)| (fault.to_string(), endured.clone()));
    for (what, Endured { recoveries, refused }) in rows.chain([("all".to_owned(), all)]) {
        println!(
            "  {what:21} {:4} times; the next launch after p50 {:.2?}, p95 {:.2?}, at most {:.2?}; \
             {refused} answers others than 202",
            recoveries.len(),
            percentile(recoveries.clone(), 50),
            percentile(recoveries.clone(), 95),
            percentile(recoveries, 100),
        );
    }
}

/// By the nearest rank.
fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100);
    times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
