//! Registries, containers and job scripts.

use secrecy::ExposeSecret as _;

use super::*;
use crate::config::{Gpus, Reserves, ToolCache};

#[test]
fn registries_have_a_host_a_user_and_a_password() {
    let secret = TempFile::new("s3cret\n");
    let file = format!(
        "[[registries]]\nhost = \"ghcr.io\"\nusername = \"acme\"\npassword = {SECRET:?}\n\
         [[registries]]\nhost = \"127.0.0.1:5000\"\nusername = \"acme\"\npassword_file = {:?}\n",
        secret.path()
    );
    let config = load(&file, &[]).unwrap();
    assert!(!format!("{config:?}").contains(SECRET));
    let reported: Vec<_> = config
        .registries
        .iter()
        .map(|it| (&*it.host, it.password.as_ref().unwrap().expose_secret()))
        .collect();
    assert_eq!(reported, [("ghcr.io", SECRET), ("127.0.0.1:5000", "s3cret")]);

    let file = r#"[[registries]]
host = "https://ghcr.io/"
username = "a"
password = "ghp_do_not_print_me"
password_file = "/dev/null"
[[registries]]
host = "a.example"
[[registries]]
host = "a.example"
username = "a"
pasword = "ghp_do_not_print_me"
"#;
    let reported = errors(file, &[]);
    assert_errors(
        &reported,
        &[
            "2: registries[0].host: write the host as in image names",
            "5: registries[0].password_file: the secret is also set directly",
            "6: registries[1].username: write the user name",
            "6: registries[1].password: the password is missing",
            "9: registries[2].host: another registry has this host",
            "11: registries[2].pasword: unknown setting: did you mean `password`?",
            "8: registries[2].password: the password is missing",
        ],
    );
}

#[test]
fn job_scripts_are_read_from_files_of_this_machine() {
    let file = format!(
        "docker.job_started_script = {SCRIPT_FILE:?}\n[[pools]]\nname = \"one\"\n\
         job_completed_script = {SCRIPT_FILE:?}\n"
    );
    let config = load(&file, &[]).unwrap();
    let scripts: Vec<_> = config.pools[0]
        .job_scripts
        .iter()
        .map(|script| (script.variable, &*script.path, script.content.as_slice()))
        .collect();
    let content: &[u8] = b"#!/bin/sh\necho script\n";
    assert_eq!(
        scripts,
        [
            ("ACTIONS_RUNNER_HOOK_JOB_STARTED", "/opt/edgerunner/job-started.sh", content),
            ("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", "/opt/edgerunner/job-completed.sh", content),
        ]
    );

    let long = tempfile::NamedTempFile::with_suffix(".sh").unwrap();
    long.as_file().set_len((1 << 20) + 1).unwrap();
    let file = format!(
        "[docker]\njob_started_script = \"/no/such/file.sh\"\njob_completed_script = \"/dev/null\"\n\
         [[pools]]\nname = \"one\"\n[[pools]]\nname = \"two\"\njob_started_script = {:?}\n",
        long.path()
    );
    let reported = errors(&file, &[]);
    assert_errors(
        &reported,
        &[
            "2: docker.job_started_script: cannot read that file",
            "3: docker.job_completed_script: write the path of a .sh or .ps1 script",
            "8: pools[1].job_started_script: that file is larger than 1 MiB",
        ],
    );
}

#[test]
fn errors_in_container_settings_say_what_to_write() {
    let file = r#"[docker]
host = "tcp://127.0.0.1:2375"
ulimits = ["nofile", "core=-2", "nproc=1:2"]
dind_image = "docker dind"
docker = "yes"
[[pools]]
name = "one"
docker = "socket"
[[pools]]
name = "two"
docker = "dind"
network = "host"
[[pools]]
name = "three"
docker = "none"
network = "host"
"#;
    let reported = errors(file, &[]);
    assert_errors(
        &reported,
        &[
            "3: docker.ulimits[0]: write NAME=SOFT",
            "3: docker.ulimits[1]: write NAME=SOFT",
            "4: docker.dind_image: write an image such as docker:dind",
            "5: docker.docker: write \"none\" or \"socket\" or \"dind\"",
            "8: pools[0].docker: the Docker socket is not on this machine",
            "12: pools[1].network: docker = \"dind\" needs a bridge network",
        ],
    );
}

