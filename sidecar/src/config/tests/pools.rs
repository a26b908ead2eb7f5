//! Pools: inheritance, runner groups, schedules and idle runners.

use std::sync::Arc;

use super::*;
use crate::config::{Container, PoolConfig, PullPolicy, RunnerGroup};
use edgerunner_scheduler::plan;

#[test]
fn a_pool_inherits_the_settings_that_it_does_not_have() {
    let file = r#"
        [docker]
        host = "unix:///run/other.sock"
        cpus = 2
        env = { HTTP_PROXY = "http://proxy", EMPTY = "" }
        [runner]
        labels = ["Linux"]
        scope = "organization"
        idle_timeout_seconds = 60
        [[pools]]
        name = "small"
        [[pools]]
        name = "big"
        cpus = 8.5
        labels = ["GPU", "self-hosted"]
        repositories = ["acme/*"]
        min_idle = 2
        pull_policy = "never"
    "#;
    let config = load(file, &[("DOCKER_MEMORY_MIB", "512")]).unwrap();
    let [small, big] = &config.pools[..] else { panic!("{:?}", config.pools) };
    assert_eq!(small.labels, ["self-hosted", "Linux"]);
    assert_eq!(big.labels, ["GPU", "self-hosted"]);
    let resources = |pool: &PoolConfig| (pool.container.cpus, pool.container.memory_mib);
    assert_eq!(resources(small), (Some(2.0), Some(512)));
    assert_eq!(resources(big), (Some(8.5), Some(512)));
    let policies = [small, big].map(|pool| pool.container.pull_policy);
    assert_eq!(policies, [PullPolicy::Missing, PullPolicy::Never]);
    assert_eq!(small.container.env.len(), 2);
    let planned = big.planner_pool();
    assert!(planned.labels.contains("gpu"));
    assert_eq!(planned.scope, plan::Scope::Organization);
    assert_eq!(planned.limits.idle_ms, 60_000);
    assert_eq!(planned.known_targets().len(), 1);
}

#[test]
fn labels_may_ask_a_pool_for_what_it_permits() {
    let file = r#"
        [docker]
        docker = "dind"
        cpus = 0.5
        memory_mib = 512
        [runner.label_parameters]
        cpu = { min = 1, max = 8 }
        image = ["acme/runner:22.04", "acme/runner:24.04"]
        [[pools]]
        name = "one"
        [[pools]]
        name = "other"
        label_parameters = { memory_gib = { min = 2, max = 2 }, run = true }
        [[pools]]
        name = "none"
        label_parameters = {}
    "#;
    let config = load(file, &[]).unwrap();
    let planned = config.planner_settings().pools;
    let keys: Vec<_> = planned.iter().map(|pool| pool.label_parameters.keys()).collect();
    assert_eq!(keys, [&["cpu", "image"][..], &["memory_gib", "run"], &[]]);
    assert_eq!((planned[0].label_parameters.cpu.clone(), planned[0].containers), (Some(1..=8), 2));

    let one = Arc::new(config.pools[0].clone());
    let images: Vec<_> = one.containers().map(|container| container.runner_image).collect();
    assert_eq!(images[1..], ["acme/runner:22.04", "acme/runner:24.04"]);
    let with = |text: &str| one.with(&text.parse().unwrap());
    let asked_for = with("cpu=4 memory_gib=3 image=acme/runner:24.04 run=17");
    let Container { cpus, memory_mib, runner_image, .. } = &asked_for.container;
    assert_eq!((*cpus, *memory_mib), (Some(4.0), Some(3_072)));
    assert_eq!(runner_image, "acme/runner:24.04");
    let labels = ["cpu=4", "memory_gib=3", "image=acme/runner:24.04", "run=17"];
    assert_eq!(asked_for.labels[one.labels.len()..], labels);
    assert_eq!(with("cpu=4").container.memory_mib, Some(512));
    assert!(Arc::ptr_eq(&with(""), &one));
}

