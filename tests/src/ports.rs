use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

/// Below the range from which the system takes ports for connections: a port
/// must still be free when a process that was killed comes back to it.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// An address on the loopback interface that nobody listens on, and that no
/// other test of this process is given.
pub fn free() -> Result<SocketAddr> {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let count = LAST - FIRST;
    // Another test run at the same time begins elsewhere.
    let next = NEXT.get_or_init(|| {
        AtomicU16::new(u16::try_from(std::process::id() * 64 % u32::from(count)).unwrap_or(0))
    });
    (0..count)
        .map(|_| FIRST + next.fetch_add(1, Ordering::Relaxed) % count)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .with_context(|| format!("no port from {FIRST} to {LAST} is free"))
}
