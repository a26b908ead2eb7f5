//! Envoys of one worker each: with the filter, and without it for comparison.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::envoy_config::{self, Bodies};
use crate::ports::{Ports, local};
use crate::process::Process;
use crate::programs::{self, Programs, Secrets};
use crate::stack::Stack;
use crate::stop::Stop;

use super::contest::Side;
use super::delivery::Kind;
use super::load::Expected;

/// What the filter answers to a wrong signature, with which the others answer
/// everything.
const ANSWER: &str = "{\"outcome\":\"rejected\",\"reason\":\"x-hub-signature-256 does not match any secret of this webhook\"}";

#[derive(Clone, Copy)]
pub(super) enum Envoy {
    /// With the filter.
    Filter,
    /// Answers at the headers.
    Plain,
    /// Answers once it has the whole body in its buffer.
    Buffering,
}

impl Envoy {
    fn name(self) -> &'static str {
        match self {
            Self::Filter => "envoy-filter",
            Self::Plain => "envoy-plain",
            Self::Buffering => "envoy-buffering",
        }
    }
}

pub(super) struct OneWorker {
    filter: SocketAddr,
    plain: SocketAddr,
    buffering: SocketAddr,
}

impl OneWorker {
    pub(super) async fn start(
        stop: &Stop,
        stack: &mut Stack,
        programs: &Programs,
        secrets: &Secrets,
    ) -> Result<Self> {
        let mut addresses = Vec::new();
        for envoy in [Envoy::Filter, Envoy::Plain, Envoy::Buffering] {
            let ports = Ports { grpc: stack.ports().grpc, ..Ports::free()? };
            let directory = stack.directory().join(envoy.name());
            let plain = |bodies| envoy_config::write_plain(&directory, &ports, bodies, ANSWER);
            let configuration = match envoy {
                Envoy::Filter => envoy_config::write(&directory, &programs.module, &ports),
                Envoy::Plain => plain(Bodies::Unread),
                Envoy::Buffering => plain(Bodies::Read),
            }?;
            let mut command = programs::envoy_configured_by(&configuration, programs, 1);
            command.env("GITHUB_WEBHOOK_SECRET", secrets.webhook());
            stack.start(stop, envoy.name(), command, (local(ports.envoy_admin), "/ready")).await?;
            addresses.push(local(ports.envoy));
        }
        let [filter, plain, buffering] = addresses[..] else {
            anyhow::bail!("an Envoy is missing");
        };
        Ok(Self { filter, plain, buffering })
    }

    pub(super) fn filter(&self) -> SocketAddr {
        self.filter
    }

    /// `envoy` answering requests of `kind`.
    pub(super) fn side<'a>(
        &self,
        stack: &'a Stack,
        envoy: Envoy,
        kind: Kind,
        name: &str,
    ) -> Result<Side<'a>> {
        let address = match envoy {
            Envoy::Filter => self.filter,
            Envoy::Plain => self.plain,
            Envoy::Buffering => self.buffering,
        };
        let expected = match (envoy, kind) {
            (Envoy::Filter, Kind::Queued) => Expected::ACCEPTED,
            (Envoy::Filter, Kind::Ignored) => Expected(202, "ignored"),
            _ => Expected(401, "rejected"),
        };
        Ok(Side {
            name: name.to_owned(),
            address,
            processes: vec![process(stack, envoy)?],
            kind,
            expected,
        })
    }
}

pub(super) fn process(stack: &Stack, envoy: Envoy) -> Result<&Process> {
    stack.process(envoy.name()).with_context(|| format!("no {}", envoy.name()))
}