#[test]
fn what_labels_may_ask_for_is_checked() {
    let file = r#"[runner.label_parameters]
cpu = { min = 9, max = 8 }
memory_gib = { max = 4, min = 1, mid = 3 }
image = ["acme/runner", "Acme/Runner", "a b"]
runs = true
[[pools]]
name = "one"
[[pools]]
name = "two"
[pools.label_parameters]
cpu = 4
memory_gib = { max = 4 }
image = "acme/runner"
[[pools]]
name = "three"
label_parameters = true
"#;
    assert_errors(
        &errors(file, &[]),
        &[
            "3: runner.label_parameters.memory_gib.mid: unknown setting: did you mean `min`?",
            "5: runner.label_parameters.runs: unknown setting: did you mean `run`?",
            "11: pools[1].label_parameters.cpu: write a table such as { min = 1, max = 8 }",
            "13: pools[1].label_parameters.image: write a list of strings such as [\"one\", \"two\"]",
            "16: pools[2].label_parameters: write a table such as { cpu = { min = 1, max = 8 } }",
            "4: runner.label_parameters.image[1]: this image is in the list twice, since GitHub \
             ignores case in labels: remove it (found \"Acme/Runner\")",
            "4: runner.label_parameters.image[2]: write an image such as \
             ghcr.io/actions/actions-runner:latest, of up to 250 characters (found \"a b\")",
            "2: runner.label_parameters.cpu.min: write at most max (8) (found 9)",
            "12: pools[1].label_parameters.memory_gib: write a table such as { min = 1, max = 32 }",
        ],
    );
}

#[test]
fn schedules_are_checked_and_inherited() {
    let file = r#"
[runner]
repositories = ["acme/app"]
[[runner.schedules]]
days = ["mon-fri", "sun"]
hours = "22:00-06:00"
time_zone = "Europe/Berlin"
min_idle = 3
[[pools]]
name = "one"
[[pools]]
name = "two"
schedules = [{ min_idle = 1 }]
"#;
    let config = load(file, &[]).unwrap();
    let [one, two] = &config.pools[..] else { panic!("{:?}", config.pools) };
    assert_eq!((one.schedules[0].days.len(), one.schedules[0].min_idle), (6, 3));
    assert_eq!((two.schedules[0].days.len(), two.schedules[0].min_idle), (7, 1));

    let file = r#"[runner]
repositories = ["acme/app"]
[[runner.schedules]]
days = ["mon", "weekend"]
hours = "8-18"
time_zone = "Europe/Nowhere"
[[pools]]
name = "one"
[[pools]]
name = "two"
[[pools.schedules]]
min_idle = 11
dayz = []
[[pools.schedules]]
min_idle = -1
[[pools]]
name = "three"
repositories = []
schedules = [1, { min_idle = 1 }]
[[pools]]
name = "four"
schedules = "always"
"#;
    let reported = errors(file, &[]);
    assert_errors(
        &reported,
        &[
            "4: runner.schedules[0].days[1]: write mon, tue",
            "5: runner.schedules[0].hours: write two different times",
            "6: runner.schedules[0].time_zone: write a time zone name",
            "3: runner.schedules[0].min_idle: each schedule needs min_idle",
            "12: pools[1].schedules[0].min_idle: write at most max (10)",
            "13: pools[1].schedules[0].dayz: unknown setting: did you mean `days`?",
            "15: pools[1].schedules[1].min_idle: write a whole number from 0 to 10000",
            "19: pools[2].schedules[0]: write a table",
            "19: pools[2].schedules[1].min_idle: idle runners need a place to register",
            "22: pools[3].schedules: write a list of tables",
        ],
    );
}

#[test]
fn a_runner_group_is_set_by_name_or_by_id() {
    let file = r#"[runner]
scope = "organization"
group_id = 3
[[pools]]
name = "inherits"
[[pools]]
name = "named"
group = "large"
[[pools]]
name = "by-id"
group_id = 4
"#;
    let groups = |env: &[(&str, &str)]| -> Vec<RunnerGroup> {
        load(file, env).unwrap().pools.into_iter().map(|pool| pool.group).collect()
    };
    let large = || RunnerGroup::Name("large".into());
    assert_eq!(groups(&[]), [RunnerGroup::Id(3), large(), RunnerGroup::Id(4)]);
    let other = [("RUNNER_GROUP", "other")];
    let named = RunnerGroup::Name("other".into());
    assert_eq!(groups(&other), [named, large(), RunnerGroup::Id(4)]);
    assert_eq!(load("", &[]).unwrap().pools[0].group, RunnerGroup::Id(1));

    let file = r#"[runner]
group = "large"
[[pools]]
name = "both"
scope = "organization"
group = "large"
group_id = 2
[[pools]]
name = "of-a-repository"
[[pools]]
name = "default"
group_id = 1
[[pools]]
name = "registers-itself"
scope = "organization"
contract = "registration-token"
group_id = 2
"#;
    let reported = errors(file, &[]);
    let expected = [
        "6: pools[0].group: group_id is set as well",
        "2: runner.group: runners of a repository can only be in the group Default",
        "17: pools[3].group_id: images that register themselves need the name of the group",
    ];
    assert_eq!(reported.len(), expected.len(), "{reported:?}");
    for (line, text) in reported.iter().zip(expected) {
        assert!(line.starts_with(text), "{text}\n{reported:?}");
    }
}

