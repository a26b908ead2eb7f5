use std::{collections::BTreeSet, fs, path::PathBuf};

use secrecy::ExposeSecret;
use serde_json::Value;

use super::*;

pub(super) const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../edgerunner.example.toml");
const SECRET: &str = "ghp_do_not_print_me";
const APP_KEY: &str = include_str!("../github/test-app.pem");
const HOOK_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/test-hook.sh");
const APP_KEY_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/github/test-app.pem");

struct Written {
    dir: tempfile::TempDir,
}

impl Written {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("edgerunner.toml"), text).unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("edgerunner.toml")
    }
}

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let written = Written::new(text);
    Config::load(Some(&written.path()), &|name| look_up(env, name))
}

fn look_up(env: &[(&str, &str)], name: &str) -> Option<String> {
    env.iter().find_map(|(known, value)| (*known == name).then(|| (*value).to_owned()))
}

/// `line: field: problem` or `VARIABLE: problem` of each mistake.
fn errors(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    let said = load(text, env).unwrap_err().to_string();
    assert!(!said.contains(SECRET), "{said}");
    said.lines()
        .map(|line| match line.split_once("edgerunner.toml:") {
            Some((_, rest)) => rest.to_owned(),
            None => line.to_owned(),
        })
        .collect()
}

/// These and no others, by how they begin.
fn assert_told(told: &[String], expected: &[&str]) {
    let joined = told.join("\n");
    for text in expected {
        let found = told.iter().filter(|line| line.starts_with(text)).count();
        assert_eq!(found, 1, "{text}\nin\n{joined}");
    }
    assert_eq!(told.len(), expected.len(), "{joined}");
}

fn nothing_set(_: &str) -> Option<String> {
    None
}

#[test]
fn the_environment_alone_makes_one_pool() {
    let env = [("GITHUB_TOKEN", SECRET), ("RUNNER_LABELS", "")];
    let config = Config::load_to_serve(None, &|name| look_up(&env, name)).unwrap();
    let [pool] = &config.pools[..] else { panic!("{:?}", config.pools) };
    assert_eq!(pool.name, "default");
    assert_eq!(pool.labels.len(), 3);
    assert_eq!(pool.container.cap_drop, ["ALL"]);
    assert_eq!(pool.command(), ["/home/runner/run.sh"]);
    assert_eq!(pool.planner_pool().limits.job_ms, 21_600_000);
    assert_eq!(token(&config.credentials[0]), SECRET);
    assert_eq!(config.planner_settings().max, usize::MAX);
    assert!(!format!("{config:?}").contains(SECRET));
}

#[test]
fn the_example_shows_every_field_and_the_defaults() {
    let example = Config::load(Some(EXAMPLE.as_ref()), &nothing_set).unwrap();
    let defaults = Config::load(None, &nothing_set).unwrap();
    assert_eq!(format!("{example:#?}"), format!("{defaults:#?}"));

    // What is commented out is right as well.
    let text = fs::read_to_string(EXAMPLE).unwrap();
    let optional = |line: &str| {
        let setting = line.strip_prefix('#')?;
        (!setting.starts_with(' ')).then(|| setting.to_owned())
    };
    let hooks = tempfile::tempdir().unwrap();
    for name in ["job-started.sh", "job-completed.sh"] {
        fs::copy(HOOK_FILE, hooks.path().join(name)).unwrap();
    }
    let both_ways = [
        "api_token_file = ",
        "token_file = ",
        "webhook_secret_file = ",
        "password_file = ",
        "app_",
        "group",
        "proxy_url_file = ",
    ];
    let ca = Written::new(&ca_pem());
    let ca = ca.path().display().to_string();
    let uncommented: Vec<String> = text
        .lines()
        .map(|line| optional(line).unwrap_or_else(|| line.to_owned()))
        .filter(|line| !both_ways.iter().any(|other| line.starts_with(other)))
        // They must be there.
        .map(|line| line.replace("/run/secrets/webhook\"", "/dev/null\""))
        .map(|line| line.replace("/etc/edgerunner/ca.pem", &ca))
        .map(|line| {
            line.replace("/etc/edgerunner/job-", &format!("{}/job-", hooks.path().display()))
        })
        .collect();
    let config = load(&uncommented.join("\n"), &[]).unwrap();
    let names: Vec<_> = config.pools.iter().map(|pool| &pool.name).collect();
    assert_eq!(names, ["small", "gpu"]);

    let shown: toml::Table = text
        .lines()
        .map(|line| optional(line).unwrap_or_else(|| line.to_owned()))
        .collect::<Vec<_>>()
        .join("\n")
        .parse()
        .unwrap();
    for (section, fields) in Schema::of_config().sections() {
        let shown: BTreeSet<_> = shown[section].as_table().unwrap().keys().collect();
        assert_eq!(shown, fields.keys().collect(), "[{section}]");
    }
}

