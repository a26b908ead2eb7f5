//! Launches that wait until their provider has room.

use super::*;
use crate::plan::room::WAITING_FOR_ROOM_MAX;

const LIMITS: LifeLimits =
    LifeLimits { provisioning_ms: 60_000, starting_ms: 60_000, idle_ms: 60_000, job_ms: 600_000 };

fn pool_of(max: usize) -> Pool {
    Pool { limits: LIMITS, ..linux_pool(max) }
}

/// A launch for this job that waits for room.
fn waiting(plan: &mut Plan, id: u64) -> String {
    let runner = plan.provisioning(id);
    plan.progress(&runner, Stage::Container);
    assert_eq!(plan.no_room(&runner), []);
    runner
}

fn remove(plan: &mut Plan, runner: &str, force: bool) -> Vec<Action> {
    plan.apply(Event::RemoveRunner { runner: runner.into(), force })
}

#[test]
fn a_launch_waits_for_room_without_a_limit_and_then_has_the_whole_limit_of_a_launch() {
    let mut plan = Plan::new(vec![pool_of(5)]);
    let runner = waiting(&mut plan, 1);
    let launch = plan.state.runner(&runner).unwrap();
    assert_eq!(launch.no_room.as_deref(), Some(NO_CPUS));
    assert_eq!((plan.phase(&runner), plan.state.live()), ("provisioning", 1));
    plan.wait(2 * 3_600_000);
    assert_eq!(plan.phase(&runner), "provisioning");
    assert_eq!(plan.no_room(&runner), []);

    assert_eq!(plan.progress(&runner, Stage::Container), []);
    plan.apply_without_effect(Event::Progress { runner: runner.clone(), stage: Stage::Container });
    assert_eq!(plan.state.runner(&runner).unwrap().no_room, None);
    assert_eq!(removals(&plan.wait(69_000)), [] as [&Removal; 0]);
    assert_eq!(one_removal(&plan.wait(1_000)).runner, runner);
    assert_eq!(plan.why(&runner), EndReason::LaunchTimedOut);
}

#[test]
fn a_launch_whose_credentials_are_about_to_end_makes_way_for_another() {
    let mut plan = Plan::new(vec![pool_of(1)]);
    let runner = plan.provisioning(1);
    plan.progress(&runner, Stage::Container);
    let end = plan.moment().instant + Duration::from_secs(3_600);
    plan.no_room_until(&runner, NO_CPUS, end);
    plan.wait(1_800_000);
    // Another message extends nothing.
    plan.no_room_until(&runner, "no node has 32 CPUs", end);
    assert_eq!(removals(&plan.wait(1_499_000)), [] as [&Removal; 0]);
    let actions = plan.wait(1_000);
    let removal = one_removal(&actions);
    assert_eq!((&removal.runner, removal.deregister, removal.force), (&runner, true, false));
    assert_eq!(plan.why(&runner), EndReason::CredentialsExpired);
    assert!(!EndReason::CredentialsExpired.is_failure());
    plan.fail(&runner, Cause::Container);
    assert_eq!(plan.state.backoffs().count(), 0);
    let next = one_launch(&plan.apply(removed(&runner)));
    plan.no_room(&next);
    assert_eq!(plan.reason(1), Waiting::NoRoom { message: NO_CPUS.into() });
}

#[test]
fn a_launch_whose_credentials_end_at_once_still_waits_for_a_while() {
    let mut plan = Plan::new(vec![pool_of(1)]);
    let runner = plan.provisioning(1);
    for _ in 0..59 {
        let now = plan.moment().instant;
        plan.no_room_until(&runner, NO_CPUS, now);
        assert_eq!(removals(&plan.wait(1_000)), [] as [&Removal; 0]);
    }
    assert_eq!(one_removal(&plan.wait(1_000)).runner, runner);
}

#[test]
fn a_runner_that_got_room_has_other_limits_than_its_credentials() {
    let mut plan = Plan::new(vec![pool_of(1)]);
    let runner = plan.provisioning(1);
    let end = plan.moment().instant + Duration::from_secs(360);
    plan.no_room_until(&runner, NO_CPUS, end);
    plan.progress(&runner, Stage::Container);
    plan.launched(&runner);
    plan.state.runner(&runner).unwrap();
    assert_eq!(removals(&plan.wait(59_000)), [] as [&Removal; 0]);
    assert_eq!(plan.phase(&runner), "starting");
}