#[test]
fn idle_runners_need_a_place_to_register() {
    let anywhere = "idle runners need a place to register before a job arrives: ";
    for (scope, problem) in [
        ("repository", "write repositories = [\"OWNER/NAME\"], or [\"OWNER/*\"] with"),
        ("organization", "write repositories = [\"OWNER/*\"], or min_idle = 0"),
    ] {
        let file = format!("[runner]\nscope = \"{scope}\"\nmin_idle = 1");
        let reported = errors(&file, &[]).join("\n");
        assert!(
            reported.starts_with(&format!("3: runner.min_idle: {anywhere}{problem}")),
            "{reported}"
        );
    }

    // No repository pattern names an enterprise.
    let file = r#"[runner]
scope = "enterprise"
repositories = ["acme/app", "acme/*"]
min_idle = 1
[[pools]]
name = "always"
[[pools]]
name = "at-times"
min_idle = 0
schedules = [{ min_idle = 0 }, { min_idle = 2 }]
[[pools]]
name = "never"
min_idle = 0
"#;
    let reported = errors(file, &[]);
    let problem = "idle runners cannot be registered at an enterprise, because its name is only \
                   known from a job: write scope = \"organization\" and repositories = [\"OWNER/*\"], \
                   or min_idle = 0";
    let expected = [("4: runner.min_idle", 1), ("10: pools[1].schedules[1].min_idle", 2)];
    assert_eq!(
        reported,
        expected.map(|(location, found)| format!("{location}: {problem} (found {found})"))
    );
}

#[test]
fn a_special_pool_that_wins_plain_jobs_is_warned_about() {
    let warnings = |gpu: &str, other: &str| {
        let file = format!(
            "[[pools]]\nname = \"gpu\"\nlabels = [\"gpu\"]\n{gpu}\n\
             [[pools]]\nname = \"small\"\nlabels = [\"linux\", \"x64\"]\n{other}\n"
        );
        load(&file, &[]).unwrap().warnings()
    };
    let found = warnings("", "");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("pool gpu: jobs that request only self-hosted"), "{found:?}");
    let repositories = ("repositories = [\"acme/*\"]", "repositories = [\"acme/app\"]");
    assert_eq!(warnings(repositories.0, repositories.1).len(), 1);
    for (gpu, other) in [
        ("require_labels = true", ""),
        ("", "priority = 1"),
        ("priority = 1", ""),
        ("repositories = [\"acme/*\"]", "repositories = [\"other/*\"]"),
    ] {
        assert_eq!(warnings(gpu, other), [] as [String; 0], "{gpu} {other}");
    }
    // Its labels are a part of the other's, so it is the general one.
    let general = "[[pools]]\nname = \"a\"\nlabels = [\"linux\"]\n\
                   [[pools]]\nname = \"b\"\nlabels = [\"linux\", \"gpu\"]\n";
    assert_eq!(load(general, &[]).unwrap().warnings(), [] as [String; 0]);
}

#[test]
fn a_pool_that_requires_labels_serves_no_jobs_without_any() {
    let file = "[runner]\nrequire_labels = true\njobs_without_labels = true\n";
    let errors = load(file, &[]).unwrap_err().to_string();
    assert!(errors.contains("runner.require_labels") && errors.contains("remove one"), "{errors}");
    assert!(
        load("[runner]\nrequire_labels = true\n", &[]).unwrap().pools[0]
            .planner_pool()
            .require_labels
    );
}

