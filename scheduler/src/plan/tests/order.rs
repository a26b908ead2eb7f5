//! Whose turn it is, among targets that want more runners than there are places.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

/// A job of the `number`th repository.
fn of(number: u64, id: u64) -> Job {
    at(&format!("acme/r{number}"), linux(id))
}

/// Many places of which this repository takes all that it can.
fn crowded(order: Order, max: usize) -> Plan {
    let mut plan = Plan::with(Settings { order, ..settings(vec![linux_pool(max)]) });
    for id in 0..4 * max as u64 {
        plan.apply(Event::JobQueued(of(0, id)));
    }
    plan.take_jobs();
    plan
}

impl Plan {
    fn targets(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for runner in self.state.runners() {
            *found.entry(runner.target.to_string()).or_default() += 1;
        }
        found
    }

    /// Each runner that is launching takes the oldest job of its target.
    fn take_jobs(&mut self) {
        let launching = |runner: &&Runner| matches!(runner.phase, Phase::Provisioning(_));
        let runners: Vec<Runner> = self.state.runners().filter(launching).cloned().collect();
        for runner in runners {
            self.launched(&runner.name);
            let lane = &self.state.lanes[&runner.lane.unwrap()];
            let (_, oldest) = *lane.queued.first().unwrap();
            let job = self.state.jobs[&oldest].job.clone();
            self.apply(Event::JobStarted { job, runner: runner.name });
        }
    }

    /// Of those that run a job, the one that has run it longest. Returns where the next is launched.
    fn end_one(&mut self) -> Vec<String> {
        let busy = self.state.runners().filter(|runner| runner.phase == Phase::Busy);
        let oldest = busy.min_by_key(|runner| (runner.since.instant, runner.name.clone()));
        let runner = oldest.unwrap().name.clone();
        self.now += 1_000;
        let launched = launches(&self.exit(&runner, 0));
        let targets = launched.iter().map(|it| self.state.runner(it).unwrap().target.to_string());
        let targets = targets.collect();
        self.take_jobs();
        targets
    }
}

#[test]
fn the_target_with_the_fewest_runners_comes_next() {
    let mut plan = crowded(Order::Fair, 6);
    for (number, id) in [(1, 100), (1, 101), (2, 102)] {
        plan.now += 1_000;
        plan.apply(Event::JobQueued(of(number, id)));
    }
    let order: Vec<String> = (0..3).flat_map(|_| plan.end_one()).collect();
    assert_eq!(order, ["repo:acme/r1", "repo:acme/r2", "repo:acme/r1"]);
}

#[test]
fn the_oldest_job_comes_next_if_the_order_says_so() {
    let mut plan = crowded(Order::Oldest, 4);
    plan.now += 1_000;
    plan.apply(Event::JobQueued(of(1, 100)));
    let order: Vec<String> = (0..3).flat_map(|_| plan.end_one()).collect();
    assert_eq!(order, ["repo:acme/r0", "repo:acme/r0", "repo:acme/r0"]);
}

#[test]
fn runners_of_all_pools_count() {
    let pools = vec![linux_pool(10), pool("gpu", &["gpu"])];
    let mut plan = Plan::with(Settings { max: 4, ..settings(pools) });
    for id in 0..4 {
        plan.apply(Event::JobQueued(Job { repository: "acme/r1".into(), ..job(id, &["gpu"]) }));
    }
    plan.take_jobs();
    // The first repository has runners in another pool, and the older job.
    for (number, id) in [(1, 100), (2, 101)] {
        plan.now += 1_000;
        plan.apply(Event::JobQueued(of(number, id)));
    }
    assert_eq!(plan.end_one(), ["repo:acme/r2"]);
}

#[test]
fn a_priority_comes_before_the_number_of_runners() {
    let pools = vec![linux_pool(10), Pool { priority: 1, ..pool("gpu", &["gpu"]) }];
    let mut plan = Plan::with(Settings { max: 2, ..settings(pools) });
    for id in 0..6 {
        plan.apply(Event::JobQueued(Job { repository: "acme/r1".into(), ..job(id, &["gpu"]) }));
    }
    plan.take_jobs();
    plan.apply(Event::JobQueued(of(2, 100)));
    assert_eq!(plan.end_one(), ["repo:acme/r1"]);
}

