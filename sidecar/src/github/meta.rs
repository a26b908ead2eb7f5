//! GitHub's published IP ranges.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{Error, GitHub};

impl GitHub {
    /// The ranges that webhooks come from, each as `ADDRESS/PREFIX_LENGTH`.
    pub(crate) async fn webhook_addresses(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Reply {
            hooks: Vec<String>,
        }
        let call = "reading GitHub's IP ranges";
        let response = self.send_as_self(call, Method::GET, "/meta").await?;
        let Reply { hooks } = self.client.read(call, &response, StatusCode::OK)?;
        Ok(hooks)
    }

    /// The hosts that runners connect to, as GitHub lists them: names, or `*.NAME`. Empty if the
    /// server lists none.
    pub(crate) async fn actions_hosts(&self) -> Result<Vec<String>, Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Reply {
            domains: Domains,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Domains {
            website: Vec<String>,
            actions: Vec<String>,
            packages: Vec<String>,
            actions_inbound: Inbound,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Inbound {
            full_domains: Vec<String>,
            wildcard_domains: Vec<String>,
        }
        let call = "reading GitHub's hosts";
        let response = self.send_as_self(call, Method::GET, "/meta").await?;
        let Reply { domains } = self.client.read(call, &response, StatusCode::OK)?;
        let Domains { website, actions, packages, actions_inbound } = domains;
        let Inbound { full_domains, wildcard_domains } = actions_inbound;
        let mut hosts: Vec<String> =
            [website, actions, packages, full_domains, wildcard_domains].concat();
        hosts.sort();
        hosts.dedup();
        Ok(hosts)
    }
}
