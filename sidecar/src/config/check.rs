//! Checks that types alone cannot make: names, ranges, URLs, and settings that depend on each
//! other.

use std::{collections::HashSet, net::IpAddr};

use http::{
    Uri,
    uri::{Authority, Scheme},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{
    Config, Container, DockerAccess, ListenAddress, PoolConfig, ProviderName, RegistrationMethod,
    Runner, Server,
    document::{Document, child},
    pool::DEFAULT_GROUP,
    schema::is_a,
};
use edgerunner_scheduler::{
    missed::WebhookId,
    plan::{RepositoryPattern, Scope},
};

pub(super) const LABEL_CHARS_MAX: usize = 256;
const INSTANCE_CHARS_MAX: usize = 20;
const NAME_CHARS_MAX: usize = 30;
const _: () = {
    /// GitHub's limit. A runner is named `instance-pool-` and 12 digits.
    const RUNNER_NAME_CHARS_MAX: usize = 64;
    assert!(INSTANCE_CHARS_MAX + 1 + NAME_CHARS_MAX + 1 + 12 <= RUNNER_NAME_CHARS_MAX);
};

impl Document {
    /// Reports and removes everything that the schema does not name.
    pub(super) fn check_names(&mut self) {
        let Some(names) = self.tree.as_object().map(|tree| tree.keys().cloned()) else {
            return;
        };
        for name in names.collect::<Vec<_>>() {
            let pointer = child("", &name);
            match self.get(&pointer) {
                _ if self.schema.at(&pointer).is_none() => self.unknown("", &name),
                Some(Value::Object(_)) if !self.schema.is_list(&pointer) => {
                    self.check_fields(&pointer);
                }
                Some(Value::Array(_)) if self.schema.is_list(&pointer) => {
                    for table in self.tables(&pointer) {
                        self.check_fields(&table);
                    }
                }
                _ => {
                    self.expected(&pointer);
                    self.prune(&pointer);
                }
            }
        }
    }

    fn check_fields(&mut self, table: &str) {
        match self.get(table) {
            Some(Value::Object(fields)) => {
                for name in fields.keys().cloned().collect::<Vec<_>>() {
                    let field = child(table, &name);
                    if self.schema.at(&field).is_none() {
                        self.unknown(table, &name);
                    } else if self.schema.is_list(&field) {
                        for item in self.tables(&field) {
                            self.check_fields(&item);
                        }
                    } else if self.schema.is_table(&field)
                        && self.get(&field).is_some_and(Value::is_object)
                    {
                        self.check_fields(&field);
                    }
                }
            }
            _ => {
                self.expected(table);
                // Replaced by an empty table: the tables after it must keep their indexes.
                if let Some(value) = self.tree.pointer_mut(table) {
                    *value = Value::Object(Map::new());
                }
            }
        }
    }

    fn unknown(&mut self, parent: &str, name: &str) {
        let pointer = child(parent, name);
        let suggestion = self.schema.suggestion(parent, name);
        self.error(&pointer, format!("unknown setting: {suggestion}"));
        self.prune(&pointer);
    }

    /// Reports and removes numbers outside of their range, and empty strings, which no setting
    /// has a use for.
    pub(super) fn check_ranges(&mut self) {
        let mut invalid = Vec::new();
        collect_out_of_range(&self.tree, &self.schema.0, "", &mut invalid);
        for pointer in invalid {
            self.expected(&pointer);
            self.prune(&pointer);
        }
    }

    fn check_grpc(&mut self, server: &Server) {
        let files = [
            ("grpc_certificate_file", server.grpc_certificate_file.is_some()),
            ("grpc_key_file", server.grpc_key_file.is_some()),
            ("grpc_client_ca_file", server.grpc_client_ca_file.is_some()),
        ];
        self.check_tls("grpc_address", &server.grpc_address, files);
    }

    /// Mutual TLS needs all of its files.
    fn check_tls(&mut self, setting: &str, address: &ListenAddress, files: [(&str, bool); 3]) {
        let Some((given, _)) = files.iter().find(|(_, given)| *given) else {
            return;
        };
        if matches!(address, ListenAddress::Unix(_)) {
            let problem = format!(
                "a Unix socket has no TLS: remove this, or write an address and port as {setting}"
            );
            self.error(&child("/server", given), problem);
        }
        for (missing, _) in files.iter().filter(|(_, given)| !given) {
            let problem = format!("mutual TLS ({given} is set) also needs this file");
            self.error(&child("/server", missing), problem);
        }
    }

    fn check_sign_in(&mut self, server: &Server) {
        for (index, name) in server.trusted_names.iter().enumerate() {
            let host = name.parse::<Authority>();
            if !host.is_ok_and(|host| host.host() == name && !name.starts_with('[')) {
                let problem = "write a host name such as runners.example.com, without a scheme, \
                               a port or a path";
                self.error(&format!("/server/trusted_names/{index}"), problem);
            }
        }
        let files = [
            ("sign_in_certificate_file", server.sign_in_certificate_file.is_some()),
            ("sign_in_key_file", server.sign_in_key_file.is_some()),
            ("sign_in_client_ca_file", server.sign_in_client_ca_file.is_some()),
        ];
        let given = files.iter().find(|(_, given)| *given);
        match (&server.sign_in_address, given) {
            (None, None) => return,
            (None, Some((given, _))) => {
                let problem = "set sign_in_address as well, or remove this";
                self.error(&child("/server", given), problem);
                return;
            }
            (Some(ListenAddress::Tcp(_)), None) => {
                let problem = "anyone who can connect to this port could act as anyone: write \
                               unix:/PATH, or set sign_in_certificate_file, sign_in_key_file and \
                               sign_in_client_ca_file for mutual TLS";
                self.error("/server/sign_in_address", problem);
            }
            (Some(address), _) => self.check_tls("sign_in_address", address, files),
        }
        if server.trusted_names.is_empty() {
            let problem = "needs trusted_names: the host names under which Envoy is reached";
            self.error("/server/sign_in_address", problem);
        }
    }

    pub(super) fn check_sections(&mut self, config: &Config) {
        self.check_grpc(&config.server);
        self.check_sign_in(&config.server);
        let github = &config.github;
        self.check_urls("/github", Some(&github.api_url), github.web_url.as_deref());
        self.check_encryption("/github", &github.api_url, github.allow_http);
        if let Some(problem) = github.webhook_url.as_deref().and_then(url_problem) {
            self.error("/github/webhook_url", problem);
        }
        if let Some(endpoint) = config.traces.otlp_endpoint.as_deref() {
            let tls = endpoint.starts_with("https:");
            let tls = tls.then_some("write a URL that begins with http://: TLS is not supported");
            if let Some(problem) = url_problem(endpoint).or(tls) {
                self.error("/traces/otlp_endpoint", problem);
            }
        }
        let bearer = config.server.api_token.as_ref().map(|token| token.expose_secret());
        if bearer.is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            let problem = "write printable ASCII characters, without spaces";
            self.error("/server/api_token", problem);
        }
        self.check_token("/github/token", github.token.as_ref());
        let app = (github.app_id.as_deref(), github.app_private_key.as_ref());
        self.check_app("/github", github.token.is_some(), app);
        self.check_secret("/github/webhook_secret", github.webhook_secret.as_ref());
        for (index, hook) in config.missed_webhooks.hooks.iter().enumerate() {
            if let Err(problem) = hook.parse::<WebhookId>() {
                let location = format!("/missed_webhooks/hooks/{index}");
                self.error(&location, problem.to_string());
            }
        }
        if !is_name(&config.scheduler.instance, INSTANCE_CHARS_MAX) {
            self.error("/scheduler/instance", name_rule(INSTANCE_CHARS_MAX));
        }
        if !is_log_filter(&config.log.filter()) {
            let problem = "write error, warn, info, debug or trace, \
                           or a filter such as info,edgerunner::provider=debug";
            self.error("/log/level", problem);
        }
    }

    /// A directory that does not exist is probably a typo, or a volume that is not mounted: a
    /// new store there would forget every job.
    pub(super) fn check_store(&mut self, config: &Config) {
        if config.database.is_some() {
            return;
        }
        let parent = config.store.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if parent.is_some_and(|parent| !parent.is_dir()) {
            let problem = "its directory does not exist: create it, or correct the path";
            self.error("/store/path", problem);
        }
    }

    /// Checks the name of a pool or a credential.
    pub(super) fn check_name(&mut self, pointer: &str, name: &str) {
        if !is_name(name, NAME_CHARS_MAX) {
            self.error(pointer, name_rule(NAME_CHARS_MAX));
        }
    }

    pub(super) fn check_urls(&mut self, table: &str, api_url: Option<&str>, web_url: Option<&str>) {
        if let Some(problem) = api_url.and_then(api_url_problem) {
            self.error(&format!("{table}/api_url"), problem);
        }
        if let Some(problem) = web_url.and_then(url_problem) {
            self.error(&format!("{table}/web_url"), problem);
        }
    }

    /// Without TLS, everyone on the way to another machine reads the token.
    pub(super) fn check_encryption(&mut self, table: &str, api_url: &str, allow_http: bool) {
        let uri = api_url.parse::<Uri>().ok().filter(|uri| uri.scheme() == Some(&Scheme::HTTP));
        if !allow_http && uri.is_some_and(|uri| !uri.host().is_some_and(is_loopback)) {
            let problem = "http:// would send the token unencrypted to another machine: write \
                           https://, or also set github.allow_http = true";
            self.error(&format!("{table}/api_url"), problem);
        }
    }

    pub(super) fn check_secret(&mut self, pointer: &str, secret: Option<&SecretString>) {
        if secret.is_some_and(|secret| !is_visible(secret)) {
            self.error(pointer, "remove line breaks and other control characters");
        }
    }

    pub(super) fn check_runner(&mut self, pool: &str, runner: &Runner) -> Vec<RepositoryPattern> {
        let mut seen = HashSet::new();
        for (index, label) in runner.labels.iter().enumerate() {
            let location = format!("{pool}/labels/{index}");
            let forbidden = |c: char| c == ',' || c.is_whitespace() || c.is_control();
            if label.contains(forbidden) || label.chars().count() > LABEL_CHARS_MAX {
                let problem = "write a label of up to 256 characters, without commas or spaces";
                self.error(&location, problem);
            } else if !seen.insert(label.to_lowercase()) {
                self.error(&location, "this label is in the list twice: remove it");
            }
        }
        if runner.require_labels && runner.jobs_without_labels {
            let problem = "jobs without labels request none of the pool's (jobs_without_labels is \
                           set as well): remove one of the two";
            self.error(&format!("{pool}/require_labels"), problem);
        }
        self.check_group(pool, runner);
        let mut patterns = Vec::new();
        for (index, text) in runner.repositories.iter().enumerate() {
            match RepositoryPattern::parse(text) {
                Some(pattern) => patterns.push(pattern),
                None => {
                    let location = format!("{pool}/repositories/{index}");
                    let problem = match text.starts_with('!') {
                        true => {
                            "a pattern cannot exclude repositories: list those that this pool \
                             serves"
                        }
                        false => "write OWNER/NAME; * stands for any part of either, as in acme/*",
                    };
                    self.error(&location, problem);
                }
            }
        }
        if runner.work_folder.chars().any(char::is_control) {
            self.error(&format!("{pool}/work_folder"), "write a folder name");
        }
        patterns
    }

    fn check_group(&mut self, pool: &str, runner: &Runner) {
        let location = format!("{pool}/group");
        match (runner.group.as_deref(), runner.group_id) {
            (Some(_), Some(_)) => {
                self.error(&location, "group_id is set as well: remove one of the two");
            }
            (Some(_), None) if runner.scope == Scope::Repository => self.error(
                &location,
                "runners of a repository can only be in the group Default: write \
                 scope = \"organization\", or group_id = 1 instead",
            ),
            (Some(name), None) if name.chars().any(char::is_control) => {
                self.error(&location, "write the name of a runner group");
            }
            _ => {}
        }
        if runner.contract == RegistrationMethod::RegistrationToken
            && runner.group_id.is_some_and(|id| id != DEFAULT_GROUP)
        {
            let problem = "images that register themselves need the name of the group: write \
                           group = \"…\" instead";
            self.error(&format!("{pool}/group_id"), problem);
        }
    }

    pub(super) fn check_min_idle(&mut self, pool: &str, config: &PoolConfig) {
        let planner_pool = config.planner_pool();
        let scheduled = config.schedules.iter().enumerate().map(|(index, schedule)| {
            (format!("{pool}/schedules/{index}/min_idle"), schedule.min_idle)
        });
        for (location, min_idle) in
            [(format!("{pool}/min_idle"), planner_pool.min_idle)].into_iter().chain(scheduled)
        {
            if min_idle > planner_pool.max {
                self.error(&location, format!("write at most max ({})", planner_pool.max));
            } else if min_idle > 0 && planner_pool.known_targets().is_empty() {
                self.error(&location, no_place_for_idle_runners(planner_pool.scope, "min_idle"));
            }
        }
    }

    pub(super) fn check_parked(&mut self, pool: &str, config: &PoolConfig) {
        let planner_pool = config.planner_pool();
        if planner_pool.parked == 0 {
            return;
        }
        let problem = if config.provider == ProviderName::Swarm {
            "runners on Docker Swarm cannot be parked, because a service cannot be signalled: write \
             parked = 0, or provider = \"docker\""
                .to_owned()
        } else if config.provider == ProviderName::Kubernetes {
            "runners in Kubernetes cannot be parked, because a pod that waits has its CPUs and memory \
             all the while: write parked = 0 and use min_idle, or provider = \"docker\""
                .to_owned()
        } else if config.registration == RegistrationMethod::RegistrationToken {
            "an image that registers itself cannot be parked, because its token ends after an hour: \
             write parked = 0, or contract = \"jit\""
                .to_owned()
        } else if config.container.has_egress() {
            "runners with egress cannot be parked: write parked = 0, or remove egress and egress_mode"
                .to_owned()
        } else if planner_pool.devices > 0 {
            "a parked runner would keep GPUs from the others: write parked = 0, or \"all\" or a list \
             of IDs as gpus"
                .to_owned()
        } else if planner_pool.parked > planner_pool.max {
            format!("write at most max ({})", planner_pool.max)
        } else if planner_pool.known_targets().is_empty() {
            no_place_for_idle_runners(planner_pool.scope, "parked")
        } else {
            return;
        };
        self.error(&format!("{pool}/parked"), problem);
    }

    fn check_docker_access(&mut self, pool: &str, container: &Container) {
        let host = self.get("/docker/host").and_then(Value::as_str);
        let network = container.network.as_deref().unwrap_or_default();
        match container.docker {
            DockerAccess::Socket if host.is_some_and(|host| !host.starts_with("unix://")) => {
                let problem =
                    "the Docker socket is not on this machine: write \"dind\" or \"none\"";
                self.error(&format!("{pool}/docker"), problem);
            }
            DockerAccess::Dind
                if matches!(network, "host" | "none") || network.starts_with("container:") =>
            {
                let problem = "docker = \"dind\" needs a bridge network: write the name of one, or \
                               remove this";
                self.error(&format!("{pool}/network"), problem);
            }
            DockerAccess::None | DockerAccess::Socket | DockerAccess::Dind => {}
        }
    }

    pub(super) fn check_container(&mut self, pool: &str, container: &Container) {
        let mut check = |field: &str, items: &[String], is_good: fn(&str) -> bool, problem| {
            for (index, item) in items.iter().enumerate() {
                if !is_good(item) {
                    self.error(&format!("{pool}/{field}/{index}"), problem);
                }
            }
        };
        check("dns", &container.dns, is_address, "write an IP address");
        check("extra_hosts", &container.extra_hosts, is_host_line, "write HOST:ADDRESS");
        check("tmpfs", &container.tmpfs, is_absolute, "write /PATH or /PATH:OPTIONS");
        let volume = "write SOURCE:/DESTINATION or SOURCE:/DESTINATION:OPTIONS";
        check("volumes", &container.volumes, is_volume, volume);
        let ulimit = "write NAME=SOFT or NAME=SOFT:HARD such as nofile=65536";
        check("ulimits", &container.ulimits, |text| ulimit_of(text).is_some(), ulimit);
        for (field, image, example) in [
            ("runner_image", &container.runner_image, "ghcr.io/actions/actions-runner:latest"),
            ("dind_image", &container.dind_image, "docker:dind"),
            ("egress_image", &container.egress_image, "envoyproxy/envoy:distroless-v1.40.2"),
        ] {
            if image.contains(char::is_whitespace) {
                self.error(&format!("{pool}/{field}"), format!("write an image such as {example}"));
            }
        }
        self.check_docker_access(pool, container);
        self.check_dind(pool, container);
        self.check_devices(pool, container);
        self.check_egress(pool, container);
        for name in container.env.keys() {
            if name.is_empty() || name.contains(['=', '\0']) {
                let problem = "write the name of a variable, without =";
                self.error(&child(&format!("{pool}/env"), name), problem);
            }
        }
    }
}