fn ca_pem() -> String {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

#[test]
fn the_way_to_github_is_told_for_all_and_for_each() {
    let ca = Written::new(&ca_pem());
    let both = Written::new(&format!("{}{}", ca_pem(), ca_pem()));
    let file = format!(
        r#"[github]
token = "ghp_1"
ca_file = {:?}
[[credentials]]
name = "ghes"
targets = ["acme"]
token = "ghp_2"
api_url = "https://ghe.example/api/v3"
ca_file = {:?}
[[credentials]]
name = "plain"
targets = ["other"]
token = "ghp_3"
api_url = "http://127.0.0.1:1"
"#,
        ca.path(),
        both.path()
    );
    let way = |env: &[(&str, &str)]| -> Vec<(usize, bool)> {
        let credentials = load(&file, env).unwrap().credentials;
        credentials.iter().map(|it| (it.ca.len(), it.proxy.is_some())).collect()
    };
    assert_eq!(way(&[]), [(2, false), (1, false), (1, false)]);
    let proxy = ("HTTPS_PROXY", "http://user:pass@proxy:3128");
    assert_eq!(way(&[proxy]), [(2, true), (1, false), (1, true)]);
    assert_eq!(way(&[proxy, ("no_proxy", "ghe.example")]), [(2, false), (1, false), (1, true)]);

    let told = |env: &[(&str, &str)]| errors(&file, env);
    let problem = "write a URL such as http://HOST:3128 or http://USER:PASSWORD@HOST:3128";
    assert_eq!(told(&[("https_proxy", "socks5://proxy")]), [format!("https_proxy: {problem}")]);
    let plain = told(&[("GITHUB_PROXY_URL", "http://proxy")]);
    assert!(plain[0].starts_with("GITHUB_PROXY_URL: a proxy needs an api_url with TLS"));

    let text = Written::new("no certificate");
    let key = Written::new(APP_KEY);
    for (path, problem) in [
        ("/no/such/file".into(), "cannot read that file"),
        (text.path(), "there is no certificate in that file"),
        (key.path(), "there is no certificate in that file"),
    ] {
        let file = format!("[[credentials]]\nca_file = {path:?}\n");
        let told = errors(&file, &[("GITHUB_CA_FILE", path.to_str().unwrap())]);
        for place in ["2: credentials[0].ca_file: ", "GITHUB_CA_FILE: "] {
            assert!(
                told.iter().any(|line| line.starts_with(&format!("{place}{problem}"))),
                "{told:?}"
            );
        }
    }
}

fn token(credential: &CredentialConfig) -> &str {
    match &credential.identity {
        Identity::Token(token) => token.value.expose_secret(),
        Identity::App { .. } => panic!("an App"),
    }
}

/// A value for a field that is not its default.
fn another(section: &str, field: &str, schema: &Value) -> String {
    let text = match (section, field) {
        ("server", "grpc_address" | "http_address") => "127.0.0.9:9",
        ("server", "api_token_file") => "/dev/null",
        ("github", "api_url") => "https://ghe.example.com/api/v3",
        ("github", "webhook_url") => "https://hooks.example.com/webhooks/github",
        ("github", "web_url") => "https://ghe.example.com",
        ("github", field) if field.ends_with("_file") => "/dev/null",
        ("github", "proxy_url") => "http://proxy:3128",
        ("github", "app_private_key") => APP_KEY,
        ("missed_webhooks", "enabled") => "false",
        ("missed_webhooks", "budget_share") => "0.5",
        ("missed_webhooks", "hooks") => "orgs/acme/hooks/7,app/hook",
        ("docker", "host") => "tcp://10.0.0.1:2375",
        ("docker", "dns") => "10.0.0.1, 10.0.0.2",
        ("docker", "extra_hosts") => "a:10.0.0.1,b:10.0.0.2",
        ("docker", "volumes") => "/a:/a,b:/b:ro",
        ("docker", "tmpfs") => "/tmp:size=64m,/run",
        ("docker", "pull_policy") => "always",
        ("docker", "docker") => "dind",
        ("docker", "ulimits") => "nofile=65536,core=0:-1",
        ("docker", "job_started_script" | "job_completed_script") => HOOK_FILE,
        ("runner", "scope") => "organization",
        ("runner", "repositories") => "acme/app,acme/*",
        ("runner", "contract") => "registration-token",
        ("log", "level") => "debug,hyper=warn",
        ("log", "format") => "json",
        ("traces", "otlp_endpoint") => "http://127.0.0.1:4317",
        _ if schema::is_a(schema, "boolean") => "true",
        _ if schema::is_a(schema, "array") => "one,two",
        _ if schema::is_a(schema, "integer") || schema::is_a(schema, "number") => "7",
        _ => "another",
    };
    text.to_owned()
}

/// What a variable does not go without.
fn needed(variable: &str, name: &str) -> Option<&'static str> {
    match name {
        "RUNNER_REPOSITORIES" if variable == "RUNNER_MIN_IDLE" => Some("acme/app"),
        "RUNNER_SCOPE" if variable == "RUNNER_GROUP" => Some("organization"),
        "SERVER_GRPC_CERTIFICATE_FILE" | "SERVER_GRPC_KEY_FILE" | "SERVER_GRPC_CLIENT_CA_FILE"
            if variable.starts_with("SERVER_GRPC_") && variable.ends_with("_FILE") =>
        {
            Some("/some.pem")
        }
        _ => None,
    }
}

