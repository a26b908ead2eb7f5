//! Free ports on the loopback interface, and the ports that the programs use by default.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};

/// Below the ephemeral range: a port must still be free when a process that was killed
/// comes back to it.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// The ports of one deployment.
#[derive(Clone, Copy)]
pub struct Ports {
    pub envoy: u16,
    pub envoy_admin: u16,
    pub grpc: u16,
    pub http: u16,
    pub sandbox: u16,
}

/// The ports in `envoy/envoy.yaml` and in the sidecar's defaults.
pub const STANDARD: Ports =
    Ports { envoy: 8080, envoy_admin: 9901, grpc: 50051, http: 8081, sandbox: 8082 };

/// The same with the port of `envoy/production.yaml`.
pub const STANDARD_TLS: Ports = Ports { envoy: 8443, ..STANDARD };

impl Ports {
    pub fn free() -> Result<Self> {
        let port = || anyhow::Ok(free()?.port());
        Ok(Self {
            envoy: port()?,
            envoy_admin: port()?,
            grpc: port()?,
            http: port()?,
            sandbox: port()?,
        })
    }

    /// Fails if one of them is taken.
    pub fn check(&self, sandbox: bool) -> Result<()> {
        let mut wanted = vec![
            (self.envoy, "Envoy"),
            (self.envoy_admin, "Envoy's admin page"),
            (self.grpc, "the sidecar's gRPC"),
            (self.http, "the sidecar's status page"),
        ];
        if sandbox {
            wanted.push((self.sandbox, "the sandbox"));
        }
        let taken: Vec<String> = wanted
            .into_iter()
            .filter(|(port, _)| TcpListener::bind(local(*port)).is_err())
            .map(|(port, user)| format!("port {port}, needed by {user}, is already in use"))
            .collect();
        if !taken.is_empty() {
            bail!(
                "{}; stop the program that uses it (`ss -ltnp` shows it), or use --free-ports",
                taken.join("; ")
            );
        }
        Ok(())
    }
}

/// An address on the loopback interface that nobody listens on. No two calls in this
/// process return the same.
pub fn free() -> Result<SocketAddr> {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let count = LAST - FIRST;
    // Another process that runs at the same time starts elsewhere.
    let next = NEXT.get_or_init(|| {
        AtomicU16::new(u16::try_from(std::process::id() * 64 % u32::from(count)).unwrap_or(0))
    });
    (0..count)
        .map(|_| FIRST + next.fetch_add(1, Ordering::Relaxed) % count)
        .map(local)
        .find(|address| TcpListener::bind(address).is_ok())
        .with_context(|| format!("no port from {FIRST} to {LAST} is free"))
}

pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