#[test]
fn the_reason_is_the_providers_message_also_for_the_jobs_that_come_later() {
    let mut plan = Plan::new(vec![linux_pool(1_000)]);
    let runner = waiting(&mut plan, 1);
    let no_room = || Waiting::NoRoom { message: NO_CPUS.into() };
    assert_eq!((plan.reason(1), plan.reason(1).as_str()), (no_room(), "no_room"));
    let text = "no machine has room for another runner: insufficient resources on 3 nodes";
    assert_eq!(plan.reason(1).to_string(), text);
    // A launch that makes progress is closer to a job.
    let second = plan.provisioning(2);
    assert_eq!((plan.reason(1), plan.reason(2)), (Waiting::LaunchQueued, no_room()));
    plan.no_room(&second);
    for id in 3..30 {
        launches(&plan.queue(id)).iter().for_each(|runner| drop(plan.no_room(runner)));
    }
    assert_eq!(plan.reason(29), no_room());
    assert_eq!(Waiting::NAMES.iter().filter(|name| **name == no_room().as_str()).count(), 1);
    plan.no_room_until(&runner, "no node has 32 CPUs", Instant::MAX);
    assert_eq!(plan.reason(29), Waiting::NoRoom { message: "no node has 32 CPUs".into() });
}

#[test]
fn a_pool_launches_nothing_more_while_many_of_its_launches_wait() {
    let mut plan = Plan::new(vec![linux_pool(1_000)]);
    let mut waiting = Vec::new();
    for id in 1..=100 {
        for runner in launches(&plan.queue(id)) {
            assert_eq!(launches(&plan.no_room(&runner)), [] as [String; 0]);
            waiting.push(runner);
        }
    }
    assert_eq!(waiting.len(), WAITING_FOR_ROOM_MAX);
    // One that gets room makes way for another.
    plan.progress(&waiting[0], Stage::Container);
    assert_eq!(launches(&plan.launched(&waiting[0])).len(), 1);
}

#[test]
fn a_pool_without_room_holds_up_no_other_pool() {
    let gpu = Pool { max: 1_000, ..pool("gpu", &["gpu"]) };
    let mut plan = Plan::new(vec![linux_pool(1_000), gpu]);
    // Sixty-four launches at once, before any of them is known to wait.
    let mut runners = Vec::new();
    for id in 1..=100 {
        runners.extend(launches(&plan.queue(id)));
    }
    assert_eq!(runners.len(), 64);
    plan.apply(Event::JobQueued(job(101, &["gpu"])));
    assert_eq!(plan.reason(101), Waiting::LaunchQueued);
    let mut elsewhere = Vec::new();
    for runner in &runners {
        elsewhere.extend(launches(&plan.no_room(runner)));
    }
    assert_eq!(elsewhere.len(), 1, "the total of launches does not count those that wait");

    // Nor does one that waits take the turn of the launch that tries whether GitHub works again.
    let mut plan = Plan::new(vec![linux_pool(9), Pool { max: 9, ..pool("gpu", &["gpu"]) }]);
    waiting(&mut plan, 1);
    let other = one_launch(&plan.apply(Event::JobQueued(job(2, &["gpu"]))));
    plan.fail(&other, Cause::Unauthorized);
    assert_eq!(launches(&plan.wait(2_000)).len(), 1);
}

#[test]
fn a_provider_that_takes_a_launch_in_answers_although_it_has_no_room() {
    let mut plan = Plan::new(vec![linux_pool(9)]);
    let first = plan.provisioning(1);
    plan.fail(&first, Cause::DockerUnavailable);
    plan.queue(2);
    let probe = one_launch(&plan.wait(2_000));
    assert_eq!(launches(&plan.no_room(&probe)).len(), 1, "the others need not wait for it");
    assert_eq!(plan.state.backoffs().count(), 0);
}