#[test]
fn every_field_is_settable_by_its_variable() {
    let defaults = format!("{:?}", Config::load(None, &nothing_set).unwrap());
    let mut settable = 0;
    for (section, fields) in Schema::of_config().sections() {
        for (field, schema) in fields {
            if !environment::is_settable(schema) {
                continue;
            }
            let variable = format!("{section}_{field}").to_ascii_uppercase();
            let value = another(section, field, schema);
            let result = Config::load(None, &|name| {
                if name == variable {
                    Some(value.clone())
                } else {
                    needed(&variable, name).map(str::to_owned)
                }
            });
            if field.ends_with("_file") && !field.starts_with("grpc_") {
                let said = result.unwrap_err().to_string();
                assert!(said.starts_with(&format!("{variable}: that file is empty")), "{said}");
            } else {
                let config = result.unwrap_or_else(|why| panic!("{variable}={value}: {why}"));
                assert_ne!(format!("{config:?}"), defaults, "{variable}");
            }
            settable += 1;
        }
    }
    assert!(settable > 50, "{settable}");
}

#[test]
fn mutual_tls_takes_all_of_its_files_and_no_unix_socket() {
    let file = r#"
        [server]
        grpc_address = "unix:/run/edgerunner.sock"
        grpc_certificate_file = "server.pem"
        grpc_client_ca_file = "clients.pem"
    "#;
    let told = errors(file, &[]).join("\n");
    assert!(told.contains("server.grpc_certificate_file: a Unix socket has no TLS"), "{told}");
    assert!(
        told.contains("server.grpc_key_file: mutual TLS, which grpc_certificate_file asks for")
    );
    let whole =
        file.replace("unix:/run/edgerunner.sock", "127.0.0.1:9") + "grpc_key_file = \"server.key\"";
    assert!(load(&whole, &[]).unwrap().server.grpc_tls().is_some());
    let told = errors("server.grpc_address = \"unix:run.sock\"", &[]).join("\n");
    assert!(told.contains("or unix:/PATH"), "{told}");
}

