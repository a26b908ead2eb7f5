//! The addresses everything listens on, all on the loopback interface.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result, bail};

#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) envoy: u16,
    pub(crate) envoy_admin: u16,
    pub(crate) grpc: u16,
    pub(crate) http: u16,
    pub(crate) sandbox: u16,
}

/// The ones that `envoy/envoy.yaml` and the sidecar's defaults name.
pub(crate) const STANDARD: Ports =
    Ports { envoy: 8080, envoy_admin: 9901, grpc: 50051, http: 8081, sandbox: 8082 };

/// The same with the port of `envoy/production.yaml`.
pub(crate) const STANDARD_TLS: Ports = Ports { envoy: 8443, ..STANDARD };

const FREE_FIRST: u16 = 20_000;
const FREE_COUNT: u16 = 10_000;
const FREE_ATTEMPTS: u32 = 100;

impl Ports {
    /// Ports that nobody listens on, for runs beside which others may go on.
    /// To be asked for at the moment of use.
    pub(crate) fn free() -> Result<Self> {
        // All are held until all are known, or one could come twice.
        let mut held = Vec::new();
        let mut free = || {
            let listener = (0..FREE_ATTEMPTS)
                .find_map(|_| TcpListener::bind(local(random_port())).ok())
                .context("cannot find a free port")?;
            let port = listener.local_addr()?.port();
            held.push(listener);
            anyhow::Ok(port)
        };
        Ok(Self {
            envoy: free()?,
            envoy_admin: free()?,
            grpc: free()?,
            http: free()?,
            sandbox: free()?,
        })
    }

    /// To be asked before minutes go into a build.
    pub(crate) fn check(&self, sandbox: bool) -> Result<()> {
        let mut wanted = vec![
            (self.envoy, "Envoy"),
            (self.envoy_admin, "Envoy's admin page"),
            (self.grpc, "the sidecar's gRPC"),
            (self.http, "the sidecar's status page"),
        ];
        if sandbox {
            wanted.push((self.sandbox, "the sandbox GitHub"));
        }
        let taken: Vec<String> = wanted
            .into_iter()
            .filter(|(port, _)| TcpListener::bind(local(*port)).is_err())
            .map(|(port, user)| format!("port {port}, needed by {user}, is taken"))
            .collect();
        if !taken.is_empty() {
            bail!(
                "{}; end what listens there (`ss -ltnp` shows it), or use --free-ports",
                taken.join("; ")
            );
        }
        Ok(())
    }
}

/// Below the range from which systems take the ports of outgoing connections:
/// one of those could otherwise take ours before it is bound.
fn random_port() -> u16 {
    let [high, low, ..] = *uuid::Uuid::new_v4().as_bytes();
    FREE_FIRST + u16::from_be_bytes([high, low]) % FREE_COUNT
}

pub(crate) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
