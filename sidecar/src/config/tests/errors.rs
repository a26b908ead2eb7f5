//! Error messages: locations, texts, and no secrets.

use super::*;
use crate::config::ConfigErrors;

#[test]
fn all_errors_are_reported_at_once_with_their_locations() {
    let file = r#"[server]
grpc_address = "localhost"
[github]
api_url = "https://ghe.example.com"
token = 5
timeout_seconds = 61
[dockr]
[docker]
runner_imge = "x"
labels = ["x"]
memory_mib = 5
cpus = "two"
pull_policy = "sometimes"
volumes = ["/only"]
env = { A = 1, B = 2 }
[runner]
labels = ["a b", 7, "x", "X", 8]
repositories = ["acme"]
min_idle = 1
[scheduler]
instance = "Édge"
max = 0
[[pools]]
name = "one"
[[pools]]
name = "one"
max = 0
host = "unix:///x"
[[pools]]
job_timeout_seconds = 2.5
repositories = ["acme/app"]
min_idle = 20
[missed_webhooks]
budget_share = 1.5
look_back_hours = 73
hooks = ["app/hook", "acme/app", "orgs/acme/hooks/one"]
"#;
    let env = [
        ("SERVER_HTTP_ADDRESS", "8081"),
        ("DOCKER_INIT", "yes"),
        ("RUNNER_CONTRACT", "ghp_do_not_print_me"),
        ("RUNNER_PRIORITY", "null"),
        ("DOCKER_DNS", "10.0.0.1,nowhere"),
        ("LOG_LEVEL", "inof"),
        ("GITHUB_WEBHOOK_SECRET_FILE", "/does/not/exist"),
        ("SERVER_API_TOKEN", "two words"),
    ];
    let mut reported = errors(file, &env);
    reported.sort_by_key(|line| {
        let number = line.split(':').next().and_then(|number| number.parse().ok());
        number.unwrap_or(usize::MAX)
    });
    let expected = [
        "2: server.grpc_address: write an address and port such as 127.0.0.1:50051, or unix:/PATH",
        "4: github.api_url: the API of a GitHub Enterprise Server ends in /api/v3",
        "5: github.token: write a string in quotes",
        "6: github.timeout_seconds: write a whole number from 1 to 60",
        "7: dockr: unknown setting: did you mean `docker`?",
        "9: docker.runner_imge: unknown setting: did you mean `runner_image`?",
        "10: docker.labels: unknown setting: did you mean `runner.labels`?",
        "11: docker.memory_mib: write a whole number from 6 to",
        "12: docker.cpus: write a number from 0.01 to",
        "13: docker.pull_policy: write \"missing\" or \"always\" or \"never\"",
        "14: docker.volumes[0]: write SOURCE:/DESTINATION",
        "15: docker.env.A: write a string in quotes",
        "15: docker.env.B: write a string in quotes",
        "17: runner.labels[0]: write a label of up to 256 characters, without commas or spaces",
        "17: runner.labels[1]: write a string in quotes",
        "17: runner.labels[3]: this label is in the list twice",
        "17: runner.labels[4]: write a string in quotes",
        "18: runner.repositories[0]: write OWNER/NAME; * stands for any part of either, as in acme/*",
        "19: runner.min_idle: idle runners need a place to register",
        "21: scheduler.instance: write 1 to 20 characters of a to z",
        "22: scheduler.max: write a whole number from 1 to",
        "26: pools[1].name: another pool has this name",
        "27: pools[1].max: write a whole number from 1 to",
        "28: pools[1].host: unknown setting: did you mean `docker.host`?",
        "29: pools[2].name: each pool needs a unique name",
        "30: pools[2].job_timeout_seconds: write a whole number from 1 to",
        "32: pools[2].min_idle: write at most max (10)",
        "34: missed_webhooks.budget_share: write a number from 0.001 to 1",
        "35: missed_webhooks.look_back_hours: write a whole number from 1 to 72",
        "36: missed_webhooks.hooks[1]: write repos/OWNER/NAME/hooks/ID",
        "36: missed_webhooks.hooks[2]: write repos/OWNER/NAME/hooks/ID",
        "SERVER_HTTP_ADDRESS: write an address and port such as 127.0.0.1:8081",
        "DOCKER_INIT: write true or false",
        "RUNNER_CONTRACT: write jit or registration-token",
        "RUNNER_PRIORITY: write a whole number from -1000 to 1000",
        "DOCKER_DNS: write an IP address",
        "LOG_LEVEL: write error, warn, info",
        "SERVER_API_TOKEN: write printable ASCII",
        "GITHUB_WEBHOOK_SECRET_FILE: cannot read that file",
    ];
    assert_errors(&reported, &expected);
}