#[test]
fn the_environment_beats_the_file_and_empty_is_not_set() {
    let file = "github.timeout_seconds = 5\nlog.level = \"warn\"\nrunner.max = 1_000";
    let env = [("GITHUB_TIMEOUT_SECONDS", "7"), ("LOG_LEVEL", "")];
    let config = load(file, &env).unwrap();
    assert_eq!(config.github.timeout_seconds, 7);
    assert_eq!(config.log.level, "warn");
    assert_eq!(config.runner.max, 1000);
}

#[test]
fn a_pool_takes_from_the_sections_what_it_does_not_say() {
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
    assert_eq!(planned.targets_known_beforehand().len(), 1);
}

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
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
    let mut told = errors(file, &env);
    told.sort_by_key(|line| {
        let number = line.split(':').next().and_then(|number| number.parse().ok());
        number.unwrap_or(usize::MAX)
    });
    let expected = [
        "2: server.grpc_address: write an address and port such as 127.0.0.1:50051, or unix:/PATH",
        "4: github.api_url: a GitHub Enterprise Server's ends in /api/v3",
        "5: github.token: write a string in quotes",
        "6: github.timeout_seconds: write a whole number from 1 to 60",
        "7: dockr: there is no such name: did you mean `docker`?",
        "9: docker.runner_imge: there is no such name: did you mean `runner_image`?",
        "10: docker.labels: there is no such name: did you mean `runner.labels`?",
        "11: docker.memory_mib: write a whole number from 6 to",
        "12: docker.cpus: write a number from 0.01 to",
        "13: docker.pull_policy: write \"missing\" or \"always\" or \"never\"",
        "14: docker.volumes[0]: write SOURCE:/DESTINATION",
        "15: docker.env.A: write a string in quotes",
        "15: docker.env.B: write a string in quotes",
        "17: runner.labels[0]: write a label without commas and spaces",
        "17: runner.labels[1]: write a string in quotes",
        "17: runner.labels[3]: the list has this label already",
        "17: runner.labels[4]: write a string in quotes",
        "18: runner.repositories[0]: write OWNER/NAME",
        "19: runner.min_idle: it is not known where to register",
        "21: scheduler.instance: write 1 to 20 of a to z",
        "22: scheduler.max: write a whole number from 1 to",
        "26: pools[1].name: another pool has this name",
        "27: pools[1].max: write a whole number from 1 to",
        "28: pools[1].host: there is no such name: did you mean `docker.host`?",
        "29: pools[2].name: each pool needs a name",
        "30: pools[2].job_timeout_seconds: write a whole number from 1 to",
        "32: pools[2].min_idle: write at most max, which is 10",
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
        "SERVER_API_TOKEN: write ASCII letters",
        "GITHUB_WEBHOOK_SECRET_FILE: cannot read that file",
    ];
    assert_told(&told, &expected);
}

#[test]
fn no_mistake_repeats_what_was_written() {
    // The secret in every place where a mistake can be.
    for (section, fields) in Schema::of_config().sections() {
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
            if let Err(said) = load("", &[(&variable, &format!("{SECRET}\u{1}"))]) {
                assert!(!said.to_string().contains(SECRET), "{said}");
            }
        }
    }
}