/// Name, soft limit and hard limit; -1 means unlimited.
pub(crate) fn ulimit_of(text: &str) -> Option<(&str, i64, i64)> {
    let (name, limits) = text.split_once('=')?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let limit = |text: &str| text.parse().ok().filter(|limit| *limit >= -1);
    (!name.is_empty()).then_some((name, limit(soft)?, limit(hard)?))
}

/// Only repositories and organizations can be named before a job arrives.
fn no_place_for_idle_runners(scope: Scope, setting: &str) -> String {
    let runners = if setting == "parked" { "parked" } else { "idle" };
    match scope {
        Scope::Repository => format!(
            "{runners} runners need a place to register before a job arrives: write \
             repositories = [\"OWNER/NAME\"], or [\"OWNER/*\"] with scope = \"organization\", \
             or {setting} = 0"
        ),
        Scope::Organization => format!(
            "{runners} runners need a place to register before a job arrives: write \
             repositories = [\"OWNER/*\"], or {setting} = 0"
        ),
        Scope::Enterprise => format!(
            "{runners} runners cannot be registered at an enterprise, because its name is only \
             known from a job: write scope = \"organization\" and repositories = [\"OWNER/*\"], \
             or {setting} = 0"
        ),
    }
}

fn collect_out_of_range(value: &Value, schema: &Value, pointer: &str, invalid: &mut Vec<String>) {
    let is_invalid = match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                // A container's environment variables may be empty; they are not in properties.
                if let Some(schema) = schema["properties"].get(name) {
                    collect_out_of_range(field, schema, &child(pointer, name), invalid);
                }
            }
            false
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect_out_of_range(
                    item,
                    &schema["items"],
                    &format!("{pointer}/{index}"),
                    invalid,
                );
            }
            false
        }
        Value::Number(number) if is_a(schema, "integer") || is_a(schema, "number") => {
            let number = number.as_f64();
            let limit = |name: &str| schema[name].as_f64();
            limit("minimum").is_some_and(|min| number < Some(min))
                || limit("maximum").is_some_and(|max| number > Some(max))
        }
        Value::String(text) => text.is_empty(),
        Value::Null => true,
        _ => false,
    };
    if is_invalid {
        invalid.push(pointer.to_owned());
    }
}