#[test]
fn a_job_comes_before_a_runner_that_is_to_be_idle() {
    let warm = Pool {
        min_idle: 1,
        repositories: vec![RepositoryPattern::parse("acme/warm").unwrap()],
        ..pool("warm", &["warm"])
    };
    let settings = Settings { max: 2, ..settings(vec![linux_pool(10), warm]) };
    let mut plan = Plan::unrecovered_with(settings);
    for id in 0..4 {
        plan.apply(Event::JobQueued(of(0, id)));
    }
    plan.apply(Event::Recovered { provider: 0 });
    assert_eq!(plan.targets(), BTreeMap::from([("repo:acme/r0".to_owned(), 2)]));
}

#[test]
fn each_of_the_targets_that_ask_has_its_share_once_running_jobs_have_ended() {
    const MAX: usize = 12;
    for targets in 2..=8_u64 {
        let mut plan = crowded(Order::Fair, MAX);
        for number in 1..targets {
            for job in 0..2 * MAX as u64 {
                plan.apply(Event::JobQueued(of(number, 1_000 * number + job)));
            }
        }
        for _ in 0..MAX {
            plan.end_one();
        }
        let found = plan.targets();
        let share = MAX / targets as usize;
        assert_eq!(found.len(), targets as usize, "{found:?}");
        assert!(found.values().all(|runners| *runners >= share), "{targets}: {found:?}");
    }
}

#[test]
fn a_job_that_waits_for_a_place_shows_whose_turn_is_next() {
    let mut plan = crowded(Order::Fair, 2);
    plan.apply(Event::JobQueued(of(1, 100)));
    let explain = |plan: &Plan, id| {
        let now = plan.moment().instant;
        let waiting = plan.state.waiting(now);
        let (job, reason) = waiting.iter().find(|(job, _)| job.key.id == id).unwrap();
        plan.state.explanations(now).explain(job, reason)
    };
    let full = "the pool is at its max of 2";
    let next = "next: repo:acme/r1, which has the fewest runners (0)";
    assert_eq!(explain(&plan, 5), format!("{full}; {next}"));
    assert_eq!(explain(&plan, 100), full, "it is the turn of its own target");
    // Both have one runner, and the first has the older job.
    plan.end_one();
    plan.apply(Event::JobQueued(of(1, 101)));
    assert_eq!(explain(&plan, 5), full);
}

const REPOSITORIES: u64 = 50;
const PLACES: usize = 100;
const HOUR_MS: u64 = 3_600_000;

/// A job that is queued at a time and runs for a time, in ms.
#[derive(Clone, Copy)]
struct Load {
    repository: u64,
    at: u64,
    runs: u64,
}

/// Three hours of jobs, a third more than fit. The first repository has most of them, the last
/// one the fewest.
fn very_different_load() -> Vec<Load> {
    let mut random = SplitMix64(3);
    let mut below = |limit: u64| random.next() % limit;
    let weights: Vec<u64> = (1..=REPOSITORIES).map(|number| 1_000_000 / number).collect();
    let all: u64 = weights.iter().sum();
    let longest = 600_000;
    let jobs = 4 * PLACES as u64 * 3 * HOUR_MS / (3 * longest / 2);
    let mut load: Vec<Load> = (0..jobs)
        .map(|_| {
            let mut at = below(all);
            let repository = weights.iter().position(|weight| {
                let found = at < *weight;
                at = at.saturating_sub(*weight);
                found
            });
            let repository = repository.unwrap() as u64;
            Load { repository, at: below(3 * HOUR_MS), runs: 1 + below(longest) }
        })
        .collect();
    load.sort_by_key(|job| job.at);
    load
}

