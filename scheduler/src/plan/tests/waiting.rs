//! The waiting reason of every queued job.

use super::*;

#[test]
fn no_pool_matches() {
    let mut plan = Plan::new(vec![Pool { scope: Scope::Organization, ..linux_pool(10) }]);
    let mut because = |job: Job, why: NoMatch| {
        let id = job.key.id;
        plan.apply(Event::JobQueued(job));
        assert_eq!(plan.reason(id), Waiting::NoPool(why));
    };
    because(job(1, &["self-hosted", "linux", "gpu"]), missing_label("gpu", "linux"));
    because(job(2, &[]), NoMatch::NoLabels);
    because(Job { organization: String::new(), ..linux(3) }, NoMatch::Scope);
    let only = RepositoryPattern::parse("other/*").unwrap();
    let mut plan = Plan::new(vec![Pool { repositories: vec![only], ..linux_pool(10) }]);
    plan.apply(Event::JobQueued(job(1, &["self-hosted", "linux"])));
    assert_eq!(plan.reason(1), Waiting::NoPool(NoMatch::Repository));
}

#[test]
fn the_text_names_what_is_missing_and_the_closest_pool() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    plan.apply(Event::JobQueued(job(1, &["self-hosted", "linux", "gpu"])));
    plan.apply(Event::JobQueued(job(2, &["self-hosted", "linux", "gpu", "arm64"])));
    assert_eq!(plan.reason(1).to_string(), r#"no pool has the label "gpu" (closest: linux)"#);
    assert_eq!(
        plan.reason(2).to_string(),
        r#"no pool has the labels "gpu", "arm64" (closest: linux)"#
    );
}

#[test]
fn the_progress_of_its_runner() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.provisioning(1);
    assert_eq!(plan.reason(1), Waiting::LaunchQueued);
    for (stage, reason) in [
        (Stage::Image, Waiting::ImagePulling),
        (Stage::Credentials, Waiting::Credentials),
        (Stage::Container, Waiting::ContainerStarting),
    ] {
        plan.apply(Event::Progress { runner: runner.clone(), stage });
        assert_eq!(plan.reason(1), reason);
    }
    plan.launched(&runner);
    assert_eq!(plan.reason(1), Waiting::RunnerStarting);
    plan.list(&runner, true, false);
    assert_eq!(plan.reason(1), Waiting::NotPickedUp);
    plan.start(1, &runner);
    assert_eq!(plan.state.waiting(plan.moment().instant), []);
}

#[test]
fn the_oldest_job_is_matched_with_the_runner_that_is_furthest() {
    let mut plan = Plan::new(vec![linux_pool(2)]);
    plan.queue(2);
    plan.idle(1);
    plan.queue(3);
    assert_eq!(plan.reason(1), Waiting::NotPickedUp);
    assert_eq!(plan.reason(2), Waiting::LaunchQueued);
    assert_eq!(plan.reason(3), Waiting::PoolMax { max: 2 });
}

#[test]
fn limits() {
    let mut plan = Plan::with(Settings { max: 1, ..settings(vec![linux_pool(10)]) });
    plan.busy(1);
    plan.queue(2);
    assert_eq!(plan.reason(2), Waiting::GlobalMax { max: 1 });

    let mut plan = Plan::new(vec![linux_pool(1_000)]);
    for id in 1..=70 {
        plan.queue(id);
    }
    assert_eq!(plan.reason(70), Waiting::LaunchQueued);
}

#[test]
fn a_repository_at_its_max_has_its_own_reason() {
    let organization = Pool { scope: Scope::Organization, ..linux_pool(10) };
    let mut plan = Plan::with(Settings { max_per_repository: 1, ..settings(vec![organization]) });
    plan.busy(1);
    plan.queue(2);
    plan.apply(Event::JobQueued(at("acme/other", linux(3))));
    assert_eq!(plan.reason(2), Waiting::RepositoryMax { max: 1 });
    assert_eq!(plan.reason(3), Waiting::LaunchQueued);
    plan.apply(Event::Drain { pool: None, draining: true });
    assert_eq!(plan.reason(2), Waiting::Draining { pool: None });
}

#[test]
fn recovery_and_drain() {
    let mut plan = Plan::unrecovered(vec![linux_pool(9)]);
    plan.queue(1);
    assert_eq!(plan.reason(1), Waiting::Recovering);
    plan.apply(Event::Drain { pool: None, draining: true });
    plan.apply(Event::Recovered { provider: 0 });
    assert_eq!(plan.reason(1), Waiting::Draining { pool: None });
}

#[test]
fn back_off_and_probe() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.provisioning(1);
    plan.fail(&runner, Cause::Image);
    let reason = plan.reason(1);
    assert!(matches!(reason, Waiting::BackOff { cause: Cause::Image, .. }), "{reason:?}");
    assert!(reason.until().unwrap() > plan.moment().instant);
    plan.queue(2);
    plan.wait(2_000);
    // The probe is for the first job; the second waits for its outcome.
    assert_eq!(plan.reason(1), Waiting::LaunchQueued);
    assert!(matches!(plan.reason(2), Waiting::Probing { cause: Cause::Image, .. }));
}

