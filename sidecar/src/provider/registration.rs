//! The environment variables by which a runner image registers its runner.

use std::time::Duration;

use secrecy::SecretString;

use crate::{
    config::{PoolConfig, RegistrationMethod, RunnerGroup, TOOL_CACHE_VARIABLE},
    github::{Error, JIT_LIFE, NewRunner, Purpose, clients::CredentialClient},
};
use edgerunner_scheduler::model::Target;

const JIT_CONFIG: &str = "ACTIONS_RUNNER_INPUT_JITCONFIG";
const TOKEN: &str = "RUNNER_TOKEN";
const RETURN_DEPRECATED: &str = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE";
const GROUP: &str = "RUNNER_GROUP";
/// Variables of every runner whose values are no secret, while those that pools set may be.
const PUBLIC: [&str; 4] = [
    RETURN_DEPRECATED,
    TOOL_CACHE_VARIABLE,
    "ACTIONS_RUNNER_HOOK_JOB_COMPLETED",
    "ACTIONS_RUNNER_HOOK_JOB_STARTED",
];
/// The same of runners that register themselves.
const PUBLIC_WITH_TOKEN: [&str; 15] = [
    GROUP,
    "DISABLE_AUTOMATIC_DEREGISTRATION",
    "DISABLE_AUTO_UPDATE",
    "ENTERPRISE_NAME",
    "EPHEMERAL",
    "GITHUB_HOST",
    "GITHUB_URL",
    "LABELS",
    "NO_DEFAULT_LABELS",
    "ORG_NAME",
    "REPO_URL",
    "RUNNER_NAME",
    "RUNNER_SCOPE",
    "RUNNER_WORKDIR",
    "UNSET_CONFIG_VARS",
];

/// The values of a runner's environment that its log must not show, for lines as `NAME=value`.
pub(super) fn secrets(environment: &[String]) -> impl Iterator<Item = &str> {
    let variables = || environment.iter().filter_map(|variable| variable.split_once('='));
    let registers_itself = variables().any(|(name, _)| name == TOKEN);
    let is_public = move |name: &str| {
        PUBLIC.contains(&name) || registers_itself && PUBLIC_WITH_TOKEN.contains(&name)
    };
    variables().filter(move |(name, _)| !is_public(name)).map(|(_, value)| value)
}

/// A runner's environment, with which it can register.
pub(crate) struct Credentials {
    /// The pool's own variables come first.
    pub env: Vec<(String, SecretString)>,
    /// `None` if the runner registers itself.
    pub registration_id: Option<u64>,
    /// The runner must have started by then.
    pub valid_for: Duration,
}

impl Credentials {
    pub(crate) async fn get(
        CredentialClient { github, web_url, .. }: &CredentialClient,
        pool: &PoolConfig,
        target: &Target,
        runner: &str,
    ) -> Result<Self, Error> {
        let github = github.for_purpose(Purpose::Launches);
        let mut env: Vec<(String, SecretString)> =
            pool.container.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        // Without it a runner that is too old exits with 0, as if it had succeeded.
        env.push((RETURN_DEPRECATED.into(), "1".into()));
        match pool.registration {
            RegistrationMethod::Jit => {
                let request = NewRunner {
                    name: runner.to_owned(),
                    labels: pool.labels.clone(),
                    group: pool.group.clone(),
                    work_folder: pool.work_folder.clone(),
                };
                let jit = github.jit_config(target, &request).await?;
                env.push((JIT_CONFIG.into(), jit.encoded_jit_config));
                Ok(Self { env, registration_id: Some(jit.id), valid_for: JIT_LIFE })
            }
            RegistrationMethod::RegistrationToken => {
                if let RunnerGroup::Name(group) = &pool.group {
                    // If the group does not exist, the image fails without a clear message.
                    github.group_id(target, group).await?;
                    env.push((GROUP.into(), group.clone().into()));
                }
                let token = github.registration_token(target).await?;
                env.extend(registration_variables(web_url, pool, target, runner));
                env.push((TOKEN.into(), token.secret));
                Ok(Self { env, registration_id: None, valid_for: token.valid_for })
            }
        }
    }
}

/// For images with their own registration script. The names are those of
/// github.com/myoung34/docker-github-actions-runner, which other images have adopted.
fn registration_variables(
    web_url: &str,
    pool: &PoolConfig,
    target: &Target,
    runner: &str,
) -> Vec<(String, SecretString)> {
    let mut variables = vec![
        ("RUNNER_NAME", runner.to_owned()),
        ("LABELS", pool.labels.join(",")),
        ("EPHEMERAL", "true".to_owned()),
        ("RUNNER_WORKDIR", pool.work_folder.clone()),
        // Otherwise it would take jobs of other pools.
        ("NO_DEFAULT_LABELS", "true".to_owned()),
        // Otherwise it would update itself before its one job.
        ("DISABLE_AUTO_UPDATE", "true".to_owned()),
        // That needs a token that it does not have; the sidecar deregisters it.
        ("DISABLE_AUTOMATIC_DEREGISTRATION", "true".to_owned()),
        // Jobs must not see the token.
        ("UNSET_CONFIG_VARS", "true".to_owned()),
    ];
    match target {
        Target::Repository { owner, name } => {
            variables.push(("RUNNER_SCOPE", "repo".into()));
            variables.push(("REPO_URL", format!("{web_url}/{owner}/{name}")));
        }
        Target::Organization(login) => {
            variables.push(("RUNNER_SCOPE", "org".into()));
            variables.push(("ORG_NAME", login.clone()));
        }
        Target::Enterprise(slug) => {
            variables.push(("RUNNER_SCOPE", "ent".into()));
            variables.push(("ENTERPRISE_NAME", slug.clone()));
        }
    }
    if let Some((scheme, host)) = web_url.split_once("://")
        && web_url != "https://github.com"
    {
        variables.push(("GITHUB_HOST", host.to_owned()));
        variables.push(("GITHUB_URL", format!("{scheme}://{host}")));
    }
    variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_log_may_show_what_registers_a_runner_except_for_the_token() {
        let pool = &Config::load(None, &|_| None).unwrap().pools[0];
        let web_url = "https://ghe.example.com";
        for target in ["repo:acme/app", "org:acme", "enterprise:acme"] {
            let target = target.parse().unwrap();
            let variables = registration_variables(web_url, pool, &target, "edge-1");
            let mut environment: Vec<String> = variables
                .iter()
                .map(|(name, value)| format!("{name}={}", value.expose_secret()))
                .collect();
            environment.extend(
                ["RUNNER_TOKEN=AAAA", "RUNNER_GROUP=ci", "API_KEY=s3cret"].map(str::to_owned),
            );
            assert_eq!(secrets(&environment).collect::<Vec<_>>(), ["AAAA", "s3cret"]);
        }
        // Without a token they are the pool's own.
        let environment = ["REPO_URL=https://ci:s3cret@git.example.com".to_owned()];
        assert_eq!(secrets(&environment).count(), 1);
    }
}
