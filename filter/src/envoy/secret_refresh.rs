//! Webhook secrets from the sidecar: fetched at start, refreshed regularly, and kept
//! while the sidecar is unreachable.

use std::{cell::Cell, time::Duration};

use edgerunner_proto::v1::{SecretsReply, SecretsRequest};
use prost::Message as _;
use proxy_wasm::types::LogLevel;

use super::{intake, log::log};
use crate::config::{Config, Webhook};

const METHOD: &str = "GetSecrets";
/// A changed secret is known this long after its file was written. Only then may GitHub be
/// switched to it.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// Used while a webhook has no secret, since its deliveries wait for it.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

pub(super) struct SecretRefresh {
    state: Cell<State>,
    /// Whether the warning about webhooks without a secret was logged; reset once there are none.
    warned: Cell<bool>,
}

#[derive(Clone, Copy)]
enum State {
    NotNeeded,
    DueIn(Duration),
    Requested,
}

impl SecretRefresh {
    pub(super) fn new(config: &Config) -> Self {
        let needed = config.webhooks.iter().any(|webhook| webhook.secrets_from_sidecar);
        let state = if needed { State::DueIn(Duration::ZERO) } else { State::NotNeeded };
        Self { state: Cell::new(state), warned: Cell::new(false) }
    }

    /// To be called in the root context, which then receives the reply.
    pub(super) fn tick(&self, elapsed: Duration, config: &Config) {
        match self.state.get() {
            State::NotNeeded | State::Requested => {}
            State::DueIn(left) if left > elapsed => {
                self.state.set(State::DueIn(left.saturating_sub(elapsed)));
            }
            State::DueIn(_) => {
                self.state.set(State::Requested);
                let hooks = from_sidecar(config).map(|webhook| webhook.name.clone()).collect();
                let request = SecretsRequest { hooks };
                if intake::call(&config.sidecar, METHOD, &request).is_err() {
                    self.schedule(config);
                }
            }
        }
    }

    /// `message` is the encoded [`SecretsReply`], if `grpc_status` is OK.
    pub(super) fn replied(&self, config: &Config, grpc_status: u32, message: Option<&[u8]>) {
        if grpc_status == 0 {
            let reply = SecretsReply::decode(message.unwrap_or_default()).unwrap_or_default();
            for sent in &reply.hooks {
                if let Some(webhook) = from_sidecar(config).find(|it| it.name == sent.hook) {
                    webhook.replace_secrets(&sent.secrets);
                }
            }
        }
        self.schedule(config);
    }

    fn schedule(&self, config: &Config) {
        let without: Vec<&str> = from_sidecar(config)
            .filter(|webhook| webhook.secrets() == 0)
            .map(Webhook::label)
            .collect();
        let interval = if without.is_empty() { REFRESH_INTERVAL } else { RETRY_INTERVAL };
        self.state.set(State::DueIn(interval));
        let warned = self.warned.replace(!without.is_empty());
        if !warned && !without.is_empty() {
            log(
                LogLevel::Warn,
                &format!(
                    "no secret from the sidecar for webhooks: {}; their deliveries are answered \
                     503. Check that the sidecar is running and has [[webhooks]] with these names",
                    without.join(", ")
                ),
            );
        }
    }
}

fn from_sidecar(config: &Config) -> impl Iterator<Item = &Webhook> {
    config.webhooks.iter().filter(|webhook| webhook.secrets_from_sidecar)
}
