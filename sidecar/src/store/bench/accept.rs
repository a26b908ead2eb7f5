//! A benchmark of the intake: how many deliveries a second are on disk, with SQLite, and with
//! Postgres for one and for two sidecars.

use std::{
    path::Path,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};

use super::month::{Failure, delivery};
use crate::{
    config,
    store::{Closed, Store, StoreOutcome},
};
use edgerunner_scheduler::model::{Host, JobState};

/// Deliveries that each sidecar has received and not answered.
const IN_FLIGHT: [u64; 2] = [25, 250];
const DURATION: Duration = Duration::from_secs(2);
/// Of one sidecar with Postgres, with many deliveries in flight.
const GOAL: u64 = 5_000;

/// One sidecar, with the runtime that it would have.
struct Sidecar {
    runtime: Runtime,
    store: Store,
    closed: Closed,
}

impl Sidecar {
    fn open(open: impl AsyncFnOnce() -> Result<(Store, Closed), Failure>) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (store, closed) = runtime.block_on(open())?;
        Ok(Self { runtime, store, closed })
    }

    /// How many deliveries a second are stored. `next` counts the jobs.
    fn accept(&self, in_flight: u64, next: &Arc<AtomicU64>) -> u64 {
        let begun = Instant::now();
        let accepted = self.runtime.block_on(async {
            let callers = (0..in_flight).map(|_| {
                let (store, next) = (self.store.clone(), Arc::clone(next));
                tokio::spawn(async move {
                    let mut accepted = 0_u64;
                    while begun.elapsed() < DURATION {
                        let job = next.fetch_add(1, Ordering::Relaxed);
                        let delivery = delivery(job, JobState::Queued, job);
                        let outcome = store.deliver([delivery].into()).await;
                        assert_eq!(outcome.expect("a commit"), [StoreOutcome::Advanced]);
                        accepted += 1;
                    }
                    accepted
                })
            });
            let mut accepted = 0;
            for caller in callers.collect::<Vec<_>>() {
                accepted += caller.await.expect("a caller");
            }
            accepted
        });
        (accepted as f64 / begun.elapsed().as_secs_f64()) as u64
    }

    fn close(self) {
        drop(self.store);
        self.runtime.block_on(self.closed.wait());
    }
}

/// Prints deliveries a second, of the database at `path` and of a Postgres server's. `rounds`:
/// measurements of each, in turns. Returns whether the goal is reached.
pub fn accept(path: &Path, url: &str, rounds: u32) -> Result<bool, Failure> {
    let url = url.parse::<config::DatabaseUrl>()?;
    let database = config::Database { url, password_file: None, ca: Vec::new() };
    let postgres = || Sidecar::open(async || Ok(Store::connect(&database, |_| {}).await?));
    let sqlite = Sidecar::open(async || Ok(Store::open(path, Host::default(), |_| {})?))?;
    let (one, two) = (postgres()?, postgres()?);
    let next = Arc::new(AtomicU64::new(1));
    let mut is_reached = true;
    println!("deliveries accepted a second: median of {rounds} (lowest to highest)\n");
    for in_flight in IN_FLIGHT {
        let mut results = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            results[0].push(sqlite.accept(in_flight, &next));
            results[1].push(one.accept(in_flight, &next));
            results[2].push(together(&one, &two, in_flight, &next));
        }
        println!("{in_flight} in flight at each sidecar");
        for results in &mut results {
            results.sort_unstable();
        }
        let median = |results: &Vec<u64>| results[results.len() / 2];
        let base = median(&results[0]);
        let names = ["SQLite", "Postgres", "Postgres, two sidecars"];
        for (name, results) in names.into_iter().zip(&results) {
            let (median, last) = (median(results), results.len() - 1);
            println!(
                "  {name:<24}{median:>7}  ({} to {}), {:.2} of SQLite",
                results[0],
                results[last],
                median as f64 / base as f64
            );
        }
        is_reached = median(&results[1]) >= GOAL;
    }
    for sidecar in [sqlite, one, two] {
        sidecar.close();
    }
    Ok(is_reached)
}

/// Of both at the same time.
fn together(one: &Sidecar, two: &Sidecar, in_flight: u64, next: &Arc<AtomicU64>) -> u64 {
    let barrier = Barrier::new(2);
    let run = |sidecar: &Sidecar| {
        barrier.wait();
        sidecar.accept(in_flight, next)
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| run(two));
        run(one) + other.join().expect("a sidecar")
    })
}