#[test]
fn images_that_register_themselves_have_a_command() {
    let command = |text: &str| load(text, &[]).unwrap().pools[0].command();
    assert!(command("runner.contract = \"registration-token\"").is_empty());
    assert!(command("docker.command = []").is_empty());
    assert_eq!(command("docker.command = [\"/run\"]"), ["/run"]);
}

#[test]
fn what_an_engine_of_a_runner_or_docker_would_refuse_is_refused() {
    let file = r#"[docker]
registry_mirrors = ["https://ok.example", "https://ci:s3cret@mirror.example.com", "mirror/hub"]
insecure_registries = ["http://registry:5000"]
dind_args = ["debug", "--host=tcp://0.0.0.0:2375"]
devices = ["/dev/kvm", "kvm", "/dev/a:/dev/b:x"]
gpus = 0
tool_cache = "shared"
tool_cache_days = 0
"#;
    let reported = errors(file, &[]);
    assert!(!reported.join("\n").contains("s3cret"), "{reported:?}");
    assert_errors(
        &reported,
        &[
            "8: docker.tool_cache_days: write a whole number from 1 to 365",
            "6: docker.gpus: write \"all\", a number of GPUs from 1, or a list of IDs",
            "7: docker.tool_cache: write \"none\" or \"repository\" or \"pool\"",
            "2: docker.registry_mirrors[1]: write the URL without user and password",
            "2: docker.registry_mirrors[2]: write a URL such as",
            "3: docker.insecure_registries[0]: write HOST, HOST:PORT or a network",
            "4: docker.dind_args[0]: write an argument of dockerd such as",
            "4: docker.dind_args[1]: edgerunner sets this argument itself",
            "5: docker.devices[1]: write an absolute path such as /dev/kvm",
            "5: docker.devices[2]: write an absolute path such as /dev/kvm",
        ],
    );
}

