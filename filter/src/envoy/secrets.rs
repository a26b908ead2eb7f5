//! Secrets that the sidecar tells: fetched at start, renewed on a tick, and kept
//! while the sidecar is away.

use std::{cell::Cell, time::Duration};

use edgerunner_proto::{
    CONTRACT, CONTRACT_METADATA,
    v1::{SecretsReply, SecretsRequest},
};
use prost::Message as _;
use proxy_wasm::{hostcalls, types::LogLevel};

use super::{
    link::{SERVICE, TICK},
    log,
};
use crate::config::{Config, Hook};

const METHOD: &str = "GetSecrets";
/// A new secret is known this long after its file was written, and at GitHub it is to be
/// used only then.
const RENEW_AFTER: Duration = Duration::from_secs(10);
/// While a hook has none at all its deliveries are answered 503.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Renewal {
    state: Cell<State>,
    /// Told of the hooks without a secret, until that changes.
    complained: Cell<bool>,
}

#[derive(Clone, Copy)]
enum State {
    NotNeeded,
    AskIn(Duration),
    Asked,
}

impl Renewal {
    pub(super) fn new(config: &Config) -> Self {
        let needed = config.hooks.iter().any(|hook| hook.secrets_from_sidecar);
        let state = if needed { State::AskIn(Duration::ZERO) } else { State::NotNeeded };
        Self { state: Cell::new(state), complained: Cell::new(false) }
    }

    /// In the root context only, to which the answer then belongs.
    pub(super) fn tick(&self, config: &Config) {
        match self.state.get() {
            State::NotNeeded | State::Asked => {}
            State::AskIn(left) if left > TICK => self.state.set(State::AskIn(left - TICK)),
            State::AskIn(_) => {
                self.state.set(State::Asked);
                let hooks = of_sidecar(config).map(|hook| hook.name.clone()).collect();
                let sent = hostcalls::dispatch_grpc_call(
                    &config.sidecar.grpc_service,
                    SERVICE,
                    METHOD,
                    vec![(CONTRACT_METADATA, CONTRACT.as_bytes())],
                    Some(&SecretsRequest { hooks }.encode_to_vec()),
                    config.sidecar.timeout,
                );
                if sent.is_err() {
                    self.wait(config);
                }
            }
        }
    }

    pub(super) fn answered(&self, config: &Config, grpc_status: u32, message: Option<&[u8]>) {
        if grpc_status == 0 {
            let reply = SecretsReply::decode(message.unwrap_or_default()).unwrap_or_default();
            for told in &reply.hooks {
                if let Some(hook) = of_sidecar(config).find(|hook| hook.name == told.hook) {
                    hook.renew_secrets(&told.secrets);
                }
            }
        }
        self.wait(config);
    }

    fn wait(&self, config: &Config) {
        let without: Vec<&str> =
            of_sidecar(config).filter(|hook| hook.secrets() == 0).map(Hook::label).collect();
        let again = if without.is_empty() { RENEW_AFTER } else { ASK_AGAIN_AFTER };
        self.state.set(State::AskIn(again));
        let complained = self.complained.replace(!without.is_empty());
        if !complained && !without.is_empty() {
            log(
                LogLevel::Warn,
                &format!(
                    "the sidecar does not answer or has no secret of {}: their deliveries are \
                     answered 503; does its configuration have [[webhooks]] of these names?",
                    without.join(", ")
                ),
            );
        }
    }
}

fn of_sidecar(config: &Config) -> impl Iterator<Item = &Hook> {
    config.hooks.iter().filter(|hook| hook.secrets_from_sidecar)
}
