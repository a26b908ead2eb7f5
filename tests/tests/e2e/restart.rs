//! Restarts under load: GitHub must not notice that the sidecar or Envoy was away for a moment,
//! since it does not repeat a delivery that failed.

use std::{
    collections::HashSet,
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use edgerunner_testkit::{Envoy, Sidecar};
use edgerunner_tests::{Answer, Edge, Options, Stack, Webhook, eventually};
use futures_util::future::{try_join, try_join_all};
use tempfile::TempDir;
use tokio::time::sleep;

/// How long the sidecar is away, without the time that it takes to stop and to start.
const AWAY: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 8;
/// Of each connection, between an answer and the next delivery.
const PAUSE: Duration = Duration::from_millis(5);

/// Deliveries at a steady rate.
#[derive(Default)]
pub(crate) struct Load {
    jobs: AtomicU64,
    answered: AtomicU64,
    slowest_ms: AtomicU64,
    done: AtomicBool,
}

/// What a [`Load`] has sent.
pub(crate) struct Sent {
    /// How many. All were accepted.
    pub(crate) count: u64,
    /// The longest time until an answer.
    pub(crate) slowest: Duration,
    /// The answer to one that was held.
    held: Option<Answer>,
}

impl Load {
    /// Sends until `action` is done, and for a while after it. All must be accepted.
    pub(crate) async fn during(
        envoy: &Envoy,
        action: impl AsyncFnOnce(&Self) -> Result<()>,
    ) -> Result<Sent> {
        let load = Self::default();
        let act = async {
            load.some_answered().await?;
            action(&load).await?;
            load.some_answered().await?;
            load.done.store(true, Ordering::Relaxed);
            Ok(())
        };
        let send = try_join_all((0..CONNECTIONS).map(|_| load.send(envoy)));
        let (held, ()) = try_join(send, act).await?;
        Ok(Sent {
            count: load.jobs.into_inner(),
            slowest: Duration::from_millis(load.slowest_ms.into_inner()),
            held: held.into_iter().flatten().next(),
        })
    }

    async fn send(&self, envoy: &Envoy) -> Result<Option<Answer>> {
        let mut held = None;
        while !self.done.load(Ordering::Relaxed) {
            let job = 1 + self.jobs.fetch_add(1, Ordering::Relaxed);
            let sent = Instant::now();
            let answer = envoy.send(&Webhook::job(job)).await?;
            ensure!((answer.status, answer.outcome()) == (202, "accepted"), "{answer:?}");
            let ms = u64::try_from(sent.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.slowest_ms.fetch_max(ms, Ordering::Relaxed);
            self.answered.fetch_add(1, Ordering::Relaxed);
            if !answer.header("x-edgerunner-held-ms").is_empty() {
                held = Some(answer);
            }
            sleep(PAUSE).await;
        }
        Ok(held)
    }

    /// Waits until each connection had another answer.
    pub(crate) async fn some_answered(&self) -> Result<()> {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("deliveries are answered", async || {
            let answered = self.answered.load(Ordering::Relaxed) - before;
            Ok((answered > 2 * CONNECTIONS as u64).then_some(()))
        })
        .await
    }
}

/// The GUIDs of the events that were stored. A kill between commit and log makes the
/// repetition a duplicate, so those count as well.
pub(crate) fn stored(sidecar: &Sidecar) -> Result<HashSet<String>> {
    let log = sidecar.log()?;
    let lines = log.lines().filter(|line| line.contains("event stored"));
    let deliveries =
        lines.filter_map(|line| line.split("\"delivery\":\"").nth(1)?.split('"').next());
    Ok(deliveries.map(str::to_owned).collect())
}

/// How many events were stored.
fn stored_count(sidecar: &Sidecar) -> Result<u64> {
    Ok(stored(sidecar)?.len() as u64)
}

#[derive(Clone, Copy)]
enum Outage {
    Terminated,
    Killed,
    Frozen,
}

/// The sidecar is away for two to three seconds, and nobody notices.
async fn outage(edge: Edge, outage: Outage) {
    Stack::run(Options::default().edge(edge), async |stack| -> Result<()> {
        let Stack { envoy, sidecar, .. } = stack;
        let sent = Load::during(envoy, async |_| {
            match outage {
                Outage::Terminated => sidecar.terminate().await?,
                Outage::Killed => sidecar.kill().await?,
                Outage::Frozen => sidecar.freeze()?,
            }
            sleep(AWAY).await;
            match outage {
                Outage::Frozen => sidecar.thaw(),
                Outage::Terminated | Outage::Killed => sidecar.start().await,
            }
        })
        .await?;
        let (stored, count) = (stored_count(sidecar)?, sent.count);
        ensure!(stored == count, "{stored} of {count} stored");
        let unavailable = "wasmcustom.edgerunner.deliveries.hook.default.outcome.unavailable";
        ensure!(envoy.stat(unavailable).await? == 0);
        if matches!(outage, Outage::Frozen) {
            // They were sent, and the reply came late.
            return Ok(());
        }

        let held = sent.held.context("no delivery was held")?;
        let guid = held.json()?["delivery"].as_str().context("no delivery")?.to_owned();
        let line = envoy.access_log_line(&guid).await?;
        ensure!(line["held_ms"] == held.header("x-edgerunner-held-ms"), "{line}");
        ensure!(envoy.stat("wasmcustom.edgerunner.held").await? >= CONNECTIONS as u64);
        let metrics = envoy.prometheus().await?;
        ensure!(metrics.contains("edgerunner_held_ms_count"), "{metrics}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_restart_of_the_sidecar_under_load_is_not_noticed() {
    outage(Edge::Plain, Outage::Terminated).await;
}

#[tokio::test]
async fn a_kill_of_the_sidecar_under_load_is_not_noticed() {
    outage(Edge::UnixSocket, Outage::Killed).await;
}

#[tokio::test]
async fn a_restart_of_the_only_sidecar_behind_mutual_tls_is_not_noticed() {
    outage(Edge::Production, Outage::Terminated).await;
}

#[tokio::test]
async fn a_sidecar_that_hangs_for_a_moment_is_waited_for() {
    outage(Edge::Plain, Outage::Frozen).await;
}

/// Sends deliveries as soon as Envoy listens. All must be accepted.
async fn at_once(envoy: &Envoy, webhook: impl Fn(u64) -> Webhook) -> Result<()> {
    let webhooks: Vec<Webhook> = (1..=20).map(webhook).collect();
    let answers = try_join_all(webhooks.iter().map(async |webhook| {
        // Refused connections only.
        eventually("Envoy listens", async || Ok(Some(envoy.send(webhook).await?))).await
    }));
    for answer in answers.await? {
        ensure!((answer.status, answer.outcome()) == (202, "accepted"), "{answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_first_deliveries_after_the_start_of_envoy_are_accepted() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        stack.envoy.restart().await?;
        at_once(&stack.envoy, Webhook::job).await?;
        ensure!(stored_count(&stack.sidecar)? == 20);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn envoy_may_start_before_the_sidecar() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        stack.sidecar.terminate().await?;
        stack.envoy.restart().await?;
        stack.envoy.ready().await?;
        let Stack { envoy, sidecar, .. } = stack;
        try_join(at_once(envoy, Webhook::job), sidecar.start()).await?;
        ensure!(stored_count(sidecar)? == 20);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn envoy_may_start_before_the_sidecar_that_has_its_secrets() {
    const SECRETS_ENV: &str = r#""secrets_env": [
                                    "GITHUB_WEBHOOK_SECRET",
                                    "GITHUB_WEBHOOK_SECRET_PREVIOUS"
                                  ]"#;
    let directory = TempDir::new().expect("a temporary directory");
    let secret = directory.path().join("secret");
    fs::write(&secret, "only the sidecar knows").expect("a file");
    let options = Options::default()
        .file(&format!("[[webhooks]]\nsecret_files = [{secret:?}]\n"))
        .envoy_configuration(SECRETS_ENV, r#""secrets_from": "sidecar""#);
    Stack::run(options, async |stack| -> Result<()> {
        let genuine = |job| Webhook::job(job).signed_with("only the sidecar knows");
        stack.sidecar.terminate().await?;
        stack.envoy.restart().await?;
        stack.envoy.ready().await?;
        let Stack { envoy, sidecar, .. } = stack;
        let forged = async {
            let answer = envoy.send(&Webhook::job(99)).await?;
            ensure!(answer.outcome() == "signature_mismatch", "{answer:?}");
            Ok(())
        };
        let sent = try_join(at_once(envoy, genuine), forged);
        try_join(sent, sidecar.start()).await?;
        ensure!(stored_count(sidecar)? == 20);

        // Without the sidecar there is an answer all the same.
        sidecar.terminate().await?;
        envoy_restarted(envoy, &genuine(100)).await
    })
    .await;
}

/// A delivery to an Envoy that finds no sidecar is answered with 503.
async fn envoy_restarted(envoy: &mut Envoy, webhook: &Webhook) -> Result<()> {
    envoy.restart().await?;
    envoy.ready().await?;
    let answer = envoy.send(webhook).await?;
    ensure!((answer.status, answer.outcome()) == (503, "unavailable"), "{answer:?}");
    ensure!(answer.reason()?.contains("secret"), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn envoy_restarts_under_load_and_every_answer_is_true() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let Stack { envoy, sidecar, .. } = stack;
        let mut accepted = 0;
        for round in 0..5_u64 {
            let webhooks: Vec<Webhook> =
                (1..=40).map(|job| Webhook::job(100 * round + job)).collect();
            let address = envoy.address();
            let send = async {
                let answers = webhooks.iter().map(async |webhook| {
                    // Connections break: GitHub would record a failure.
                    let answer =
                        edgerunner_testkit::client::send(address, webhook.request()?).await;
                    anyhow::Ok(answer.ok())
                });
                try_join_all(answers).await
            };
            let (answers, ()) = try_join(send, envoy.restart()).await?;
            for answer in answers.into_iter().flatten() {
                ensure!((answer.status, answer.outcome()) == (202, "accepted"), "{answer:?}");
                accepted += 1;
            }
            at_once(envoy, |job| Webhook::job(10_000 + 100 * round + job)).await?;
            accepted += 20;
        }
        let stored = stored_count(sidecar)?;
        ensure!(stored >= accepted, "{accepted} accepted, {stored} stored");
        Ok(())
    })
    .await;
}