#[test]
fn what_is_no_pool_hides_no_other_mistake() {
    let told = errors("pools = [\"one\", { name = \"two\", max = 0 }]", &[]);
    assert_eq!(told[0], "1: pools[0]: write a table");
    assert!(told[1].starts_with("1: pools[1].max: "), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn secrets_come_from_files_and_from_one_place_only() {
    let secret = Written::new("s3cret\r\n");
    let path = secret.path();
    let path = path.to_str().unwrap();
    let token = |config: Config| config.github.token.unwrap().expose_secret().to_owned();

    let env = [("GITHUB_TOKEN_FILE", path)];
    assert_eq!(token(load("", &env).unwrap()), "s3cret");
    let file = format!("github.token_file = \"{path}\"");
    assert_eq!(token(load(&file, &[]).unwrap()), "s3cret");

    // The environment beats the file whichever way each says it.
    let inline = "github.token = \"inline\"";
    assert_eq!(token(load(inline, &env).unwrap()), "s3cret");
    let variable = [("GITHUB_TOKEN", "variable")];
    assert_eq!(token(load(&file, &variable).unwrap()), "variable");

    let both = [("GITHUB_TOKEN_FILE", path), ("GITHUB_TOKEN", SECRET)];
    let why = "the secret itself is set as well: leave one of them out";
    assert_eq!(errors("", &both), [format!("GITHUB_TOKEN_FILE: {why}")]);
    assert_eq!(errors(&format!("{file}\n{inline}"), &[]), [format!("1: github.token_file: {why}")]);
}

#[test]
fn a_missing_token_matters_only_to_serving() {
    assert!(Config::load(None, &nothing_set).is_ok());
    let said = Config::load_to_serve(None, &nothing_set).unwrap_err().to_string();
    assert_eq!(
        said,
        "github.token: no token: set GITHUB_TOKEN, GITHUB_TOKEN_FILE or github.token, or \
         app_id and app_private_key_file of a GitHub App"
    );
    // One mistake, not two: the file is what is wrong.
    let env = [("GITHUB_TOKEN_FILE", "/does/not/exist")];
    let ConfigErrors(told) = Config::load_to_serve(None, &|name| look_up(&env, name)).unwrap_err();
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn a_file_that_cannot_be_read_or_is_not_toml_is_a_mistake() {
    let ConfigErrors(told) =
        Config::load(Some("/does/not/exist".as_ref()), &nothing_set).unwrap_err();
    assert_eq!(told[0].place, "/does/not/exist");
    let told = errors("[log]\nlevel = info\n[runner]\nmax = 0", &[]);
    assert!(told[0].starts_with("2: not TOML: "), "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("4: runner.max")), "{told:?}");
}

#[test]
fn urls_are_those_of_an_api() {
    let web_url = |api_url: &str| {
        let config = load(&format!("github.api_url = \"{api_url}\""), &[]).unwrap();
        config.github.web_url()
    };
    assert_eq!(web_url("https://api.github.com"), "https://github.com");
    assert_eq!(web_url("https://api.acme.ghe.com"), "https://acme.ghe.com");
    assert_eq!(web_url("https://ghe.example.com/api/v3"), "https://ghe.example.com");
    assert_eq!(web_url("http://127.0.0.1:8082"), "http://127.0.0.1:8082");
    for url in [
        "api.github.com",
        "ftp://api.github.com",
        "https://github.com",
        "https://api.github.com/",
        "https://api.github.com?x",
        "https://api.github.com/api/v4",
        "https://ghe.example.com",
        "https://user:ghp_do_not_print_me@api.github.com",
    ] {
        let told = errors(&format!("github.api_url = \"{url}\""), &[]);
        assert!(told[0].starts_with("1: github.api_url: "), "{url}: {told:?}");
    }
}

const CREDENTIALS: &str = r#"
[[credentials]]
name = "acme"
targets = ["acme", "acme/*"]
token = "ghp_do_not_print_me"
[[credentials]]
name = "ghes"
targets = ["enterprise:corp"]
token_file = "FILE"
api_url = "https://ghe.example.com/api/v3"
"#;

#[test]
fn credentials_take_from_github_what_they_do_not_say() {
    let secret = Written::new("s3cret\n");
    let file = CREDENTIALS.replace("FILE", secret.path().to_str().unwrap());
    let env = [("GITHUB_TOKEN", "of-github"), ("GITHUB_API_URL", "https://api.acme.ghe.com")];
    let config = load(&file, &env).unwrap();
    assert!(!format!("{config:?}").contains(SECRET));
    let told: Vec<_> = config
        .credentials
        .iter()
        .map(|it| (&*it.name, &*it.api_url, &*it.web_url, token(it)))
        .collect();
    let (api_url, web_url) = ("https://api.acme.ghe.com", "https://acme.ghe.com");
    assert_eq!(
        told,
        [
            ("acme", api_url, web_url, SECRET),
            ("ghes", "https://ghe.example.com/api/v3", "https://ghe.example.com", "s3cret"),
            ("github", api_url, web_url, "of-github"),
        ]
    );
    let planned = config.planner_settings().credentials;
    let serves = |target: &str| plan::credential_for(&planned, &target.parse().unwrap());
    assert_eq!(serves("repo:acme/app"), Some(0));
    assert_eq!(serves("enterprise:corp"), Some(1));
    assert_eq!(serves("org:other"), Some(2));
}

#[test]
fn a_github_app_takes_the_place_of_a_token() {
    let file = format!(
        "github = {{ app_id = \"Iv23li\", app_private_key_file = {APP_KEY_FILE:?} }}\n\
         [[credentials]]\nname = \"acme\"\ntargets = [\"acme\"]\napp_id = \"7\"\n\
         app_private_key_file = {APP_KEY_FILE:?}\n"
    );
    let written = Written::new(&file);
    let config = Config::load_to_serve(Some(&written.path()), &nothing_set).unwrap();
    let ids: Vec<&str> = config
        .credentials
        .iter()
        .map(|credential| match &credential.identity {
            Identity::App { id, .. } => id.as_str(),
            Identity::Token(_) => "a token",
        })
        .collect();
    assert_eq!(ids, ["7", "Iv23li"]);

    let file = "[github]\ntoken = \"ghp_no\"\napp_id = \"7\"\napp_private_key = \"ghp_no\"\n\
                [[credentials]]\nname = \"acme\"\ntargets = [\"acme\"]\napp_id = \"a b\"\n";
    let told = errors(file, &[]);
    let joined = told.join("\n");
    for text in [
        "3: github.app_id: a token is set as well",
        "4: github.app_private_key: write the private key as GitHub made it",
        "8: credentials[0].app_id: write the App's id or client id",
    ] {
        assert!(told.iter().any(|line| line.starts_with(text)), "{text}\n{joined}");
    }
    assert!(!joined.contains("ghp_no"), "{joined}");
}

#[test]
fn mistakes_in_credentials_are_told_with_the_others() {
    let file = r#"[[credentials]]
targets = ["acme", "*"]
token = "ghp_do_not_print_me"
token_file = "/dev/null"
[[credentials]]
name = "github"
tokn = "ghp_do_not_print_me"
api_url = "https://github.com"
[[credentials]]
name = "a"
token = "x"
targets = [1]
[[credentials]]
name = "a"
token = "x"
targets = ["acme"]
"#;
    let told = errors(file, &[]);
    assert_told(
        &told,
        &[
            "1: credentials[0].name: each credential needs its own name",
            "2: credentials[0].targets[1]: write OWNER/NAME",
            "4: credentials[0].token_file: the secret itself is set as well",
            "6: credentials[1].name: this name is reserved for [github] itself",
            "7: credentials[1].tokn: there is no such name: did you mean `token`?",
            "5: credentials[1].token: no token: set token or token_file",
            "8: credentials[1].api_url: write https://api.github.com",
            "5: credentials[1].targets: this credential serves no target",
            "12: credentials[2].targets[0]: write a string in quotes",
            "14: credentials[3].name: another credential has this name",
        ],
    );
}

#[test]
fn registries_have_a_host_a_user_and_a_password() {
    let secret = Written::new("s3cret\n");
    let file = format!(
        "[[registries]]\nhost = \"ghcr.io\"\nusername = \"acme\"\npassword = {SECRET:?}\n\
         [[registries]]\nhost = \"127.0.0.1:5000\"\nusername = \"acme\"\npassword_file = {:?}\n",
        secret.path()
    );
    let config = load(&file, &[]).unwrap();
    assert!(!format!("{config:?}").contains(SECRET));
    let told: Vec<_> = config
        .registries
        .iter()
        .map(|it| (&*it.host, it.password.as_ref().unwrap().expose_secret()))
        .collect();
    assert_eq!(told, [("ghcr.io", SECRET), ("127.0.0.1:5000", "s3cret")]);

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
    let told = errors(file, &[]);
    assert_told(
        &told,
        &[
            "2: registries[0].host: write the registry as images name it",
            "5: registries[0].password_file: the secret itself is set as well",
            "6: registries[1].username: write the name",
            "6: registries[1].password: there is none",
            "9: registries[2].host: another of [[registries]]",
            "11: registries[2].pasword: there is no such name: did you mean `password`?",
            "8: registries[2].password: there is none",
        ],
    );
}

#[test]
fn hooks_are_read_from_files_of_this_machine() {
    let file = format!(
        "docker.job_started_script = {HOOK_FILE:?}\n[[pools]]\nname = \"one\"\n\
         job_completed_script = {HOOK_FILE:?}\n"
    );
    let config = load(&file, &[]).unwrap();
    let hooks: Vec<_> = config.pools[0]
        .hooks
        .iter()
        .map(|hook| (hook.variable, &*hook.path, hook.content.as_slice()))
        .collect();
    let script: &[u8] = b"#!/bin/sh\necho hook\n";
    assert_eq!(
        hooks,
        [
            ("ACTIONS_RUNNER_HOOK_JOB_STARTED", "/opt/edgerunner/job-started.sh", script),
            ("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", "/opt/edgerunner/job-completed.sh", script),
        ]
    );

    let long = tempfile::NamedTempFile::with_suffix(".sh").unwrap();
    long.as_file().set_len((1 << 20) + 1).unwrap();
    let file = format!(
        "[docker]\njob_started_script = \"/no/such/file.sh\"\njob_completed_script = \"/dev/null\"\n\
         [[pools]]\nname = \"one\"\n[[pools]]\nname = \"two\"\njob_started_script = {:?}\n",
        long.path()
    );
    let told = errors(&file, &[]);
    assert_told(
        &told,
        &[
            "2: docker.job_started_script: cannot read that file",
            "3: docker.job_completed_script: write the path of a script whose name ends in .sh",
            "8: pools[1].job_started_script: that file is larger than 1 MiB",
        ],
    );
}

#[test]
fn mistakes_about_containers_say_what_to_write() {
    let file = r#"[docker]
host = "tcp://10.0.0.1:2375"
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
    let told = errors(file, &[]);
    assert_told(
        &told,
        &[
            "3: docker.ulimits[0]: write NAME=SOFT",
            "3: docker.ulimits[1]: write NAME=SOFT",
            "4: docker.dind_image: write an image such as docker:dind",
            "5: docker.docker: write \"none\" or \"socket\" or \"dind\"",
            "8: pools[0].docker: the Engine's socket is not on this machine",
            "12: pools[1].network: an Engine of its own needs a bridge",
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
fn webhooks_name_the_files_of_their_secrets() {
    let secret = Written::new("s3cret\n");
    let file = format!(
        "[[webhooks]]\nsecret_files = [{:?}, \"/no/such/file\"]\n[[webhooks]]\nname = \"acme\"\n\
         secret_files = [{:?}]\n",
        secret.path(),
        secret.path()
    );
    let config = Config::load(Some(&Written::new(&file).path()), &nothing_set).unwrap();
    let names: Vec<&str> = config.webhooks.iter().map(|webhook| webhook.name.as_str()).collect();
    assert_eq!(names, ["", "acme"]);

    let file =
        "[[webhooks]]\nsecret_files = [\"/no/such/file\"]\n[[webhooks]]\nsecret = \"ghp_no\"\n";
    let told = errors(file, &[]);
    let joined = told.join("\n");
    for text in [
        "2: webhooks[0].secret_files[0]: cannot read that file",
        "4: webhooks[1].secret: there is no such name: did you mean `secret_files`?",
        "3: webhooks[1].name: another webhook has this name",
        "3: webhooks[1].secret_files: write the paths of 1 to 4 files",
    ] {
        assert!(told.iter().any(|line| line.starts_with(text)), "{text}\n{joined}");
    }
    assert!(!joined.contains("ghp_no"), "{joined}");
}

#[test]
fn each_hook_needs_a_credential_that_may_see_it() {
    let secret = Written::new("s3cret\n");
    let credentials = CREDENTIALS.replace("FILE", secret.path().to_str().unwrap());
    let hooks = r#"runner.repositories = ["acme/app"]
        missed_webhooks.hooks = ["orgs/other/hooks/1", "repos/acme/app/hooks/2", "app/hook"]
        "#;
    let written = Written::new(&format!("{hooks}{credentials}"));
    let ConfigErrors(told) =
        Config::load_to_serve(Some(&written.path()), &nothing_set).unwrap_err();
    let places: Vec<_> = told.iter().map(|it| it.place.rsplit(": ").next().unwrap()).collect();
    assert_eq!(places, ["missed_webhooks.hooks[0]", "missed_webhooks.hooks[2]"], "{told:?}");
    assert!(told[0].problem.contains("[[credentials]]"), "{told:?}");
    assert!(told[1].problem.contains("GitHub App"), "{told:?}");
}

#[test]
fn without_a_token_of_github_credentials_must_cover_every_pool() {
    let secret = Written::new("s3cret\n");
    let credentials = CREDENTIALS.replace("FILE", secret.path().to_str().unwrap());
    let told = |pools: &str| {
        let written = Written::new(&format!("{pools}{credentials}"));
        match Config::load_to_serve(Some(&written.path()), &nothing_set) {
            Ok(_) => Vec::new(),
            Err(ConfigErrors(told)) => told,
        }
    };
    for covered in [
        "runner.repositories = [\"acme/app\", \"Acme/*\"]",
        "runner = { scope = \"organization\", repositories = [\"acme/app\"] }",
        "runner.scope = \"enterprise\"",
    ] {
        assert_eq!(told(covered), [], "{covered}");
    }
    for (pools, place) in [
        ("", "pools[0].repositories"),
        ("runner.scope = \"organization\"\n", "pools[0].repositories"),
        ("runner.repositories = [\"acme/app\", \"other/app\"]\n", ":1: runner.repositories"),
    ] {
        let told = told(pools);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].place.ends_with(place), "{told:?}");
        assert!(told[0].problem.starts_with("no credential covers"), "{told:?}");
    }
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
    let told = errors(file, &[]);
    assert_told(
        &told,
        &[
            "4: runner.schedules[0].days[1]: write mon, tue",
            "5: runner.schedules[0].hours: write two different times",
            "6: runner.schedules[0].time_zone: write a name",
            "3: runner.schedules[0].min_idle: each schedule needs",
            "12: pools[1].schedules[0].min_idle: write at most max, which is 10",
            "13: pools[1].schedules[0].dayz: there is no such name: did you mean `days`?",
            "15: pools[1].schedules[1].min_idle: write a whole number from 0 to 10000",
            "19: pools[2].schedules[0]: write a table",
            "19: pools[2].schedules[1].min_idle: it is not known where to register",
            "22: pools[3].schedules: write a list of tables",
        ],
    );
}

#[test]
fn a_runner_group_is_written_by_name_or_by_id() {
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
    let told = errors(file, &[]);
    let expected = [
        "6: pools[0].group: there is a group_id as well",
        "2: runner.group: runners of a repository have no group but Default",
        "17: pools[3].group_id: images that register themselves know a group by its name alone",
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (line, text) in told.iter().zip(expected) {
        assert!(line.starts_with(text), "{text}\n{told:?}");
    }
}

#[test]
fn runners_are_kept_idle_only_where_a_place_is_named_for_them() {
    let anywhere = "it is not known where to register runners before a job comes: ";
    for (scope, problem) in [
        ("repository", "write repositories = [\"OWNER/NAME\"], or [\"OWNER/*\"] with"),
        ("organization", "write repositories = [\"OWNER/*\"], or min_idle = 0"),
    ] {
        let file = format!("[runner]\nscope = \"{scope}\"\nmin_idle = 1");
        let told = errors(&file, &[]).join("\n");
        assert!(told.starts_with(&format!("3: runner.min_idle: {anywhere}{problem}")), "{told}");
    }

    // No repository names an enterprise, whatever is written there.
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
    let told = errors(file, &[]);
    let problem = "a job tells which enterprise it is of, so no runner can be registered before \
                   one comes: write scope = \"organization\" and repositories = [\"OWNER/*\"], \
                   or min_idle = 0";
    let places = ["4: runner.min_idle", "10: pools[1].schedules[1].min_idle"];
    assert_eq!(told, places.map(|place| format!("{place}: {problem}")));
}
