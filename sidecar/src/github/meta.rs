//! GitHub's published IP ranges and hosts.

use http::{Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Error, ErrorKind, GitHub};

impl GitHub {
    /// The ranges that webhooks come from, each as `ADDRESS/PREFIX_LENGTH`. Empty if the server
    /// lists none, as an Enterprise Server.
    pub(crate) async fn webhook_addresses(&self) -> Result<Vec<String>, Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Reply {
            hooks: Vec<String>,
        }
        let Reply { hooks } = self.meta("reading GitHub's IP ranges").await?;
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
            artifact_attestations: Attestations,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Inbound {
            full_domains: Vec<String>,
            wildcard_domains: Vec<String>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Attestations {
            services: Vec<String>,
        }
        let Reply { domains } = self.meta("reading GitHub's hosts").await?;
        let Domains { website, actions, packages, actions_inbound, artifact_attestations } =
            domains;
        let Inbound { full_domains, wildcard_domains } = actions_inbound;
        let Attestations { services } = artifact_attestations;
        let mut hosts: Vec<String> =
            [website, actions, packages, full_domains, wildcard_domains, services].concat();
        hosts.sort();
        hosts.dedup();
        Ok(hosts)
    }

    async fn meta<T: DeserializeOwned>(&self, call: &str) -> Result<T, Error> {
        let response = self.send_as_self(call, Method::GET, "/meta").await?;
        // It has no name that may be wrong, and needs no permission.
        if response.status == StatusCode::NOT_FOUND {
            let problem = "the server has no /meta (404); check api_url";
            return Err(Error::new(ErrorKind::NotFound, call, problem));
        }
        self.client.read(call, &response, StatusCode::OK)
    }
}
