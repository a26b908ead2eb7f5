//! Jobs that ask for CPUs, memory, an image or runners of their own by their labels.

use super::{adoption::found, machine::machine, *};

fn permitting(pool: Pool) -> Pool {
    let label_parameters = LabelParameters {
        cpu: Some(1..=8),
        memory_gib: Some(1..=16),
        image: vec!["one".into(), "other".into()],
        run: true,
    };
    Pool { label_parameters, ..pool }
}

fn plan_permitting() -> Plan {
    Plan::new(vec![permitting(linux_pool(10))])
}

impl Plan {
    fn queue_with(&mut self, id: u64, labels: &[&str]) -> Vec<Action> {
        self.apply(Event::JobQueued(Job { run_id: 17, ..job(id, labels) }))
    }
}

/// The one launch, with what it was asked for.
fn launched_with(actions: &[Action]) -> (String, String) {
    match actions {
        [Action::Launch(Launch { runner, parameters, .. })] => {
            (runner.clone(), parameters.to_string())
        }
        _ => panic!("{actions:?}"),
    }
}

#[test]
fn a_runner_is_launched_with_what_the_labels_ask_for() {
    let mut plan = plan_permitting();
    for (id, labels, expected) in [
        (1, &["linux"][..], ""),
        (2, &["linux", "CPU=4"], "cpu=4"),
        (3, &["self-hosted", "memory_gib=2", "cpu=4"], "cpu=4 memory_gib=2"),
        (4, &["linux", "image=other"], "image=other"),
        (5, &["linux", "run=17"], "run=17"),
    ] {
        let (runner, parameters) = launched_with(&plan.queue_with(id, labels));
        assert_eq!(parameters, expected);
        assert_eq!(plan.state.runner(&runner).unwrap().parameters.to_string(), expected);
    }
    assert_eq!(plan.state.queued(0), 5);
}

#[test]
fn runners_serve_jobs_that_ask_for_the_same() {
    let mut plan = plan_permitting();
    let (plain, _) = launched_with(&plan.queue_with(1, &["linux"]));
    plan.launched(&plain);
    plan.list(&plain, true, false);
    plan.apply(Event::JobCompleted { job: linux(1), runner: String::new() });
    // It is idle, and has no label cpu=4.
    let (runner, _) = launched_with(&plan.queue_with(2, &["linux", "cpu=4"]));
    plan.launched(&runner);
    plan.apply(Event::JobCompleted { job: linux(2), runner: String::new() });
    assert_eq!(plan.queue_with(3, &["cpu=4", "linux"]), []);
    assert_eq!(plan.queue_with(4, &["linux"]), []);
    launched_with(&plan.queue_with(5, &["linux", "cpu=4"]));
}

#[test]
fn what_the_pool_does_not_permit_waits_with_a_sentence_that_says_so() {
    let mut plan = plan_permitting();
    for (id, label, expected) in [
        (
            1,
            "CPU=9",
            "the label \"cpu=9\" has no value that is permitted: write a whole number, cpu=1 to \
             cpu=8 (pool linux)",
        ),
        (
            2,
            "run=18",
            "the label \"run=18\" does not name the job's own run: write run=${{ github.run_id }} \
             (pool linux)",
        ),
        (
            3,
            "GPU=1",
            "the label \"gpu=1\" has another key than the permitted ones: cpu, memory_gib, image, \
             run (pool linux)",
        ),
    ] {
        assert_eq!(plan.queue_with(id, &["self-hosted", label]), []);
        let reason = plan.reason(id);
        assert_eq!((reason.as_str(), reason.to_string().as_str()), ("label_parameter", expected));
    }
    plan.queue_with(7, &["linux", "cpu=9"]);
    assert_eq!(plan.reason(7).as_str(), "label_parameter");
    // A label of this form may be for somebody else's runners.
    plan.queue_with(6, &["somebody=17/cpu=4"]);
    let tracked = plan.state.unmatched().find(|(job, _)| job.key.id == 6).unwrap();
    assert!(matches!(tracked.1, NoMatch::NotSelfHosted { .. }), "{tracked:?}");
    // Another label comes first: a pool may have to be written for it.
    plan.queue_with(4, &["self-hosted", "arm64", "cpu=9"]);
    assert_eq!(plan.reason(4), Waiting::NoPool(missing_label("arm64", "linux")));
    let long = format!("image={}", "x".repeat(256));
    plan.queue_with(5, &["linux", &long]);
    assert!(plan.reason(5).to_string().contains("xxx\" names none of the permitted images: one"));
}