#[test]
fn the_value_is_shown_unless_it_may_be_a_secret() {
    let file = "[github]\ntimeout_seconds = 61\ntoken = 12345\n[docker]\npull_policy = \
                \"sometimes\"\nmemory_mib = \"AbCdEfGhIjKlMnOpQrStUvWx\"\nenv = { A = 77 }\n\
                [runner]\nrepositories = [\"!acme/app\"]\nunknwn = \"password\"\n";
    let reported = errors(file, &[]).join("\n");
    for text in [
        "write a whole number from 1 to 60 (found 61)",
        "write \"missing\" or \"always\" or \"never\" (found \"sometimes\")",
        "repositories[0]: a pattern cannot exclude repositories: list those that this pool serves \
         (found \"!acme/app\")",
    ] {
        assert!(reported.contains(text), "{text}\nin\n{reported}");
    }
    for text in ["12345", "AbCdEf", "77", "password"] {
        assert!(!reported.contains(text), "{text}\nin\n{reported}");
    }
}

#[test]
fn variables_that_are_nearly_those_of_settings_are_named() {
    let names = [
        "RUNNER_LABLES",
        "GITHUB_TOKENS",
        "GITHB_TOKEN",
        "EDGERUNNER_CONFG",
        // Settings, or variables of other programs.
        "RUNNER_LABELS",
        "EDGERUNNER_CONFIG",
        "RUNNER_NAME",
        "RUNNER_OS",
        "RUNNER_ARCH",
        "RUNNER_TEMP",
        "GITHUB_REPOSITORY",
        "GITHUB_ACTIONS",
        "GITHUB_SERVICE_HOST",
        "DOCKER_CONFIG",
        "DOCKER_CERT_PATH",
        "LOGLEVEL",
        "PATH",
    ];
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store.db").display().to_string();
    let env = [("GITHUB_TOKEN", SECRET), ("STORE_PATH", &store)];
    let load = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Config::load_on_this_machine(None, &|name| variable(&env, name), &names)
    };
    let printed = load(&names).unwrap_err().to_string();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        lines,
        [
            "RUNNER_LABLES: no setting has this variable: did you mean RUNNER_LABELS?",
            "GITHUB_TOKENS: no setting has this variable: did you mean GITHUB_TOKEN?",
            "GITHB_TOKEN: no setting has this variable: did you mean GITHUB_TOKEN?",
            "EDGERUNNER_CONFG: no setting has this variable: did you mean EDGERUNNER_CONFIG?",
        ]
    );
    assert!(load(&["PATH"]).is_ok());
}

#[test]
fn the_directory_of_the_store_must_exist() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("typo/store.db").display().to_string();
    let env = [("GITHUB_TOKEN", SECRET), ("STORE_PATH", &store)];
    let load = || Config::load_on_this_machine(None, &|name| variable(&env, name), &[]);
    let printed = load().unwrap_err().to_string();
    assert!(printed.starts_with("STORE_PATH: its directory does not exist"), "{printed}");
    fs::create_dir(directory.path().join("typo")).unwrap();
    assert!(load().is_ok());
}

#[test]
fn no_error_repeats_a_secret() {
    // The secret in every place where an error can be.
    for (section, fields) in Schema::new().sections() {
        for field in fields.keys() {
            for file in [
                format!("[{section}]\n{field} = [\"{SECRET} :\", 1]"),
                format!("[{section}]\n{field} = {{ a = [\"{SECRET}\"] }}"),
                format!("[{section}]\n{field} = {SECRET}"),
                format!("[{section}]\n{field} = \"{SECRET}\\n\\u0000:\"\nx = 1"),
                format!("{section} = \"{SECRET}\""),
                format!("pools = [\"{SECRET}\"]"),
                format!("[{section}]\n{field} = \"{SECRET}"),
            ] {
                errors(&file, &[]);
            }
            let variable = format!("{section}_{field}").to_ascii_uppercase();
            if let Err(printed) = load("", &[(&variable, &format!("{SECRET}\u{1}"))]) {
                assert!(!printed.to_string().contains(SECRET), "{printed}");
            }
        }
    }
}

#[test]
fn an_item_that_is_not_a_pool_hides_no_other_error() {
    let reported = errors("pools = [\"one\", { name = \"two\", max = 0 }]", &[]);
    assert_eq!(reported[0], "1: pools[0]: write a table");
    assert!(reported[1].starts_with("1: pools[1].max: "), "{reported:?}");
    assert_eq!(reported.len(), 2, "{reported:?}");
}

#[test]
fn a_file_that_cannot_be_read_or_is_not_toml_is_an_error() {
    let ConfigErrors(reported) =
        Config::load(Some("/does/not/exist".as_ref()), &no_variables).unwrap_err();
    assert_eq!(reported[0].location, "/does/not/exist");
    let reported = errors("[log]\nlevel = info\n[runner]\nmax = 0", &[]);
    assert!(reported[0].starts_with("2: invalid TOML: "), "{reported:?}");
    assert!(reported.iter().any(|line| line.starts_with("4: runner.max")), "{reported:?}");
}