#[test]
fn a_launch_that_nothing_needs_any_more_is_removed_before_idle_runners() {
    let mut plan = Plan::new(vec![linux_pool(9)]);
    let idle = plan.idle(1);
    let first = waiting(&mut plan, 2);
    plan.now += 1_000;
    let second = waiting(&mut plan, 3);
    // Job 2 is cancelled: the younger one goes.
    let removal = one_removal(&plan.complete(2, ""));
    assert_eq!((&removal.runner, removal.keep_logs, removal.force), (&second, false, false));
    assert_eq!(plan.why(&second), EndReason::NotNeeded);
    assert!(!EndReason::NotNeeded.is_failure());
    // The executor ends the launch, which then fails.
    assert_eq!(plan.fail(&second, Cause::Container), []);
    assert_eq!((plan.why(&second), plan.state.backoffs().count()), (EndReason::NotNeeded, 0));
    plan.apply_without_effect(Event::Progress { runner: second.clone(), stage: Stage::Container });
    assert_eq!(plan.no_room(&second), []);
    assert!(matches!(plan.apply(removed(&second))[..], [Action::Forget(_, EndReason::NotNeeded)]));
    // The other job is taken by the idle runner: the first launch is for job 3.
    plan.start(1, &idle);
    assert_eq!(plan.phase(&first), "provisioning");
    // A runner of somebody else takes that one.
    assert_eq!(one_removal(&plan.start(3, "someone-elses")).runner, first);
    assert_eq!(plan.phase(&idle), "busy");
}

#[test]
fn a_launch_that_waits_for_room_may_turn_out_to_be_busy_when_it_is_removed() {
    let mut plan = Plan::new(vec![linux_pool(9)]);
    let runner = waiting(&mut plan, 1);
    plan.complete(1, "");
    assert_eq!(plan.why(&runner), EndReason::NotNeeded);
    plan.apply(Event::RemovalRefused { runner: runner.clone() });
    assert_eq!(plan.phase(&runner), "busy");
}

#[test]
fn what_waits_for_room_is_kept_for_min_idle_and_jobs_beyond_the_limit_of_their_repository() {
    let app = vec![RepositoryPattern::parse("acme/app").unwrap()];
    let warm = Pool { min_idle: 1, repositories: app, ..linux_pool(9) };
    let mut plan = Plan::with(Settings { max_per_repository: 1, ..settings(vec![warm]) });
    let runner = plan.state.runners().next().unwrap().name.clone();
    plan.no_room(&runner);
    assert_eq!(plan.phase(&runner), "provisioning");
    plan.now += 1_000;
    let second = waiting(&mut plan, 1);
    plan.queue(2);
    plan.start(1, "someone-elses");
    assert_eq!(plan.phase(&second), "provisioning", "job 2 waits");
    plan.complete(2, "");
    plan.apply(Event::MinIdle { pool: 0, min_idle: 0 });
    assert_eq!((plan.phase(&runner), plan.phase(&second)), ("leaving", "leaving"));
}

#[test]
fn a_survey_does_not_free_the_place_of_a_launch_that_is_being_ended() {
    let mut plan = Plan::new(vec![linux_pool(9)]);
    let runner = waiting(&mut plan, 1);
    plan.complete(1, "");
    plan.now += 1;
    let taken_at = plan.moment().instant;
    plan.now += 1;
    plan.apply_without_effect(Event::Survey { provider: 0, containers: Vec::new(), taken_at });
    assert_eq!((plan.phase(&runner), plan.state.live()), ("leaving", 1));
}

#[test]
fn a_drain_removes_what_waits_for_room_and_so_does_an_operator_without_force() {
    for pool in [None, Some(0)] {
        let mut plan = Plan::new(vec![linux_pool(9)]);
        let runner = waiting(&mut plan, 1);
        let actions = plan.apply(Event::Drain { pool, draining: true });
        assert_eq!(one_removal(&actions).runner, runner);
        assert_eq!(plan.why(&runner), EndReason::Drained);
        // Also if it begins to wait while the pool drains.
        let mut plan = Plan::new(vec![linux_pool(9)]);
        let runner = plan.provisioning(1);
        assert_eq!(plan.apply(Event::Drain { pool, draining: true }), []);
        assert_eq!(one_removal(&plan.no_room(&runner)).runner, runner);
    }
    for (force, reason) in [(false, EndReason::Removed), (true, EndReason::RemovedByForce)] {
        let mut plan = Plan::new(vec![linux_pool(9)]);
        let runner = waiting(&mut plan, 1);
        assert_eq!(one_removal(&remove(&mut plan, &runner, force)).force, force);
        assert_eq!(plan.why(&runner), reason);
    }
    // Requested while it was being launched.
    let mut plan = Plan::new(vec![linux_pool(9)]);
    let runner = plan.provisioning(1);
    assert_eq!(remove(&mut plan, &runner, true), []);
    assert!(one_removal(&plan.no_room(&runner)).force);
}