#[test]
fn a_rate_limit_says_until_when() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.provisioning(1);
    plan.apply(Event::LaunchFailed {
        runner,
        cause: Cause::RateLimited,
        message: String::new(),
        retry_after_ms: 60_000,
        may_exist: false,
    });
    let until = plan.moment().instant + Duration::from_secs(60);
    assert_eq!(plan.reason(1), Waiting::RateLimited { credential: "github".into(), until });
}

fn announced(actions: &[Action]) -> Vec<(u64, Waiting)> {
    let announced = actions.iter().filter_map(|action| match action {
        Action::Explain(reasons) => Some(reasons),
        _ => None,
    });
    announced.flatten().map(|(job, reason)| (job.id, reason.clone())).collect()
}

#[test]
fn reasons_are_announced_when_they_change_and_only_then() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.provisioning(1);
    plan.queue(2);
    let unserved = job(3, &["self-hosted", "linux", "gpu"]);
    plan.apply(Event::JobQueued(unserved));
    let lacks_gpu = Waiting::NoPool(missing_label("gpu", "linux"));
    assert_eq!(
        announced(&plan.apply(Event::Tick)),
        [(1, Waiting::LaunchQueued), (2, Waiting::PoolMax { max: 1 }), (3, lacks_gpu)]
    );
    assert_eq!(announced(&plan.apply(Event::Tick)), []);
    plan.launched(&runner);
    assert_eq!(announced(&plan.apply(Event::Tick)), [(1, Waiting::RunnerStarting)]);
}

#[test]
fn reasons_of_many_jobs_are_announced_over_several_ticks() {
    let pools = vec![linux_pool(7), pool("gpu", &["gpu"])];
    // `Plan` recounts everything after each event, which takes too long here.
    let mut state = State::new(Settings { max_per_repository: 3, ..settings(pools) }, 1);
    let now = moment(1_000_000, 0);
    plan(&mut state, Event::Recovered { provider: 0 }, now);
    for id in 1..=12_000 {
        let label = if id % 2 == 0 { "linux" } else { "gpu" };
        let repository = format!("acme/repository-{}", id % 10);
        plan(&mut state, Event::JobQueued(at(&repository, job(id, &[label]))), now);
    }
    plan(&mut state, Event::JobQueued(job(12_001, &["self-hosted", "arm"])), now);
    let mut stored = HashMap::new();
    let mut ticks = 0;
    loop {
        let announced_now = announced(&plan(&mut state, Event::Tick, now));
        if announced_now.is_empty() {
            break;
        }
        assert!(announced_now.len() <= 2_001, "{} at one tick", announced_now.len());
        stored.extend(announced_now);
        ticks += 1;
    }
    assert_eq!(ticks, 6);
    let waiting: HashMap<u64, Waiting> =
        state.waiting(now.instant).into_iter().map(|(job, why)| (job.key.id, why)).collect();
    assert_eq!(stored, waiting);
}

#[test]
fn a_job_for_other_runners_does_not_count_as_waiting_but_is_explained() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    plan.apply(Event::JobQueued(job(1, &["ubuntu-latest"])));
    plan.apply(Event::JobQueued(job(2, &["self-hosted", "gpu"])));
    let reasons = announced(&plan.apply(Event::Tick));
    let names: Vec<(u64, &str)> =
        reasons.iter().map(|(job, reason)| (*job, reason.as_str())).collect();
    assert_eq!(names, [(1, Waiting::NOT_SELF_HOSTED), (2, "no_pool_has_labels")]);
    assert!(reasons[0].1.to_string().contains("GitHub"), "{}", reasons[0].1);
    let waiting = plan.state.waiting(plan.moment().instant);
    let waiting: Vec<u64> = waiting.into_iter().map(|(job, _)| job.key.id).collect();
    assert_eq!(waiting, [2]);
    assert_eq!(plan.state.unmatched().count(), 2);
}

#[test]
fn the_figures_agree_with_the_list() {
    let mut plan = Plan::new(vec![linux_pool(2)]);
    for id in 1..=5 {
        plan.queue(id);
    }
    plan.apply(Event::JobQueued(job(6, &["self-hosted", "windows"])));
    plan.apply(Event::JobQueued(job(7, &["windows-latest"])));
    let now = plan.moment().instant;
    let mut counted = BTreeMap::new();
    for (job, reason) in plan.state.waiting(now) {
        let oldest = job.queued_at;
        let figures = counted.entry(reason.as_str()).or_insert(WaitingFigures { jobs: 0, oldest });
        figures.jobs += 1;
        figures.oldest = figures.oldest.min(oldest);
    }
    assert_eq!(plan.state.waiting_figures(now), counted);
    assert_eq!(counted["pool_max"], WaitingFigures { jobs: 3, oldest: 3 });
    assert_eq!(counted["no_pool_has_labels"], WaitingFigures { jobs: 1, oldest: 6 });
}
