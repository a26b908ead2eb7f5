//! A container that finds out what runners of a pool reach, and removes itself.

use std::time::Duration;

use bollard::query_parameters::{AttachContainerOptionsBuilder, CreateContainerOptions};
use futures_util::StreamExt as _;

use super::{
    Docker,
    body::{self, Engine},
    from_bollard, within,
};
use crate::{
    config::PoolConfig,
    provider::{
        error::Error,
        labels::Labels,
        order::{Images, Order},
    },
};

/// In place of the labels of a runner: it is none. The value is the installation.
const PROBE: &str = "dev.edgerunner.probe";
/// Longer than the script takes.
const LIMIT: Duration = Duration::from_secs(30);
/// In the error of a container whose image has no shell.
const NO_PROGRAM: &str = "not found in $PATH";
/// All addresses are tried at the same time. A proxy is used if the environment names one, which
/// bash cannot do.
const SCRIPT: &str = r#"
try() {
    if command -v curl >/dev/null 2>&1; then
        said=$(curl -sS -o /dev/null --connect-timeout 5 --max-time 8 "$1" 2>&1)
    elif [ -z "$https_proxy$HTTPS_PROXY" ] && command -v bash >/dev/null 2>&1; then
        said=$(bash -c 'rest=${1#*://} host=${rest%%[:/]*} port=443
            case $1 in http:*) port=80;; esac
            case ${rest%%/*} in *:*) port=${rest%%/*} port=${port##*:};; esac
            (exec 3<>"/dev/tcp/$host/$port") & pid=$!
            (sleep 5; kill $pid) 2>/dev/null & wait $pid' bash "$1" 2>&1)
    else
        echo no-tool
        return
    fi
    if [ $? = 0 ]; then echo "reached $1"; else echo "failed $1 $(echo "$said" | tail -n 1)"; fi
}
for url in "$@"; do try "$url" & done
wait
"#;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    /// What is wrong with each of those that it does not reach.
    Done { failed: Vec<(String, String)> },
    /// The image has no program that could try.
    NoTool,
    /// The pool's Envoy does not run yet.
    NoWayOut,
}

impl Docker {
    /// Tries these URLs from the network of a pool's runners, in a container of the pool's image. It
    /// pulls nothing.
    pub(crate) async fn probe(&self, pool: &PoolConfig, urls: &[String]) -> Result<Probed, Error> {
        let labels = Labels {
            instance: self.instance.to_string(),
            pool: pool.name.clone(),
            ..Labels::default()
        };
        let env = pool.container.env.iter();
        let env = env.map(|(name, value)| (name.clone(), value.clone())).collect();
        let order = Order::new(labels, Images::new(&pool.container, &[]), pool, env, 0);
        let proxy = match order.egress {
            None => None,
            Some(_) => match self.running_way_out(&order).await? {
                Some(proxy) => Some(proxy),
                None => return Ok(Probed::NoWayOut),
            },
        };
        let mut body = body::runner(&order, &Engine::None, None, proxy.as_ref());
        let script = ["sh", "-c", SCRIPT, "sh"].map(str::to_owned);
        body.entrypoint = Some(script.into_iter().chain(urls.iter().cloned()).collect());
        body.cmd = None;
        body.labels = Some([(PROBE.to_owned(), self.instance.to_string())].into());
        if let Some(host) = &mut body.host_config {
            host.auto_remove = Some(true);
            (host.binds, host.mounts, host.devices, host.device_requests) =
                (None, None, None, None);
        }
        let call = format!("try what runners of pool {} reach", pool.name);
        let platform = order.images.platform.clone().unwrap_or_default();
        let options = CreateContainerOptions { name: None, platform };
        let created = self.bollard.create_container(Some(options), body).await;
        let id = created.map_err(|error| from_bollard(&call, &error))?.id;
        let output = within(LIMIT, &call, self.output_of(&id, &call)).await;
        if output.is_err() {
            // It may not have started, or hangs.
            let _ = self.delete_container(&id).await;
        }
        match output {
            Err(error) if error.message.contains(NO_PROGRAM) => Ok(Probed::NoTool),
            output => output.map(|output| parse(&output)),
        }
    }

    /// Starts a container, and reads what it writes until it ends.
    async fn output_of(&self, id: &str, call: &str) -> Result<String, Error> {
        let failed = |error: &bollard::errors::Error| from_bollard(call, error);
        let all = AttachContainerOptionsBuilder::default().stdout(true).stderr(true).stream(true);
        let mut attached = self
            .bollard
            .attach_container(id, Some(all.build()))
            .await
            .map_err(|error| failed(&error))?;
        self.start(id).await?;
        let mut output = Vec::new();
        while let Some(chunk) = attached.output.next().await {
            output.extend_from_slice(&chunk.map_err(|error| failed(&error))?.into_bytes());
        }
        Ok(String::from_utf8_lossy(&output).into_owned())
    }
}

fn parse(output: &str) -> Probed {
    let mut failed = Vec::new();
    for line in output.lines() {
        let mut words = line.trim().splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("no-tool"), None, _) => return Probed::NoTool,
            (Some("failed"), Some(url), why) => {
                failed.push((url.to_owned(), why.unwrap_or("no connection").trim().to_owned()));
            }
            _ => {}
        }
    }
    failed.sort();
    Probed::Done { failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_reached_is_listed_with_the_reason() {
        let output =
            "reached https://a/\nfailed https://c/ curl: (28) Timeout\nfailed https://b/\n";
        let failed = [("https://b/", "no connection"), ("https://c/", "curl: (28) Timeout")]
            .map(|(url, why)| (url.to_owned(), why.to_owned()))
            .to_vec();
        assert_eq!(parse(output), Probed::Done { failed });
        assert_eq!(parse("reached https://a/\n"), Probed::Done { failed: Vec::new() });
        assert_eq!(parse("no-tool\nno-tool\n"), Probed::NoTool);
    }
}
