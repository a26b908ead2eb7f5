//! Jobs that GitHub announces as queued and assigns to no idle runner.

use super::*;

/// Runs the launches of `actions` up to idle runners.
fn come_online(plan: &mut Plan, actions: &[Action]) -> Vec<String> {
    let runners = launches(actions);
    for runner in &runners {
        plan.launched(runner);
        plan.list(runner, true, false);
    }
    runners
}

fn finish_removals(plan: &mut Plan, actions: &[Action]) -> Vec<Action> {
    let gone: Vec<String> = removals(actions).iter().map(|it| it.runner.clone()).collect();
    gone.iter().flat_map(|runner| plan.apply(removed(runner))).collect()
}

/// A job that is announced now.
fn new_job(plan: &Plan, repository: &str, id: u64) -> Event {
    Event::JobQueued(at(repository, Job { queued_at: plan.moment().wall, ..linux(id) }))
}

/// Three runners are idle, and GitHub assigns them none of three jobs.
fn held_back(max: usize) -> (Plan, Vec<String>) {
    let mut plan = Plan::new(vec![linux_pool(max)]);
    let mut runners = Vec::new();
    for id in 1..=3 {
        let event = new_job(&plan, "acme/app", id);
        let actions = plan.apply(event);
        runners.extend(come_online(&mut plan, &actions));
    }
    (plan, runners)
}

fn held(until: Option<u64>) -> Waiting {
    Waiting::HeldBack { until: until.map(|ms| moment(ms, 0).instant) }
}

#[test]
fn idle_runners_that_are_assigned_no_job_free_their_places_after_a_minute() {
    let (mut plan, runners) = held_back(3);
    plan.wait(1);
    let elsewhere = new_job(&plan, "acme/lib", 9);
    assert_eq!(plan.apply(elsewhere), [], "the limit has not passed");
    assert_eq!(removals(&plan.wait(59_000)), [] as [&Removal; 0]);
    assert_eq!(plan.reason(9), Waiting::PoolMax { max: 3 });
    let actions = plan.wait(1_000);
    assert_eq!(removals(&actions).len(), 3);
    assert!(runners.iter().all(|runner| plan.why(runner) == EndReason::IdleTooLong));
    let launch = one_launch(&finish_removals(&mut plan, &actions));
    assert_eq!(plan.state.runner(&launch).unwrap().target.to_string(), "repo:acme/lib");
    assert!(matches!(plan.reason(1), Waiting::HeldBack { until: Some(_) }));
    assert!(plan.reason(1).to_string().contains("max-parallel"), "{}", plan.reason(1));
}

/// Counts calls to GitHub: registrations, removals and look-ups. Every runner comes online.
fn calls(plan: &mut Plan, hours: u64) -> usize {
    let mut calls = 0;
    for _ in 0..hours * 3_600 {
        let actions = plan.wait(1_000);
        calls += actions
            .iter()
            .filter(|action| match action {
                Action::Launch(_) | Action::LookUp(_) | Action::LookUpJob { .. } => true,
                Action::Remove(removal) => removal.deregister,
                _ => false,
            })
            .count();
        // The look-up that shows it online.
        calls += come_online(plan, &actions).len();
        assert_eq!(launches(&finish_removals(plan, &actions)), [] as [String; 0]);
    }
    calls
}

#[test]
fn a_repository_whose_jobs_are_never_assigned_costs_few_calls() {
    let (mut plan, _) = held_back(10);
    // Three removals of the runners that wait, a look-up of a job, and the probes.
    let first = calls(&mut plan, 1);
    assert!(first <= 12, "{first}");
    let day = calls(&mut plan, 24);
    assert!(day <= 24 * 5, "{day}");
}

#[test]
fn probes_are_launched_one_at_a_time_with_growing_pauses() {
    let (mut plan, _) = held_back(10);
    let actions = plan.wait(60_000);
    finish_removals(&mut plan, &actions);
    for pause in [60, 1_200, 3_600, 3_600] {
        assert_eq!(plan.reason(1), held(Some(plan.now + pause * 1_000)));
        assert_eq!(launches(&plan.wait(pause * 1_000 - 1)), [] as [String; 0]);
        let actions = plan.wait(1);
        assert_eq!(plan.reason(1), held(None));
        one_launch(&actions);
        let probe = come_online(&mut plan, &actions).remove(0);
        let actions = plan.wait(60_000);
        assert_eq!(one_removal(&actions).runner, probe);
        finish_removals(&mut plan, &actions);
    }
}

