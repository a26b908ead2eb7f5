//! `serve` with a store that several sidecars share. All of them accept deliveries and answer
//! questions; the one that holds the lease plans, and the others ask it.

use std::{
    iter,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use super::planner::{DRIVER, Inputs, Planner};
use crate::{
    control::{
        clock,
        command::{self, Answer, Command, CommandError, CommandSender, Readiness, job_event},
        leadership::Leadership,
        request::Request,
        sidecars::Sidecars,
        supervisor::Supervisor,
    },
    store::{Cluster, FeedPosition, MemberFigures, Store, Term, Topic},
    telemetry::{metrics, outage::Outage},
};

/// How often the lease is tried for: a sidecar that was killed announces nothing.
const TRY_EVERY: Duration = Duration::from_millis(250);
/// How often deliveries and requests are looked for without a notification.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const RENEW_EVERY: Duration = Duration::from_secs(2);
const RENEW_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// How long a sidecar acts after it has asked for the lease: less than Postgres' own 6 s, so that
/// it has stopped when another one begins.
const HELD_FOR: Duration = Duration::from_secs(4);
/// Deliveries that arrive within this time are read together.
const GATHER_FOR: Duration = Duration::from_millis(5);
/// How long the one that plans may take to answer.
const REPLY_LIMIT: Duration = Duration::from_secs(5);
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// One of the sidecars.
pub(super) struct Sidecar {
    pub(super) cluster: Cluster,
    pub(super) planner: Planner,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) position: Position,
    pub(super) sidecars: Sidecars,
    pub(super) shutdown: CancellationToken,
}

/// Up to where the deliveries of all sidecars are read; `None` while another one plans.
#[derive(Clone, Default)]
pub(super) struct Position(Arc<Mutex<Option<FeedPosition>>>);

impl Position {
    fn set(&self, position: Option<FeedPosition>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }

    fn get(&self) -> Option<String> {
        let position = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        position.as_ref().map(|position| position.as_str().to_owned())
    }
}

impl Sidecar {
    /// Plans whenever it gets the lease, until the shutdown.
    pub(super) async fn run(mut self) -> Result<()> {
        while let Some((term, leadership)) = self.stand_by().await {
            self.sidecars.leads(leadership.clone());
            metrics::term_begun();
            let planned = self.plan(term, &leadership).await;
            if !self.shutdown.is_cancelled() {
                metrics::term_lost();
            }
            // Nothing acts any more before another sidecar may.
            leadership.end();
            self.position.set(None);
            if let Err(error) = self.cluster.release_lease(term).await {
                warn!(%error, "the lease is not released: another sidecar gets it within 6 s");
            }
            planned?;
        }
        Ok(())
    }

    /// Waits for the lease. `None`: the sidecar is to end.
    async fn stand_by(&mut self) -> Option<(Term, Leadership)> {
        let mut freed = self.cluster.notifications(Topic::Lease);
        let outage = Outage::new("the lease cannot be asked for");
        for wait in iter::once(Duration::ZERO).chain(iter::repeat(TRY_EVERY)) {
            let cluster = self.cluster.clone();
            let mut taken = pin!(async {
                freed.next_within(wait).await;
                let asked_at = clock::now().instant;
                (asked_at, cluster.take_lease().await)
            });
            let (asked_at, taken) = loop {
                tokio::select! {
                    biased;
                    () = self.shutdown.cancelled() => return None,
                    taken = &mut taken => break taken,
                    Some(command) = self.commands.recv() => {
                        forward(&self.cluster, &mut self.planner, command);
                    }
                }
            };
            outage.observe(&taken);
            if let (true, Ok(None)) = (wait.is_zero(), &taken) {
                info!("another sidecar plans: this one stands by");
            }
            if let Ok(Some(term)) = taken {
                return Some((term, Leadership::of_term(term, asked_at + HELD_FOR)));
            }
        }
        None
    }

    /// Plans until the shutdown, or until the leadership ends. An error is one of a part that ended
    /// early.
    async fn plan(&mut self, term: Term, leadership: &Leadership) -> Result<()> {
        info!(term = term.0, "this sidecar plans");
        let kept = keep(self.cluster.clone(), term, leadership.clone());
        let _kept = AbortOnDropHandle::new(tokio::spawn(kept));
        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let (commands, receiver) = command::channel();
        let started = async {
            // Before the state is read, so that nothing is stored in between.
            let position = self.cluster.feed_position().await?;
            let channel = (commands.clone(), receiver);
            let inputs =
                self.planner.start(leadership, &mut supervisor, &shutdown, channel).await?;
            Ok::<_, anyhow::Error>((position, inputs))
        };
        let (position, inputs) = match leadership.run_while_held(started).await {
            Some(Ok(started)) => started,
            failed => {
                if let Some(Err(error)) = failed {
                    warn!(error = format!("{error:#}"), "this sidecar cannot plan now");
                }
                supervisor.abort();
                return Ok(());
            }
        };
        let feed = follow(self.cluster.clone(), position, self.position.clone(), inputs);
        supervisor.spawn_endless("deliveries", leadership.run_endless(feed));
        let answers = answer(self.cluster.clone(), commands.clone());
        supervisor.spawn_endless("requests", leadership.run_endless(answers));
        let end = loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {
                    shutdown.cancel();
                    let finished = supervisor.finish(DRIVER, self.planner.stop_limit());
                    leadership.run_while_held(finished).await;
                    break Ok(());
                }
                () = leadership.ended() => {
                    warn!(term = term.0, "this sidecar plans no more, and tries for the lease again");
                    break Ok(());
                }
                error = supervisor.first_exit() => break Err(error),
                Some(command) = self.commands.recv() => {
                    if let Command::SetPools(pools) = &command {
                        self.planner.set_pools(pools.clone());
                    }
                    // The driver ends only with the term.
                    let _ = commands.send(command).await;
                }
            }
        };
        supervisor.abort();
        end
    }
}

