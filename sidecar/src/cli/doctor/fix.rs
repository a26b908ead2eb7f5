//! What `doctor --fix` changes: nothing that anybody could miss.

use std::{fmt, path::PathBuf};

use anyhow::{Result, bail};

use crate::{
    cli::{ask::Terminal, block_on::block_on, github_addresses, signed_webhook::webhook_secret},
    config::{Config, PullPolicy},
    github::clients::client_for,
    provider::{Images, docker::Docker},
};
use edgerunner_scheduler::model::Target;

pub(super) enum Fix {
    PullImage {
        images: Images,
    },
    CreateWebhook {
        target: Target,
        url: String,
    },
    WriteAddresses {
        file: PathBuf,
        /// Of the webhooks that the list is for.
        hook_path: String,
        ranges: Vec<String>,
    },
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PullImage { images } => write!(f, "pull image {}", images.names.join(", ")),
            Self::CreateWebhook { target, url } => {
                write!(f, "create a webhook of {target} at GitHub that sends to {url}")
            }
            Self::WriteAddresses { file, ranges, .. } => {
                let (count, file) = (ranges.len(), file.display());
                write!(f, "write GitHub's {count} IP ranges to {file}, which Envoy reads again")
            }
        }
    }
}

impl Fix {
    fn apply(&self, config: &Config) -> Result<()> {
        match self {
            Self::PullImage { images } => block_on(async {
                let docker = Docker::connect(&config.engine, &config.scheduler.instance);
                Ok(docker.prepare(images).await?)
            }),
            Self::CreateWebhook { target, url } => block_on(async {
                let secret = webhook_secret(config)?;
                client_for(config, target)?.create_webhook(target, url, secret).await?;
                Ok(())
            }),
            Self::WriteAddresses { file, hook_path, ranges } => {
                github_addresses::write_filter(file, ranges, hook_path)
            }
        }
    }

    /// To be pulled although the pool would have it pulled at a launch.
    pub(super) fn pull(mut images: Images, image: &str) -> Self {
        images.names = vec![image.to_owned()];
        images.pull_policy = PullPolicy::Missing;
        Self::PullImage { images }
    }
}

/// Says what each fix does, and does it once it is confirmed. Returns whether anything was done.
/// `yes`: all are confirmed.
pub(super) fn apply(fixes: &[Fix], config: &Config, yes: bool) -> Result<bool> {
    let terminal = Terminal::find();
    if !yes && terminal.is_none() {
        let fixes: Vec<String> = fixes.iter().map(Fix::to_string).collect();
        bail!(
            "nothing was changed: there is no terminal to ask on, so confirm with --yes. It would {}",
            fixes.join("; ")
        );
    }
    let mut done = false;
    for fix in fixes {
        let confirmed = match &terminal {
            _ if yes => true,
            Some(terminal) => terminal.confirm(&format!("Fix: {fix}?"))?,
            None => false,
        };
        if !confirmed {
            eprintln!("Left as it is: {fix}.");
            continue;
        }
        eprintln!("Fix: {fix} …");
        match fix.apply(config) {
            Ok(()) => eprintln!("Done."),
            Err(error) => eprintln!("Failed: {error:#}"),
        }
        done = true;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_and_without_yes_nothing_is_changed_and_all_is_named() {
        let config = Config::load(None, &|_| None).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("github_addresses.yaml");
        let ranges = vec!["192.30.252.0/22".to_owned()];
        let fix = || Fix::WriteAddresses {
            file: file.clone(),
            hook_path: "/webhooks/github".into(),
            ranges: ranges.clone(),
        };
        // Tests may run on a terminal.
        if Terminal::find().is_none() {
            let error = apply(&[fix()], &config, false).unwrap_err().to_string();
            assert!(
                error.contains("--yes") && error.contains("write GitHub's 1 IP range"),
                "{error}"
            );
            assert!(!file.exists());
        }
        assert!(apply(&[fix()], &config, true).unwrap());
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(github_addresses::Listed::read(&text).unwrap().is(&ranges), "{text}");
    }
}