#[test]
fn a_pick_up_restores_demand_step_by_step() {
    let mut plan = Plan::new(vec![linux_pool(20)]);
    let mut runners = Vec::new();
    for id in 1..=16 {
        let event = new_job(&plan, "acme/app", id);
        let actions = plan.apply(event);
        runners.extend(come_online(&mut plan, &actions));
    }
    let actions = plan.wait(60_000);
    assert_eq!(removals(&actions).len(), 16);
    finish_removals(&mut plan, &actions);
    let mut actions = plan.wait(60_000);
    let mut next = 1;
    let mut steps = Vec::new();
    while next <= 16 {
        let runners = come_online(&mut plan, &actions);
        steps.push(runners.len());
        actions.clear();
        for runner in runners {
            actions.extend(plan.start(next, &runner));
            next += 1;
        }
    }
    assert_eq!(steps, [1, 2, 4, 8, 1]);
}

#[test]
fn with_max_parallel_the_end_of_one_job_launches_a_runner_for_the_next_at_once() {
    let (mut plan, runners) = held_back(10);
    plan.start(1, &runners[0]);
    // Its siblings came online before that, so they stay for their idle limit.
    let actions = plan.wait(300_000);
    finish_removals(&mut plan, &actions);
    let probe = come_online(&mut plan, &actions);
    let actions = plan.wait(600_000);
    finish_removals(&mut plan, &actions);
    assert!(probe.iter().all(|probe| plan.phase(probe) == "gone"), "{probe:?}");
    assert_eq!(plan.state.live(), 1);
    let mut busy = runners[0].clone();
    for id in 1..=2 {
        let actions = plan.complete(id, &busy);
        assert_eq!(launches(&actions).len(), 1);
        let next = come_online(&mut plan, &actions).remove(0);
        plan.exit(&busy, 0);
        plan.apply(removed(&busy));
        // No spare runner is launched for the third.
        assert_eq!(launches(&plan.start(id + 1, &next)), [] as [String; 0]);
        assert_eq!(launches(&plan.wait(30_000)), [] as [String; 0]);
        busy = next;
    }
}

#[test]
fn a_probe_is_preempted_even_before_it_is_online() {
    let (mut plan, _) = held_back(3);
    let actions = plan.wait(60_000);
    finish_removals(&mut plan, &actions);
    for id in 10..=11 {
        let event = new_job(&plan, "acme/lib", id);
        let runner = one_launch(&plan.apply(event));
        plan.launched(&runner);
        plan.apply(Event::JobStarted { job: at("acme/lib", linux(id)), runner });
    }
    let probe = one_launch(&plan.wait(60_000));
    plan.launched(&probe);
    let event = new_job(&plan, "acme/lib", 12);
    let actions = plan.apply(event);
    assert_eq!(one_removal(&actions).runner, probe);
    // The place is for the other repository, and the next probe waits.
    let runner = one_launch(&finish_removals(&mut plan, &actions));
    assert_eq!(plan.state.runner(&runner).unwrap().target.to_string(), "repo:acme/lib");
    assert!(matches!(plan.reason(1), Waiting::HeldBack { until: Some(_) }));
}

#[test]
fn the_jobs_of_another_repository_in_the_same_lane_are_not_delayed() {
    let mut plan = Plan::new(vec![Pool { scope: Scope::Organization, ..linux_pool(10) }]);
    for id in 1..=3 {
        let event = new_job(&plan, "acme/app", id);
        let actions = plan.apply(event);
        come_online(&mut plan, &actions);
    }
    let actions = plan.wait(60_000);
    finish_removals(&mut plan, &actions);
    for id in 11..=15 {
        let event = new_job(&plan, "acme/lib", id);
        assert_eq!(launches(&plan.apply(event)).len(), 1);
    }
}

#[test]
fn a_new_job_is_tried_although_others_are_held_back_but_not_for_ever() {
    let (mut plan, _) = held_back(10);
    let actions = plan.wait(60_000);
    finish_removals(&mut plan, &actions);
    let mut tries = 0;
    for id in 10..30 {
        let event = new_job(&plan, "acme/app", id);
        let actions = plan.apply(event);
        if !launches(&actions).is_empty() {
            tries += 1;
            come_online(&mut plan, &actions);
        }
        let actions = plan.wait(61_000);
        come_online(&mut plan, &actions);
        finish_removals(&mut plan, &actions);
    }
    assert!((1..=3).contains(&tries), "{tries}");
    assert!(matches!(plan.reason(29), Waiting::HeldBack { .. }), "{:?}", plan.reason(29));
}

#[test]
fn a_new_job_that_is_picked_up_restores_the_demand_of_new_jobs() {
    let (mut plan, _) = held_back(10);
    let actions = plan.wait(60_000);
    finish_removals(&mut plan, &actions);
    let event = new_job(&plan, "acme/app", 10);
    let runner = one_launch(&plan.apply(event));
    let event = new_job(&plan, "acme/app", 11);
    assert_eq!(plan.apply(event), [], "one at a time");
    plan.launched(&runner);
    assert_eq!(launches(&plan.start(10, &runner)).len(), 1);
    let event = new_job(&plan, "acme/app", 12);
    assert_eq!(launches(&plan.apply(event)).len(), 1);
}