fn api_url_problem(url: &str) -> Option<&'static str> {
    let problem = url_problem(url);
    if problem.is_some() {
        return problem;
    }
    let uri: Uri = url.parse().ok()?;
    let host = &uri.host()?.to_ascii_lowercase();
    let ghe_com = host == "ghe.com" || host.ends_with(".ghe.com");
    let labels = host.split('.').count();
    let api_host = host.starts_with("api.");
    let named = host.contains('.') && host.parse::<IpAddr>().is_err();
    match uri.path() {
        "" | "/" if host == "api.github.com" => None,
        _ if host == "github.com" || host.ends_with(".github.com") => {
            Some("write https://api.github.com")
        }
        "" | "/" if ghe_com && api_host && labels == 4 => None,
        _ if ghe_com => {
            Some("write https://api.SUBDOMAIN.ghe.com, with your enterprise's subdomain")
        }
        "" | "/" if named && !api_host && uri.scheme_str() == Some("https") => {
            Some("the API of a GitHub Enterprise Server ends in /api/v3: write https://HOST/api/v3")
        }
        "" | "/" | "/api/v3" => None,
        _ => Some("write https://api.github.com, or https://HOST/api/v3 for an Enterprise Server"),
    }
}

/// Whether a URL with this host leads to this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// What is wrong with an HTTP URL.
pub(crate) fn url_problem(url: &str) -> Option<&'static str> {
    let uri = match url.parse::<Uri>() {
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) => uri,
        _ => return Some("write a URL that begins with https:// or http://"),
    };
    if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        Some("write the URL without user and password: the token has its own setting")
    } else if url.ends_with('/') || url.contains(['?', '#']) {
        Some("write the URL without a trailing slash, ? or #")
    } else {
        None
    }
}

fn is_visible(secret: &SecretString) -> bool {
    !secret.expose_secret().contains(char::is_control)
}

fn is_name(text: &str, chars_max: usize) -> bool {
    (1..=chars_max).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn name_rule(chars_max: usize) -> String {
    format!("write 1 to {chars_max} characters of a to z, 0 to 9 and -")
}

fn is_log_filter(text: &str) -> bool {
    // A single word that is not a level would be taken for the name of a module, and nothing
    // else would be logged.
    let single_words =
        text.split(',').filter(|directive| !directive.contains(['=', '[', '{', '}', ']']));
    EnvFilter::builder().parse(text).is_ok()
        && single_words.map(|word| word.trim().parse::<LevelFilter>()).all(|level| level.is_ok())
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn is_host_line(text: &str) -> bool {
    text.split_once(':').is_some_and(|(host, address)| !host.is_empty() && !address.is_empty())
}

fn is_volume(text: &str) -> bool {
    let mut parts = text.split(':');
    let source = parts.next().is_some_and(|source| !source.is_empty());
    let destination = parts.next().is_some_and(|path| path.starts_with('/'));
    source && destination && parts.count() <= 1
}

fn is_absolute(text: &str) -> bool {
    text.starts_with('/')
}
