//! Checks the permissions of each credential, and where it can register runners.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Result, bail};

use super::report::Report;
use crate::{
    config::{Config, PoolConfig, RunnerGroup},
    github::{GitHub, Rights, TokenInfo},
};
use edgerunner_scheduler::{
    missed::RunStatus,
    model::{Target, Visibility},
    plan::{
        self, AT_TARGET_MAX, Credential, Forks, Scope, WITH_CREDENTIAL_MAX, credentials_for_name,
        has_launch_limits,
    },
};

/// GitHub rejects the JSON Web Token of an App if the clock is off by more.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);
/// <https://docs.github.com/en/actions/reference/limits>: self-hosted runners in a runner group.
const IN_GROUP_MAX: usize = 10_000;

/// The scope of a classic token, and the permission of a GitHub App, that are needed to register
/// runners: <https://docs.github.com/en/rest/actions/self-hosted-runners>.
fn needed(scope: Scope) -> (&'static str, Option<&'static str>) {
    match scope {
        Scope::Repository => ("repo", Some("administration")),
        Scope::Organization => ("admin:org", Some("organization_self_hosted_runners")),
        Scope::Enterprise => ("manage_runners:enterprise", None),
    }
}

/// Whether a token with `scope` has what is `needed`.
fn includes(scope: &str, needed: &str) -> bool {
    scope == needed || (scope == "admin:enterprise" && needed == "manage_runners:enterprise")
}

pub(super) async fn check(config: &Config, report: &mut Report) {
    let planned = config.planner_settings();
    for (index, credential) in config.credentials.iter().enumerate() {
        let name = format!("credential {}", credential.name);
        let github = match GitHub::new(credential, config.github.timeout()) {
            Ok(github) => github,
            Err(error) => {
                report.failed(name, error);
                continue;
            }
        };
        let serves = |target: &Target| {
            credentials_for_name(&planned.credentials, target).any(|serving| serving == index)
        };
        let scopes = planned.pools.iter().filter(|pool| pool.targets().iter().any(serves));
        match github.token_info().await {
            Ok(TokenInfo { rights, clock_skew }) => {
                report.add(name, check_rights(&rights, scopes.map(|pool| pool.scope)));
                check_clock(&credential.api_url, clock_skew, report);
            }
            Err(error) => {
                report.failed(name, error);
                // All other requests would fail for the same reason.
                continue;
            }
        }
        for (target, pools) in targets(config, &planned.pools, &serves) {
            check_target(&github, &target, &pools, report).await;
        }
        for ((owner, repository), pools) in named_repositories(&planned.pools, &serves) {
            if pools.iter().any(|pool| pool.forks != Forks::Allow) {
                let runs = github.runs(owner, repository, RunStatus::Queued, None).await;
                let name = format!("runs of {owner}/{repository}");
                report.add(name, runs.map(|_| "can be read, which forks needs"));
            }
            let name = format!("repository {owner}/{repository}");
            match github.visibility(owner, repository).await {
                Ok(Visibility::Private | Visibility::Internal) => {}
                Ok(Visibility::Public) => report_public(report, &name, "public", &pools),
                Ok(Visibility::Unknown) => {
                    let what = "of unknown visibility, so it counts as public";
                    report_public(report, &name, what, &pools);
                }
                Err(error) => report.skipped(name, format!("whether it is public: {error}")),
            }
        }
    }
    for (target, pools) in targets(config, &planned.pools, &|_| true) {
        let named = |pool: &&plan::Pool| pools.iter().any(|it| it.name == pool.name);
        let max: usize = planned.pools.iter().filter(named).map(|pool| pool.max).sum();
        let name = format!("new runners of {target}");
        if max > IN_GROUP_MAX {
            let what = format!(
                "the pools allow {max} runners, and GitHub {IN_GROUP_MAX} in a runner group: lower \
                 max, or use several groups"
            );
            report.warning(&name, what);
        }
        if let Some((limit, in_a_minute)) = launch_limit(&planned.credentials, &target) {
            let minutes = max.div_ceil(in_a_minute);
            let what = format!(
                "{limit}; the pools allow {max} runners, which are all busy only with jobs of at \
                 least {minutes} min"
            );
            report.ok(name, what);
        }
    }
    for pool in &planned.pools {
        if pool.known_targets().is_empty() {
            let reason = "runners are registered where a job comes from: to check a place now, name \
                          it in `repositories`";
            report.skipped(format!("targets of pool {}", pool.name), reason);
        }
    }
}