#[test]
fn a_number_of_gpus_is_one_of_those_that_the_machine_has() {
    let pools = |host: &str, gpus: &[&str]| {
        let mut file = format!("docker.host_gpus = {host}\n");
        for (index, gpus) in gpus.iter().enumerate() {
            file += &format!("[[pools]]\nname = \"p{index}\"\ngpus = {gpus}\n");
        }
        file
    };
    let config = load(&pools(r#"["0", "1", "2"]"#, &["2", r#"["3"]"#, "1"]), &[]).unwrap();
    let settings = config.planner_settings();
    assert_eq!(settings.devices, ["0", "1", "2"]);
    let each: Vec<usize> = settings.pools.iter().map(|pool| pool.devices).collect();
    assert_eq!(each, [2, 0, 1]);
    assert!(config.warnings().iter().all(|warning| !warning.contains("GPU")));

    let reported = errors(&pools("[]", &["1"]), &[]);
    assert_errors(&reported, &["4: pools[0].gpus: a number needs the list of the machine's GPUs"]);
    let reported = errors(&pools(r#"["0", "1"]"#, &["3"]), &[]);
    assert_errors(&reported, &["4: pools[0].gpus: docker.host_gpus lists 2: write at most that"]);
    let reported = errors(&pools(r#"["0", "0", "a b"]"#, &["1", r#"["0"]"#]), &[]);
    assert_errors(
        &reported,
        &[
            "1: docker.host_gpus[1]: this GPU is in the list twice",
            "1: docker.host_gpus[2]: write the ID, the UUID or the CDI name of one GPU",
            "7: pools[1].gpus: GPU 0 is in docker.host_gpus, so a runner of pool p0 may have it",
        ],
    );
    let config = load(&pools(r#"["0"]"#, &["1", r#""all""#]), &[]).unwrap();
    let warnings = config.warnings();
    assert!(warnings.iter().any(|it| it.starts_with("pool p1: its runners use all GPUs")));
}

#[test]
fn a_pool_promises_its_limits_and_with_an_engine_of_its_own_twice() {
    let file = "[docker]\nreserve_memory_mib = 512\nreserve_cpus = 0.5\nmemory_mib = 1024\n\
                [[pools]]\nname = \"plain\"\ncpus = 1.5\n\
                [[pools]]\nname = \"dind\"\ndocker = \"dind\"\ncpus = 0.01\n\
                [[pools]]\nname = \"open\"\n";
    let config = load(file, &[]).unwrap();
    let promised: Vec<(u64, u64)> = config
        .planner_settings()
        .pools
        .iter()
        .map(|pool| (pool.promised.memory_mib, pool.promised.cpu_millis))
        .collect();
    assert_eq!(promised, [(1_024, 1_500), (2_048, 20), (1_024, 0)]);
    let reserves = Reserves { memory_mib: Some(512), cpus: Some(0.5), disk_mib: 1_024 };
    assert_eq!(config.reserves, reserves);
    let warnings: Vec<String> =
        config.warnings().into_iter().filter(|it| it.contains("docker.reserve_")).collect();
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.starts_with("pool open: it has no cpus, so its runners may use"), "{warning}");

    let reported = errors("[docker]\nreserve_cpus = -1\nreserve_disk_mib = \"all\"\n", &[]);
    assert_eq!(reported.len(), 2, "{reported:?}");
}

#[test]
fn gpus_may_be_set_in_the_environment() {
    for (text, expected) in [
        ("all", Gpus::All),
        ("2", Gpus::Number(2)),
        ("0,1", Gpus::Ids(vec!["0".into(), "1".into()])),
        ("GPU-0f", Gpus::Ids(vec!["GPU-0f".into()])),
    ] {
        let variables = [("DOCKER_GPUS", text), ("DOCKER_HOST_GPUS", "7,8")];
        let config = load("", &variables).unwrap();
        assert_eq!(config.pools[0].container.gpus, Some(expected), "{text}");
    }
}

#[test]
fn a_tool_cache_of_a_repository_needs_runners_of_a_repository() {
    let pool = |scope: &str, cache: &str| {
        format!("[[pools]]\nname = \"p\"\nscope = \"{scope}\"\ntool_cache = \"{cache}\"\n")
    };
    for (scope, cache) in [("repository", "repository"), ("organization", "pool")] {
        let config = load(&pool(scope, cache), &[]).unwrap();
        assert_ne!(config.pools[0].container.tool_cache, ToolCache::None);
    }
    for scope in ["organization", "enterprise"] {
        let reported = errors(&pool(scope, "repository"), &[]);
        let expected = "4: pools[0].tool_cache: the repository of such a runner is not known when";
        assert_errors(&reported, &[expected]);
    }
    let file = pool("repository", "pool") + "env = { RUNNER_TOOL_CACHE = \"/cache\" }\n";
    let expected = "5: pools[0].env.RUNNER_TOOL_CACHE: tool_cache sets this directory as well";
    assert_errors(&errors(&file, &[]), &[expected]);
}

#[test]
fn egress_is_checked_with_what_would_get_around_it() {
    let config = load("docker.egress_mode = \"observe\"\n", &[]).unwrap();
    assert!(config.pools[0].container.has_egress());
    assert!(!load("", &[]).unwrap().pools[0].container.has_egress());
    let config = load("", &[("DOCKER_EGRESS", "github.com,*.example.com:5000")]).unwrap();
    assert_eq!(config.pools[0].container.egress, ["github.com", "*.example.com:5000"]);

    let file = r#"[docker]
egress = ["github.com", "*", "https://a.example"]
egress_mode = "off"
egress_image = "en voy"
docker = "socket"
network = "build"
env = { https_proxy = "http://proxy" }
"#;
    let reported = errors(file, &[]);
    for expected in [
        "2: docker.egress[1]: * alone would permit every host",
        "2: docker.egress[2]: write a host name such as github.com",
        "3: docker.egress_mode: write \"enforce\" or \"observe\"",
        "4: docker.egress_image: write an image such as",
        "5: docker.docker: with the socket of the host's Docker Engine",
        "6: docker.network: runners with egress stand in a network of their own",
        "7: docker.env.https_proxy: with egress, the sidecar sets this variable",
    ] {
        assert!(reported.iter().any(|it| it.starts_with(expected)), "{expected}: {reported:#?}");
    }
    assert_eq!(reported.len(), 7, "{reported:#?}");
}
