//! What each credential may do, and where.

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
    model::Target,
    plan::{self, Scope, credential_for},
};

/// GitHub refuses an App's web token of a clock that is further off.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);

/// What registering runners takes in a scope, by
/// <https://docs.github.com/en/rest/actions/self-hosted-runners>: the scope of a classic
/// token, and the permission of a GitHub App.
fn needed(scope: Scope) -> (&'static str, Option<&'static str>) {
    match scope {
        Scope::Repository => ("repo", Some("administration")),
        Scope::Organization => ("admin:org", Some("organization_self_hosted_runners")),
        Scope::Enterprise => ("manage_runners:enterprise", None),
    }
}

/// Scopes that hold another.
fn holds(scope: &str, needed: &str) -> bool {
    scope == needed || (scope == "admin:enterprise" && needed == "manage_runners:enterprise")
}

pub(super) async fn look(config: &Config, report: &mut Report) {
    let planned = config.planner_settings();
    for (index, credential) in config.credentials.iter().enumerate() {
        let check = format!("credential {}", credential.name);
        let github = match GitHub::new(credential, config.github.timeout()) {
            Ok(github) => github,
            Err(error) => {
                report.failed(check, error);
                continue;
            }
        };
        let serves = |target: &Target| credential_for(&planned.credentials, target) == Some(index);
        let scopes = planned.pools.iter().filter(|pool| pool.targets().iter().any(serves));
        match github.token_info().await {
            Ok(TokenInfo { rights, clock_skew }) => {
                report.note(check, judge(&rights, scopes.map(|pool| pool.scope)));
                look_at_clock(&credential.api_url, clock_skew, report);
            }
            Err(error) => {
                report.failed(check, error);
                // Nothing else would be answered otherwise.
                continue;
            }
        }
        for (target, pools) in targets(config, &planned.pools, &serves) {
            look_at(&github, &target, &pools, report).await;
        }
    }
    for pool in &planned.pools {
        if pool.targets_known_beforehand().is_empty() {
            let why = "where its runners are registered is known when a job comes; name one in \
                       repositories to have it tried";
            report.skipped(format!("targets of pool {}", pool.name), why);
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
        for target in planned.targets_known_beforehand().into_iter().filter(serves) {
            targets.entry(target).or_default().push(pool);
        }
    }
    targets
}

fn judge(rights: &Rights, scopes: impl Iterator<Item = Scope>) -> Result<String> {
    let needed: Vec<_> = scopes.map(needed).collect();
    let (missing, found, remedy): (BTreeSet<_>, _, _) = match rights {
        Rights::Unknown => {
            return Ok("GitHub takes the token; what it may do shows at each target".to_owned());
        }
        Rights::Scopes(scopes) => (
            needed
                .iter()
                .map(|(scope, _)| *scope)
                .filter(|needed| !scopes.iter().any(|scope| holds(scope, needed)))
                .collect(),
            format!("a classic token with the scopes {}", scopes.join(", ")),
            "give it at https://github.com/settings/tokens the scope",
        ),
        Rights::App { slug, permissions } => (
            needed
                .iter()
                .filter_map(|(_, permission)| *permission)
                .filter(|needed| permissions.get(*needed).is_none_or(|access| access != "write"))
                .collect(),
            format!("the GitHub App {slug}"),
            "in its settings, and then where it is installed, let it write",
        ),
    };
    let missing: Vec<&str> = missing.into_iter().collect();
    match missing.is_empty() {
        true => Ok(found),
        false => bail!("{found}: {remedy} {}", missing.join(", ")),
    }
}

fn look_at_clock(api_url: &str, skew: Duration, report: &mut Report) {
    let seconds = skew.as_secs();
    let check = format!("clock and {api_url}");
    match skew > CLOCK_SKEW_MAX {
        false => report.ok(check, format!("{seconds} s apart")),
        true => report.failed(
            check,
            format!("{seconds} s apart: set this machine's clock by NTP, or GitHub may refuse us"),
        ),
    }
}

/// A token for registering runners registers none by itself, and expires.
async fn look_at(github: &GitHub, target: &Target, pools: &[&PoolConfig], report: &mut Report) {
    let registered = github.registration_token(target).await;
    let reached = registered.is_ok();
    report.note(target.to_string(), registered.map(|_| "runners may be registered here"));
    if !reached {
        return;
    }
    for pool in pools {
        if let RunnerGroup::Name(name) = &pool.group {
            let found = github.group_id(target, name).await;
            let check = format!("runner group {name} of {target}");
            report.note(check, found.map(|id| format!("its id is {id}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_credential_lacks_is_named() {
        use Scope::{Enterprise, Organization, Repository};
        let check = |rights: &Rights, scopes: &[Scope]| {
            judge(rights, scopes.iter().copied()).map_err(|error| error.to_string())
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
        assert!(lacks.ends_with("let it write organization_self_hosted_runners"), "{lacks}");
        assert!(check(&Rights::Unknown, &[Organization]).is_ok());
    }
}