/// Those that pools name in full, with these pools.
fn named_repositories<'a>(
    pools: &'a [plan::Pool],
    serves: &impl Fn(&Target) -> bool,
) -> BTreeMap<(&'a str, &'a str), Vec<&'a plan::Pool>> {
    let mut repositories: BTreeMap<_, Vec<&plan::Pool>> = BTreeMap::new();
    for pool in pools.iter().filter(|pool| pool.targets().iter().any(serves)) {
        for name in pool.repositories.iter().filter_map(|pattern| pattern.exact()) {
            repositories.entry(name).or_default().push(pool);
        }
    }
    repositories
}

/// `what` it is, which decides whether the pools that name it run its jobs.
fn report_public(report: &mut Report, name: &str, what: &str, pools: &[&plan::Pool]) {
    for pool in pools {
        let plan::Pool { name: pool_name, public_repositories, forks, min_idle, .. } = pool;
        match (public_repositories, forks) {
            (false, _) if *min_idle > 0 => report.warning(
                name,
                format!(
                    "{what}; pool {pool_name} launches nothing for its jobs, but its idle runners \
                     take them: set min_idle = 0, or name the private repositories alone"
                ),
            ),
            (false, _) => report.warning(
                name,
                format!(
                    "{what}; pool {pool_name} launches nothing for its jobs, unless you set \
                     public_repositories = true"
                ),
            ),
            (true, Forks::Allow) => report.warning(
                name,
                format!(
                    "{what}; pool {pool_name} runs its jobs, also those of pull requests from \
                     forks: set forks = \"refuse\", or give them a pool with forks = \"only\""
                ),
            ),
            (true, Forks::Refuse | Forks::Only) => {
                report.ok(name, format!("{what}; pool {pool_name} runs its jobs"));
            }
        }
    }
}

fn targets<'a>(
    config: &'a Config,
    planned: &[plan::Pool],
    serves: &impl Fn(&Target) -> bool,
) -> BTreeMap<Target, Vec<&'a PoolConfig>> {
    let mut targets: BTreeMap<Target, Vec<&PoolConfig>> = BTreeMap::new();
    for (pool, planned) in config.pools.iter().zip(planned) {
        for target in planned.known_targets().into_iter().filter(serves) {
            targets.entry(target).or_default().push(pool);
        }
    }
    targets
}

/// What GitHub lets register in a minute, in words and as the number of runners; `None` on a server
/// without limits.
fn launch_limit(credentials: &[Credential], target: &Target) -> Option<(String, usize)> {
    let serving: Vec<usize> = credentials_for_name(credentials, target).collect();
    if !has_launch_limits(credentials[*serving.first()?].host) {
        return None;
    }
    let in_a_minute = (WITH_CREDENTIAL_MAX * serving.len()).min(AT_TARGET_MAX);
    let limit = match serving.len() {
        1 => format!(
            "GitHub allows {WITH_CREDENTIAL_MAX} a minute with its credential, and {AT_TARGET_MAX} \
             at {target}"
        ),
        count => format!(
            "GitHub allows {WITH_CREDENTIAL_MAX} a minute with each of its {count} credentials, \
             and {AT_TARGET_MAX} at {target}"
        ),
    };
    Some((limit, in_a_minute))
}