#[test]
fn idle_runners_that_min_idle_keeps_stay_and_are_looked_up_rarely() {
    let repositories = vec![RepositoryPattern::parse("acme/app").unwrap()];
    let mut plan = Plan::unrecovered(vec![Pool { min_idle: 1, repositories, ..linux_pool(3) }]);
    let actions = plan.apply(Event::Recovered { provider: 0 });
    let warm = come_online(&mut plan, &actions).remove(0);
    let event = new_job(&plan, "acme/app", 1);
    let actions = plan.apply(event);
    come_online(&mut plan, &actions);
    let mut look_ups = 0;
    for _ in 0..3_600 {
        let actions = plan.wait(1_000);
        look_ups += actions.iter().filter(|it| matches!(it, Action::LookUp(_))).count();
        come_online(&mut plan, &actions);
        finish_removals(&mut plan, &actions);
    }
    assert_eq!(plan.state.live(), 1, "{warm} or its successor");
    assert!((1..=6).contains(&look_ups), "{look_ups}");
}

#[test]
fn a_runner_that_github_refuses_to_remove_shows_that_jobs_are_assigned() {
    let (mut plan, runners) = held_back(3);
    plan.wait(60_000);
    let refused = Event::RemovalRefused { runner: runners[0].clone() };
    plan.apply(refused);
    assert_eq!(plan.phase(&runners[0]), "busy");
    assert_eq!(plan.reason(1), held(None), "a probe is under way at once");
}

#[test]
fn a_reload_keeps_what_is_held_back() {
    let (mut plan, _) = held_back(10);
    let actions = plan.wait(60_000);
    finish_removals(&mut plan, &actions);
    let until = plan.reason(1);
    let actions = plan.apply(Event::Pools(vec![pool("gpu", &["gpu"]), linux_pool(9)]));
    assert_eq!(launches(&actions), [] as [String; 0]);
    assert_eq!(plan.reason(1), until);
}

#[test]
fn a_probe_takes_no_share_of_its_repository_from_a_job_that_may_run() {
    let pools = vec![linux_pool(10), Pool { priority: -1, ..pool("gpu", &["gpu"]) }];
    let mut plan = Plan::with(Settings { max_per_repository: 1, ..settings(pools) });
    let event = new_job(&plan, "acme/app", 1);
    let actions = plan.apply(event);
    come_online(&mut plan, &actions);
    let actions = plan.wait(60_000);
    finish_removals(&mut plan, &actions);
    let queued_at = plan.moment().wall;
    let actions = plan.apply(Event::JobQueued(Job { queued_at, ..job(2, &["gpu"]) }));
    assert_eq!(launches(&actions).len(), 1);
    // The probe has to wait for the end of the other job.
    assert_eq!(launches(&plan.wait(61_000)), [] as [String; 0]);
}

#[test]
fn a_tick_finds_a_limited_number_of_jobs_held_back() {
    let mut state = State::new(settings(vec![linux_pool(100)]), 1);
    let at = |ms: u64| moment(1_000_000 + ms, 0);
    plan(&mut state, Event::Recovered { provider: 0 }, at(0));
    for id in 1..=5_000 {
        plan(&mut state, Event::JobQueued(linux(id)), at(0));
    }
    let runners: Vec<String> = state.runners().map(|runner| runner.name.clone()).collect();
    let target = state.runners().next().unwrap().target.clone();
    for runner in &runners {
        plan(&mut state, Event::Launched { runner: runner.clone() }, at(0));
    }
    let listed =
        |name: &String| Registration { name: name.clone(), id: 1, online: true, busy: false };
    let runners = runners.iter().map(listed).collect();
    let requested_at = at(0).instant;
    plan(&mut state, Event::Registrations { target, runners, requested_at }, at(0));
    let mut held = 0;
    for second in 60..70 {
        plan(&mut state, Event::Tick, at(second * 1_000));
        let now: usize = state.lanes.values().map(|lane| lane.held.len()).sum();
        assert!(now - held <= 1_000, "{} in one tick", now - held);
        held = now;
    }
    // The others do not keep the idle runners.
    assert!(state.runners().all(|runner| runner.phase != Phase::Idle));
    recount(&state);
}

#[test]
fn a_held_job_that_is_cancelled_leaves_nothing_behind() {
    let (mut plan, _) = held_back(10);
    let actions = plan.wait(60_000);
    finish_removals(&mut plan, &actions);
    for id in 1..=3 {
        plan.complete(id, "");
    }
    assert!(plan.state.lanes.is_empty() && plan.state.repositories.is_empty());
    assert_eq!(launches(&plan.wait(7_200_000)), [] as [String; 0]);
}
