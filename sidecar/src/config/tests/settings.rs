//! Where settings come from: the file, the environment and secret files.

use std::{collections::BTreeSet, fs};

use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::*;
use crate::config::{environment, schema};

#[test]
fn the_environment_alone_defines_one_pool() {
    let env = [("GITHUB_TOKEN", SECRET), ("RUNNER_LABELS", "")];
    let config = Config::load_to_serve(None, &|name| variable(&env, name)).unwrap();
    let [pool] = &config.pools[..] else { panic!("{:?}", config.pools) };
    assert_eq!(pool.name, "default");
    assert_eq!(pool.labels.len(), 3);
    assert_eq!(pool.container.cap_drop, ["ALL"]);
    assert_eq!(pool.command(), ["/home/runner/run.sh"]);
    assert_eq!(pool.limits.job_ms, 21_600_000);
    assert_eq!(token(&config.credentials[0]), SECRET);
    assert_eq!(config.planner_settings().max, usize::MAX);
    assert!(!format!("{config:?}").contains(SECRET));
}

#[test]
fn the_example_shows_every_setting_and_its_default() {
    let example = Config::load(Some(EXAMPLE.as_ref()), &no_variables).unwrap();
    let defaults = Config::load(None, &no_variables).unwrap();
    assert_eq!(format!("{example:#?}"), format!("{defaults:#?}"));

    // The settings that are commented out are valid as well.
    let text = fs::read_to_string(EXAMPLE).unwrap();
    let optional = |line: &str| {
        let setting = line.strip_prefix('#')?;
        (!setting.starts_with(' ')).then(|| setting.to_owned())
    };
    let scripts = tempfile::tempdir().unwrap();
    for name in ["job-started.sh", "job-completed.sh"] {
        fs::copy(SCRIPT_FILE, scripts.path().join(name)).unwrap();
    }
    let template = scripts.path().join("pod.yaml");
    fs::write(&template, "spec: {}").unwrap();
    let template = template.display().to_string();
    let alternatives = [
        "api_token_file = ",
        "token_file = ",
        "webhook_secret_file = ",
        "password_file = ",
        "app_",
        "group",
        "proxy_url_file = ",
        "url_file = ",
        "secret_file = ",
        "path = ",
        "sign_in_c",
        "sign_in_key",
    ];
    let ca = TempFile::new(&ca_pem());
    let ca = ca.path().display().to_string();
    let uncommented: Vec<String> = text
        .lines()
        .map(|line| optional(line).unwrap_or_else(|| line.to_owned()))
        .filter(|line| !alternatives.iter().any(|other| line.starts_with(other)))
        // These files must exist.
        .map(|line| line.replace("/run/secrets/webhook\"", "/dev/null\""))
        .map(|line| line.replace("/etc/edgerunner/ca.pem", &ca))
        .map(|line| line.replace("/etc/edgerunner/pod.yaml", &template))
        .map(|line| {
            line.replace("/etc/edgerunner/job-", &format!("{}/job-", scripts.path().display()))
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
    for (section, fields) in Schema::new().sections() {
        let shown: BTreeSet<_> = shown[section].as_table().unwrap().keys().collect();
        assert_eq!(shown, fields.keys().collect(), "[{section}]");
    }
}

/// A value for a setting that differs from its default.
fn another(section: &str, field: &str, schema: &Value) -> String {
    let text = match (section, field) {
        ("server", "grpc_address" | "http_address") => "127.0.0.9:9",
        ("server", "api_token_file") => "/dev/null",
        ("server", "sign_in_address") => "unix:/run/sign-in.sock",
        ("github", "api_url") => "https://ghe.example.com/api/v3",
        ("github", "webhook_url") => "https://hooks.example.com/webhooks/github",
        ("github", "web_url") => "https://ghe.example.com",
        ("github" | "store" | "notifications", field) if field.ends_with("_file") => "/dev/null",
        ("notifications", "url") => "https://hooks.example.com/edgerunner",
        ("notifications", "format") => "slack",
        ("runner", "parked_timeout_seconds") => "600",
        ("store", "url") => "postgres://db/jobs",
        ("github", "proxy_url") => "http://proxy:3128",
        ("github", "app_private_key") => APP_KEY,
        ("missed_webhooks", "enabled") => "false",
        ("missed_webhooks", "budget_share") => "0.5",
        ("missed_webhooks", "hooks") => "orgs/acme/hooks/7,app/hook",
        ("docker", "host") => "tcp://127.0.0.1:2375",
        ("docker", "dns") => "10.0.0.1, 10.0.0.2",
        ("docker", "extra_hosts") => "a:10.0.0.1,b:10.0.0.2",
        ("docker", "volumes") => "/a:/a,b:/b:ro",
        ("docker", "tmpfs") => "/tmp:size=64m,/run",
        ("docker", "pull_policy") => "always",
        ("docker", "docker") => "dind",
        ("docker", "registry_mirrors") => "https://mirror.example.com,http://10.0.0.1:5000",
        ("docker", "dind_args") => "--debug,--mtu=1400",
        ("docker", "tool_cache") => "pool",
        ("docker", "devices") => "/dev/kvm,/dev/fuse:rwm",
        ("docker", "gpus") => "all",
        ("docker", "egress") => "github.com,*.example.com",
        ("docker", "egress_mode") => "observe",
        ("docker", "ulimits") => "nofile=65536,core=0:-1",
        ("docker", "job_started_script" | "job_completed_script") => SCRIPT_FILE,
        ("runner", "scope") => "organization",
        ("runner", "repositories") => "acme/app,acme/*",
        ("runner", "starting_timeout_seconds") => "60",
        ("runner", "forks") => "refuse",
        ("scheduler", "order") => "oldest",
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

/// A value for `name` that is required to set `variable`.
fn needed(variable: &str, name: &str) -> Option<&'static str> {
    match name {
        "RUNNER_REPOSITORIES" if ["RUNNER_MIN_IDLE", "RUNNER_PARKED"].contains(&variable) => {
            Some("acme/app")
        }
        "RUNNER_SCOPE" if variable == "RUNNER_GROUP" => Some("organization"),
        "STORE_URL" if variable.starts_with("STORE_") && variable.ends_with("_FILE") => {
            Some("postgres://db/jobs")
        }
        "NOTIFICATIONS_URL"
            if variable.starts_with("NOTIFICATIONS_") && !variable.contains("_URL") =>
        {
            Some("https://hooks.example.com/messages")
        }
        "DOCKER_HOST" if variable == "DOCKER_CERT_PATH" => Some("tcp://10.0.0.1:2376"),
        "KUBERNETES_KUBECONFIG" if variable == "KUBERNETES_CONTEXT" => Some("/some.yaml"),
        "SWARM_LAUNCHER_IMAGE" if variable == "RUNNER_PROVIDER" => Some("edgerunner:1"),
        "SERVER_GRPC_CERTIFICATE_FILE" | "SERVER_GRPC_KEY_FILE" | "SERVER_GRPC_CLIENT_CA_FILE"
            if variable.starts_with("SERVER_GRPC_") && variable.ends_with("_FILE") =>
        {
            Some("/some.pem")
        }
        "SERVER_TRUSTED_NAMES" if variable.starts_with("SERVER_SIGN_IN_") => {
            Some("runners.example.com")
        }
        "SERVER_SIGN_IN_ADDRESS" if variable.starts_with("SERVER_SIGN_IN_") => Some("127.0.0.9:9"),
        "SERVER_SIGN_IN_CERTIFICATE_FILE"
        | "SERVER_SIGN_IN_KEY_FILE"
        | "SERVER_SIGN_IN_CLIENT_CA_FILE"
            if variable.starts_with("SERVER_SIGN_IN_") && variable.ends_with("_FILE") =>
        {
            Some("/some.pem")
        }
        _ => None,
    }
}

#[test]
fn every_setting_can_be_set_by_its_variable() {
    let defaults = format!("{:?}", Config::load(None, &no_variables).unwrap());
    let certificates = tempfile::tempdir().unwrap();
    fs::write(certificates.path().join("ca.pem"), ca_pem()).unwrap();
    let template = certificates.path().join("pod.yaml");
    fs::write(&template, "spec: {}").unwrap();
    let mut settable = 0;
    for (section, fields) in Schema::new().sections() {
        for (field, schema) in fields {
            if !environment::is_settable(schema) {
                continue;
            }
            let variable = format!("{section}_{field}").to_ascii_uppercase();
            let value = match &**field {
                "cert_path" => certificates.path().display().to_string(),
                "provider" => "swarm".to_owned(),
                "pod_template" => template.display().to_string(),
                "managers" => "unix:///run/one.sock".to_owned(),
                "docker_socket" => "/run/one.sock".to_owned(),
                _ => another(section, field, schema),
            };
            let result = Config::load(None, &|name| {
                if name == variable {
                    Some(value.clone())
                } else {
                    needed(&variable, name).map(str::to_owned)
                }
            });
            if field.ends_with("_file")
                && !["grpc_", "sign_in_"].iter().any(|it| field.starts_with(it))
            {
                let printed = result.unwrap_err().to_string();
                assert!(
                    printed.starts_with(&format!("{variable}: that file is empty")),
                    "{printed}"
                );
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
fn warning_is_taken_for_the_level_warn() {
    for (level, filter) in [
        ("warning", "warn"),
        ("Warning", "warn"),
        ("info,edgerunner::provider=WARNING", "info,edgerunner::provider=warn"),
        ("debug,hyper=warn", "debug,hyper=warn"),
    ] {
        let config = load("", &[("LOG_LEVEL", level)]).unwrap();
        assert_eq!(config.log.filter(), filter);
    }
    for wrong in ["warnings", "verbose", "info,edgerunner=loud"] {
        let printed = load("", &[("LOG_LEVEL", wrong)]).unwrap_err().to_string();
        assert!(printed.contains("write error, warn, info, debug or trace"), "{printed}");
    }
}

#[test]
fn a_receiver_of_messages_needs_a_url_and_its_url_is_not_shown() {
    let secret = [("NOTIFICATIONS_SECRET", "s3cret")];
    let why = "NOTIFICATIONS_SECRET: a receiver is missing: also set url";
    assert_eq!(errors("", &secret), [why]);
    for wrong in ["hooks.example.com", "ftp://hooks.example.com", "https://me:pw@hooks.example.com"]
    {
        let printed = errors("", &[("NOTIFICATIONS_URL", wrong)]).join("\n");
        assert!(printed.starts_with("NOTIFICATIONS_URL: write "), "{printed}");
        assert!(!printed.contains("example"), "{printed}");
    }
    let url = "https://hooks.example.com/services/T000/B000/s3cret?a=b";
    let config = load("", &[("NOTIFICATIONS_URL", url)]).unwrap();
    assert_eq!(config.notifications.as_ref().unwrap().url, url);
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn the_environment_overrides_the_file_and_an_empty_variable_is_ignored() {
    let file = "github.timeout_seconds = 5\nlog.level = \"warn\"\nrunner.max = 1_000";
    let env = [("GITHUB_TIMEOUT_SECONDS", "7"), ("LOG_LEVEL", "")];
    let config = load(file, &env).unwrap();
    assert_eq!(config.github.timeout_seconds, 7);
    assert_eq!(config.log.level, "warn");
    assert_eq!(config.pools[0].planner_pool().max, 1000);
}

#[test]
fn a_secret_comes_from_one_setting_or_from_one_file() {
    let secret = TempFile::new("s3cret\r\n");
    let path = secret.path();
    let path = path.to_str().unwrap();
    let token = |config: Config| config.github.token.unwrap().expose_secret().to_owned();

    let env = [("GITHUB_TOKEN_FILE", path)];
    assert_eq!(token(load("", &env).unwrap()), "s3cret");
    let file = format!("github.token_file = \"{path}\"");
    assert_eq!(token(load(&file, &[]).unwrap()), "s3cret");

    // The environment overrides the file, whichever of the two settings each uses.
    let inline = "github.token = \"inline\"";
    assert_eq!(token(load(inline, &env).unwrap()), "s3cret");
    let variable = [("GITHUB_TOKEN", "variable")];
    assert_eq!(token(load(&file, &variable).unwrap()), "variable");

    let both = [("GITHUB_TOKEN_FILE", path), ("GITHUB_TOKEN", SECRET)];
    let why = "the secret is also set directly: remove one of the two";
    assert_eq!(errors("", &both), [format!("GITHUB_TOKEN_FILE: {why}")]);
    assert_eq!(errors(&format!("{file}\n{inline}"), &[]), [format!("1: github.token_file: {why}")]);
}