#[test]
fn a_start_gets_at_least_the_time_of_the_first_look_up() {
    let errors = load("[runner]\nstarting_timeout_seconds = 15\n", &[]).unwrap_err().to_string();
    assert!(errors.contains("from 20 to 86400"), "{errors}");
}

#[test]
fn a_pool_runs_no_code_of_public_repositories_unless_it_says_so() {
    let pool = |file: &str| load(file, &[]).unwrap().pools[0].planner_pool();
    let (default, other) = (
        pool("[log]\nlevel = \"info\"\n"),
        pool("[runner]\npublic_repositories = true\n[[pools]]\nname = \"a\"\nforks = \"only\"\n"),
    );
    assert_eq!((default.public_repositories, default.forks), (false, plan::Forks::Allow));
    assert_eq!((other.public_repositories, other.forks), (true, plan::Forks::Only));
    let errors = load("[runner]\nforks = \"maybe\"\n", &[]).unwrap_err().to_string();
    let expected = "runner.forks: write \"allow\" or \"refuse\" or \"only\"";
    assert!(errors.contains(expected), "{errors}");
}

#[test]
fn a_pool_that_runs_the_code_of_anyone_is_warned_about() {
    let warnings = |settings: &str| {
        load(&format!("[[pools]]\nname = \"open\"\n{settings}\n"), &[]).unwrap().warnings()
    };
    let found = warnings("public_repositories = true");
    assert!(found[0].starts_with("pool open: it runs jobs of public repositories"), "{found:?}");
    for settings in ["", "forks = \"only\"", "public_repositories = true\nforks = \"refuse\""] {
        assert_eq!(warnings(settings), [] as [String; 0], "{settings}");
    }
}

#[test]
fn parked_runners_are_refused_where_they_cannot_be_with_the_reason() {
    let pool = |settings: &str| {
        format!("[[pools]]\nname = \"one\"\nrepositories = [\"acme/app\"]\nparked = 2\n{settings}")
    };
    let config = load(&pool("parked_timeout_seconds = 600"), &[]).unwrap();
    let planned = config.pools[0].planner_pool();
    assert_eq!((planned.parked, planned.parked_ms), (2, 600_000));
    for (settings, problem) in [
        ("max = 1", "write at most max (1)"),
        ("contract = \"registration-token\"", "its token ends after an hour"),
        ("egress = [\"github.com\"]", "runners with egress cannot be parked"),
        ("egress_mode = \"observe\"", "runners with egress cannot be parked"),
        ("scope = \"enterprise\"", "parked runners cannot be registered at an enterprise"),
    ] {
        let errors = errors(&pool(settings), &[]);
        let expected = format!("pools[0].parked: {problem}");
        assert!(errors.iter().any(|error| error.contains(problem)), "{expected}: {errors:?}");
    }
    let gpus = format!("[docker]\nhost_gpus = [\"0\"]\n{}", pool("gpus = 1"));
    assert!(errors(&gpus, &[])[0].contains("would keep GPUs from the others"));
    let swarm =
        format!("[swarm]\nlauncher_image = \"edgerunner\"\n{}", pool("provider = \"swarm\""));
    assert!(errors(&swarm, &[])[0].contains("a service cannot be signalled"));
    let anywhere = errors("[[pools]]\nname = \"one\"\nparked = 1", &[]);
    assert!(anywhere[0].contains("parked runners need a place to register"), "{anywhere:?}");
}

#[test]
fn the_revision_of_a_pool_follows_what_its_runners_are_launched_with() {
    let revision = |settings: &str| {
        let file = format!("[[pools]]\nname = \"one\"\n{settings}");
        load(&file, &[]).unwrap().pools[0].revision()
    };
    let before = revision("");
    assert_eq!(revision("max = 3\nidle_timeout_seconds = 9"), before);
    for settings in [
        "runner_image = \"other\"",
        "labels = [\"gpu\"]",
        "group_id = 2",
        "work_folder = \"w\"",
        "env = { TOKEN = \"a\" }",
    ] {
        assert_ne!(revision(settings), before, "{settings}");
    }
    assert_ne!(revision("env = { TOKEN = \"a\" }"), revision("env = { TOKEN = \"b\" }"));
}