#[test]
fn a_pool_that_does_not_permit_it_leaves_the_job_to_another() {
    let pools = vec![
        Pool { priority: 1, ..permitting(pool("small", &["linux"])) },
        Pool {
            label_parameters: LabelParameters { cpu: Some(8..=64), ..LabelParameters::default() },
            ..pool("large", &["linux"])
        },
        pool("fixed", &["linux", "cpu=128"]),
    ];
    let mut plan = Plan::new(pools);
    for (id, label, pool, expected) in [
        (1, "cpu=2", "small", "cpu=2"),
        (2, "cpu=32", "large", "cpu=32"),
        (3, "cpu=128", "fixed", ""),
    ] {
        let (runner, parameters) = launched_with(&plan.queue_with(id, &["linux", label]));
        assert_eq!(
            (plan.state.runner(&runner).unwrap().pool.as_str(), &*parameters),
            (pool, expected)
        );
    }
}

#[test]
fn an_image_that_fails_holds_up_only_the_jobs_that_ask_for_it() {
    let mut plan = plan_permitting();
    let (broken, _) = launched_with(&plan.queue_with(1, &["linux", "image=other"]));
    plan.fail(&broken, Cause::Image);
    plan.apply(removed(&broken));
    assert_eq!(plan.reason(1).as_str(), "back_off");
    let blocked: Vec<String> =
        plan.state.backoffs().map(|(blocked, _)| plan.state.describe(blocked)).collect();
    assert_eq!(blocked, ["pool linux with image=other"]);
    launched_with(&plan.queue_with(2, &["linux", "image=one"]));
    launched_with(&plan.queue_with(3, &["linux"]));
    // The run makes no difference to an image.
    assert_eq!(plan.queue_with(4, &["linux", "image=other", "run=17"]), []);
    // Once the wait is over, one launch tries it, and its success lets the other one through.
    let (again, _) = launched_with(&launches_of(&plan.wait(2_000)));
    launched_with(&launches_of(&plan.launched(&again)));
}

fn launches_of(actions: &[Action]) -> Vec<Action> {
    actions.iter().filter(|action| matches!(action, Action::Launch(_))).cloned().collect()
}

#[test]
fn a_job_that_asks_for_too_much_waits_while_smaller_ones_go_on() {
    let own_engine = Pool { containers: 2, ..linux_pool(10) };
    let mut plan = Plan::new(vec![permitting(own_engine)]);
    plan.apply(machine(64 * 1_024, 10_000));
    // Its Engine may use as much as the runner.
    let (first, _) = launched_with(&plan.queue_with(1, &["linux", "cpu=3"]));
    assert_eq!(plan.queue_with(2, &["linux", "cpu=3"]), []);
    let text = "its runner may use 6 CPUs; free of the 10 that the host has for runners: 4";
    assert_eq!(plan.reason(2).to_string(), text);
    launched_with(&plan.queue_with(3, &["linux", "cpu=2"]));
    launched_with(&plan.queue_with(4, &["linux"]));
    plan.launched(&first);
    plan.start(1, &first);
    let (_, second) = launched_with(&launches_of(&plan.exit(&first, 0)));
    assert_eq!(second, "cpu=3");
}

#[test]
fn idle_runners_make_room_for_what_a_label_asks_for() {
    let mut plan = plan_permitting();
    plan.apply(machine(64 * 1_024, 8_000));
    let mut idle = Vec::new();
    for id in 1..=4 {
        let (runner, _) = launched_with(&plan.queue_with(id, &["linux", "cpu=2"]));
        plan.launched(&runner);
        plan.list(&runner, true, false);
        idle.push(runner);
    }
    for id in 1..=4 {
        plan.apply(Event::JobCompleted { job: linux(id), runner: String::new() });
    }
    assert_eq!(removals(&plan.queue_with(5, &["linux", "cpu=6"])).len(), 3);
}

#[test]
fn runners_are_adopted_and_kept_in_a_reload_with_what_they_were_asked_for() {
    let mut plan = Plan::unrecovered(vec![permitting(linux_pool(10))]);
    let adopted = found("a", None, AdoptedContainer::Running);
    let parameters: Parameters = "cpu=4 run=17".parse().unwrap();
    plan.apply(Event::Adopted(Adopted { parameters, ..adopted }));
    plan.apply(Event::Recovered { provider: 0 });
    assert_eq!(plan.queue_with(1, &["linux", "run=17", "cpu=4"]), []);
    launched_with(&plan.queue_with(2, &["linux", "cpu=4"]));
    // Nothing more may be asked for, and what runs goes on.
    plan.apply(Event::Pools(vec![linux_pool(10)]));
    assert_eq!(plan.phase("a"), "starting");
    plan.apply(Event::Pools(vec![permitting(linux_pool(10))]));
    assert_eq!(plan.tick(), []);
    let runner = plan.state.runner("a").unwrap();
    assert_eq!(runner.parameters.to_string(), "cpu=4 run=17");
}