/// Describes the credential. Fails if it lacks a scope or permission.
fn check_rights(rights: &Rights, scopes: impl Iterator<Item = Scope>) -> Result<String> {
    let needed: Vec<_> = scopes.map(needed).collect();
    let (missing, found, remedy): (BTreeSet<_>, _, _) = match rights {
        Rights::Unknown => {
            return Ok("token accepted; permissions are checked below".to_owned());
        }
        Rights::Scopes(scopes) => (
            needed
                .iter()
                .map(|(scope, _)| *scope)
                .filter(|needed| !scopes.iter().any(|scope| includes(scope, needed)))
                .collect(),
            format!("a classic token with the scopes {}", scopes.join(", ")),
            "at https://github.com/settings/tokens, add the scope",
        ),
        Rights::App { slug, permissions } => (
            needed
                .iter()
                .filter_map(|(_, permission)| *permission)
                .filter(|needed| permissions.get(*needed).is_none_or(|access| access != "write"))
                .collect(),
            format!("the GitHub App {slug}"),
            "in its settings, and then in each installation, grant write access to",
        ),
    };
    let missing: Vec<&str> = missing.into_iter().collect();
    match missing.is_empty() {
        true => Ok(found),
        false => bail!("{found}: {remedy} {}", missing.join(", ")),
    }
}

fn check_clock(api_url: &str, skew: Duration, report: &mut Report) {
    let seconds = skew.as_secs();
    let name = format!("clock compared to {api_url}");
    match skew > CLOCK_SKEW_MAX {
        false => report.ok(name, format!("differs by {seconds} s")),
        true => report.failed(
            name,
            format!(
                "differs by {seconds} s: synchronize this machine's clock with NTP, or GitHub may \
                 reject requests"
            ),
        ),
    }
}

/// Requests a registration token, which registers nothing by itself and expires.
async fn check_target(
    github: &GitHub,
    target: &Target,
    pools: &[&PoolConfig],
    report: &mut Report,
) {
    let registered = github.registration_token(target).await;
    let reached = registered.is_ok();
    report.add(target.to_string(), registered.map(|_| "runners can be registered here"));
    if !reached {
        return;
    }
    for pool in pools {
        if let RunnerGroup::Name(name) = &pool.group {
            let found = github.group_id(target, name).await;
            let name = format!("runner group {name} of {target}");
            report.add(name, found.map(|id| format!("ID {id}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgerunner_scheduler::{model::Host, plan::TargetPattern};

    #[test]
    fn the_launches_that_github_allows_depend_on_the_credentials() {
        let on = |host: &str| Credential {
            name: "one".into(),
            host: Host::new(host),
            targets: vec![TargetPattern::Any],
        };
        let target: Target = "org:acme".parse().unwrap();
        let (one, in_a_minute) = launch_limit(&[on("github.com")], &target).unwrap();
        assert_eq!(in_a_minute, 180);
        assert_eq!(one, "GitHub allows 180 a minute with its credential, and 300 at org:acme");
        let both = [on("acme.ghe.com"), on("acme.ghe.com")];
        let (two, in_a_minute) = launch_limit(&both, &target).unwrap();
        assert_eq!(in_a_minute, 300);
        assert!(two.starts_with("GitHub allows 180 a minute with each of its 2 credentials"));
        assert_eq!(launch_limit(&[on("ghe.example.com")], &target), None);
        assert_eq!(launch_limit(&[], &target), None);
    }

    #[test]
    fn missing_scopes_and_permissions_are_named() {
        use Scope::{Enterprise, Organization, Repository};
        let check = |rights: &Rights, scopes: &[Scope]| {
            check_rights(rights, scopes.iter().copied()).map_err(|error| error.to_string())
        };
        let classic = Rights::Scopes(vec!["repo".into(), "admin:enterprise".into()]);
        assert!(check(&classic, &[Repository, Enterprise]).is_ok());
        let lacks = check(&classic, &[Repository, Organization]).unwrap_err();
        assert!(lacks.ends_with("the scope admin:org"), "{lacks}");

        let permissions =
            [("administration", "write"), ("organization_self_hosted_runners", "read")];
        let permissions = permissions.map(|(name, access)| (name.into(), access.into())).into();
        let app = Rights::App { slug: "runners".into(), permissions };
        assert!(check(&app, &[Repository]).is_ok());
        let lacks = check(&app, &[Repository, Organization]).unwrap_err();
        assert!(
            lacks.ends_with("grant write access to organization_self_hosted_runners"),
            "{lacks}"
        );
        assert!(check(&Rights::Unknown, &[Organization]).is_ok());
    }
}