/// How long the jobs of each repository wait on average, in ms.
fn waits(load: &[Load], order: Order, places: usize) -> Vec<u64> {
    let settings = Settings { order, ..settings(vec![linux_pool(places)]) };
    let mut plan = Plan { state: State::new(settings, 1), now: 1_000_000, clock_step: 0 };
    let begin = plan.now;
    plan.apply(Event::Recovered { provider: 0 });
    let mut queued: BTreeMap<String, VecDeque<usize>> = BTreeMap::new();
    let mut ends: BTreeSet<(u64, String)> = BTreeSet::new();
    let mut waits = vec![(0, 0); REPOSITORIES as usize];
    let mut arrivals = load.iter().enumerate().peekable();
    loop {
        let end = ends.first().map(|(at, _)| *at);
        let arrival = arrivals.peek().map(|(_, job)| begin + job.at);
        let event = match (arrival, end) {
            (None, None) => break,
            (Some(at), end) if end.is_none_or(|end| at <= end) => {
                plan.now = at;
                let (index, job) = arrivals.next().unwrap();
                let job = of(job.repository, index as u64);
                queued.entry(job.repository.clone()).or_default().push_back(index);
                Event::JobQueued(job)
            }
            _ => {
                let (at, runner) = ends.pop_first().unwrap();
                plan.now = at;
                Event::ContainerExited { runner, status: 0.into() }
            }
        };
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = plan.moment();
            for action in super::plan(&mut plan.state, event, now) {
                match action {
                    Action::Launch(Launch { runner, target, .. }) => {
                        events.push_back(Event::Launched { runner: runner.clone() });
                        let oldest = queued
                            .get_mut(target.to_string().trim_start_matches("repo:"))
                            .and_then(VecDeque::pop_front);
                        let Some(index) = oldest else { continue };
                        let Load { repository, at, runs } = load[index];
                        let (sum, jobs) = &mut waits[repository as usize];
                        *sum += plan.now - begin - at;
                        *jobs += 1;
                        ends.insert((plan.now + runs, runner.clone()));
                        let job = of(repository, index as u64);
                        events.push_back(Event::JobStarted { job, runner });
                    }
                    Action::Remove(Removal { runner, .. }) => events.push_back(removed(&runner)),
                    _ => {}
                }
            }
        }
    }
    waits.into_iter().map(|(sum, jobs)| sum / u64::max(jobs, 1)).collect()
}

/// `cargo test -p edgerunner-scheduler very_different -- --nocapture` prints the figures.
#[test]
fn among_repositories_of_very_different_load_the_smallest_hardly_waits() {
    let load = very_different_load();
    let last = REPOSITORIES - 1;
    let smallest: Vec<Load> = load.iter().filter(|job| job.repository == last).copied().collect();
    let ran = smallest.iter().map(|job| job.runs).sum::<u64>() / smallest.len() as u64;
    let last = last as usize;
    // As if it had its share of the places for itself.
    let share = waits(&smallest, Order::Fair, PLACES / REPOSITORIES as usize)[last];
    let [fair, oldest] = [Order::Fair, Order::Oldest].map(|order| waits(&load, order, PLACES));
    let s = |ms: u64| ms as f64 / 1_000.0;
    println!(
        "{} jobs of {REPOSITORIES} repositories, {} of the smallest, which run for {:.1} s on \
         average; with its share of the places for itself they wait {:.1} s",
        load.len(),
        smallest.len(),
        s(ran),
        s(share),
    );
    // With its share it may not wait at all, so the time until the end is compared.
    for (order, waits) in [("fair", &fair), ("oldest", &oldest)] {
        println!(
            "{order}: the smallest waits {:.1} s and the largest {:.1} s; until its end, a job of the \
             smallest takes {:.2} times as long as with its share",
            s(waits[last]),
            s(waits[0]),
            s(waits[last] + ran) / s(share + ran),
        );
    }
    assert!(
        2 * (fair[last] + ran) <= 3 * (share + ran),
        "{} ms, and {share} ms with its share",
        fair[last]
    );
    assert!(2 * (oldest[last] + ran) > 3 * (share + ran), "the load is too small to show anything");
}