#[test]
fn a_reload_keeps_what_waits_for_room_unless_its_pool_is_gone() {
    let mut plan = Plan::new(vec![linux_pool(9)]);
    let runner = waiting(&mut plan, 1);
    let launching = plan.provisioning(2);
    plan.apply(Event::Pools(vec![pool("gpu", &["gpu"]), linux_pool(9)]));
    assert_eq!(plan.wait(2_000).iter().filter(|it| matches!(it, Action::Remove(_))).count(), 0);
    plan.apply(Event::Pools(vec![pool("gpu", &["gpu"])]));
    assert_eq!(one_removal(&plan.wait(1_000)).runner, runner);
    assert_eq!(plan.why(&runner), EndReason::NotNeeded);
    assert_eq!(one_removal(&plan.no_room(&launching)).runner, launching);
}

/// Both pools match jobs that ask only for `self-hosted`; `gpu` is the best.
fn two_pools() -> Plan {
    let linux = Pool { max: 9, ..pool("linux", &["linux", "x64"]) };
    Plan::new(vec![Pool { max: 9, ..pool("gpu", &["gpu"]) }, linux])
}

fn plain(id: u64) -> Event {
    Event::JobQueued(job(id, &["self-hosted"]))
}

fn pool_of_launch(plan: &Plan, actions: &[Action]) -> String {
    plan.state.runner(&one_launch(actions)).unwrap().pool.clone()
}

#[test]
fn the_next_pool_takes_over_while_the_best_has_no_room() {
    let mut plan = two_pools();
    let first = one_launch(&plan.apply(plain(1)));
    let actions = plan.no_room(&first);
    assert_eq!(pool_of_launch(&plan, &actions), "linux");
    assert_eq!(one_removal(&actions).runner, first);
    plan.apply(removed(&first));
    // So do the next jobs, without a try.
    for id in 2..=4 {
        let actions = plan.apply(plain(id));
        assert_eq!(pool_of_launch(&plan, &actions), "linux");
    }
    // A job that nothing else can serve waits there, and its launch shows when there is room again.
    let only = one_launch(&plan.apply(Event::JobQueued(job(5, &["gpu"]))));
    assert_eq!(plan.no_room(&only), []);
    let actions = plan.apply(plain(6));
    assert_eq!(pool_of_launch(&plan, &actions), "linux");
    plan.progress(&only, Stage::Container);
    let actions = plan.apply(plain(7));
    assert_eq!(pool_of_launch(&plan, &actions), "gpu");
}

#[test]
fn after_a_while_one_launch_at_a_time_tries_a_pool_that_had_no_room() {
    let mut plan = two_pools();
    let first = one_launch(&plan.apply(plain(1)));
    let runner = one_launch(&plan.no_room(&first));
    plan.apply(removed(&first));
    plan.apply(Event::JobStarted { job: job(1, &["self-hosted"]), runner });
    plan.wait(301_000);
    let probe = one_launch(&plan.apply(plain(2)));
    assert_eq!(plan.state.runner(&probe).unwrap().pool, "gpu");
    let actions = plan.apply(plain(3));
    assert_eq!(pool_of_launch(&plan, &actions), "linux");
    plan.launched(&probe);
    let actions = plan.apply(plain(4));
    assert_eq!(pool_of_launch(&plan, &actions), "gpu");
}

#[test]
fn a_job_does_not_go_to_and_fro_between_pools_without_room() {
    let mut plan = two_pools();
    let mut tries = 0;
    let mut launched = launches(&plan.apply(plain(1)));
    for _ in 0..3_650 {
        while let Some(runner) = launched.pop() {
            tries += 1;
            let actions = plan.no_room(&runner);
            launched.extend(launches(&actions));
            for removal in removals(&actions) {
                launched.extend(launches(&plan.apply(removed(&removal.runner))));
            }
        }
        launched.extend(launches(&plan.wait(1_000)));
        // What a tick removes.
        let leaving: Vec<String> = plan
            .state
            .runners()
            .filter(|it| it.phase.as_str() == "leaving")
            .map(|it| it.name.clone())
            .collect();
        for runner in leaving {
            launched.extend(launches(&plan.apply(removed(&runner))));
        }
    }
    assert!((2..=14).contains(&tries), "{tries} launches in an hour");
    assert_eq!(plan.state.live(), 1);
    assert_eq!(plan.reason(1), Waiting::NoRoom { message: NO_CPUS.into() });
}