/// Renews the lease for as long as that succeeds in time.
async fn keep(cluster: Cluster, term: Term, leadership: Leadership) {
    let outage = Outage::new("the lease is not renewed yet");
    let mut renew_at = Instant::now() + RENEW_EVERY;
    loop {
        sleep_until(renew_at.min(Instant::now() + leadership.left())).await;
        let (asked_at, begun) = (clock::now().instant, Instant::now());
        let left = leadership.left();
        let renewed = timeout(left, cluster.renew_lease(term)).await;
        if let Ok(renewed) = &renewed {
            outage.observe(renewed);
        }
        match renewed {
            Ok(Ok(true)) if leadership.is_held() => {
                leadership.prolong(asked_at + HELD_FOR);
                renew_at = begun + RENEW_EVERY;
            }
            Ok(Ok(false)) => {
                warn!(term = term.0, "the lease has run out, or another sidecar has it");
                return leadership.end();
            }
            Ok(Err(_)) if leadership.is_held() => renew_at = Instant::now() + RENEW_AGAIN_AFTER,
            _ => {
                warn!(term = term.0, "the lease was not renewed within {HELD_FOR:?}");
                return leadership.end();
            }
        }
    }
}

/// Plans for what any sidecar has stored.
async fn follow(cluster: Cluster, mut read: FeedPosition, position: Position, inputs: Inputs) {
    let Inputs { events, arrivals } = inputs;
    let mut news = cluster.notifications(Topic::Deliveries);
    let outage = Outage::new("new deliveries cannot be read: they are planned for once they can");
    loop {
        let found = cluster.deliveries_after(&read).await;
        outage.observe(&found);
        if let Ok((deliveries, next)) = found {
            if let Some(arrivals) = arrivals.as_ref().filter(|_| !deliveries.is_empty()) {
                // If it is full, the next delivery shows the same webhook and repository.
                let _ = arrivals.try_send(deliveries.clone().into());
            }
            for delivery in deliveries {
                let event = job_event(delivery.state, delivery.job, delivery.runner_name);
                events.send(event).await;
            }
            read = next;
            position.set(Some(read.clone()));
        }
        sleep(GATHER_FOR).await;
        news.next_within(LOOK_EVERY).await;
    }
}

/// Answers the sidecars that do not plan.
async fn answer(cluster: Cluster, commands: CommandSender) {
    let mut news = cluster.notifications(Topic::Requests);
    let outage = Outage::new("requests of other sidecars cannot be read");
    loop {
        let requests = cluster.open_requests::<Request>().await;
        outage.observe(&requests);
        for (id, request) in requests.unwrap_or_default() {
            let request = match request {
                Ok(request) => request,
                // Its sidecar has another release.
                Err(error) => {
                    warn!(error, "a request of another sidecar is not understood");
                    continue;
                }
            };
            if let Some(reply) = request.carry_out(&commands).await
                && let Err(error) = cluster.reply(id, &reply).await
            {
                warn!(%error, "a request of another sidecar is not answered");
            }
        }
        news.next_within(LOOK_EVERY).await;
    }
}

/// Carries out a command on a sidecar that does not plan.
fn forward(cluster: &Cluster, planner: &mut Planner, command: Command) {
    let cluster = cluster.clone();
    match command {
        // The planner reads deliveries from the store.
        Command::Event(_) => {}
        Command::SetPools(pools) => planner.set_pools(pools),
        // It accepts deliveries, whoever plans for them.
        Command::GetReadiness(reply) => drop(reply.send(Readiness::Ready)),
        // Those of the one that plans are its own to export.
        Command::GetFigures(reply) => drop(reply.send(None)),
        Command::GetSnapshot(reply) => ask(cluster, Request::Snapshot, reply),
        Command::GetQueued { jobs, reply } => ask(cluster, Request::queued(&jobs), reply),
        Command::Drain { pool, draining, reply } => {
            ask(cluster, Request::Drain { pool, draining }, reply);
        }
        Command::Retry { reply } => ask(cluster, Request::Retry, reply),
        Command::RemoveRunner { runner, force, reply } => {
            ask(cluster, Request::RemoveRunner { runner, force }, reply);
        }
    }
}

/// Asks the sidecar that plans.
fn ask<T: serde::de::DeserializeOwned + Send + 'static>(
    cluster: Cluster,
    request: Request,
    reply: Answer<T>,
) {
    tokio::spawn(async move {
        let answer = match cluster.ask(&request, REPLY_LIMIT).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(CommandError::NoPlanner),
            Err(error) => Err(CommandError::NotAsked(error.to_string())),
        };
        // The caller may no longer wait.
        let _ = reply.send(answer);
    });
}

/// Reports to the other sidecars that this one is alive, and reads their reports.
pub(super) async fn report(cluster: Cluster, store: Store, position: Position, sidecars: Sidecars) {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let started = clock::now().wall;
    let outage = Outage::new("this sidecar cannot report to the others that it is alive");
    loop {
        let figures = MemberFigures {
            queued_writes: store.queued_writes(),
            position: position.get(),
            configuration: sidecars.configuration(),
        };
        let reported = async {
            let reported = cluster.report(&name, started, &figures).await;
            // Also notes whether the store answers.
            let looked = sidecars.look().await;
            reported.and(looked.map(drop))
        };
        outage.observe(&reported.await);
        sleep(REPORT_EVERY).await;
    }
}
