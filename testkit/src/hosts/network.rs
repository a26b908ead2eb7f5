//! The networks of the hosts: one between them, and one to this machine.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use uuid::Uuid;

use super::Host;
use crate::internet;

/// Subnets to try, until there is one that this machine does not use.
const TRIES: usize = 20;
/// The bridges; each also names the interfaces of hosts.
const INSIDE: &str = "inside";
const OUTSIDE: &str = "outside";
/// The last byte of this machine's address. Hosts add their number to it.
const GATEWAY: u8 = 129;

/// The bridges are in a namespace of their own: this machine's packet filter then applies to
/// nothing that hosts send each other, and the kernel removes all interfaces when the namespace
/// ends.
pub(crate) struct Network {
    switch: Host,
    /// The first three bytes of all addresses.
    prefix: [u8; 3],
}

impl Network {
    /// `id` is unique on this machine, and has at most 12 bytes.
    pub(crate) async fn new(id: &str, init: &Path) -> Result<Self> {
        let network = Self { switch: Host::start("switch", init)?, prefix: unused_prefix().await? };
        for bridge in [INSIDE, OUTSIDE] {
            network.on_switch(&format!("link add {bridge} type bridge")).await?;
            network.on_switch(&format!("link set {bridge} up")).await?;
        }
        let (interface, gateway) = (format!("er-{id}"), network.gateway());
        let switch = network.switch.id();
        let here = || Command::new("ip");
        ip(here(), &format!("link add {interface} type veth peer name machine netns {switch}"))
            .await?;
        ip(here(), &format!("address add {gateway}/25 dev {interface}")).await?;
        ip(here(), &format!("link set {interface} up")).await?;
        network.on_switch(&format!("link set machine master {OUTSIDE} up")).await?;
        Ok(network)
    }

    /// The address at which hosts reach this machine.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.address(GATEWAY)
    }

    /// The address with this last byte. That of a host, for other hosts, ends with its number,
    /// from 1.
    pub(crate) fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, last)
    }

    /// The address of a host for this machine.
    pub(crate) fn outside_address(&self, number: u8) -> Ipv4Addr {
        self.address(GATEWAY + number)
    }

    /// Both networks, as `NETWORK/LENGTH`.
    pub(crate) fn subnet(&self) -> String {
        format!("{}/24", self.address(0))
    }

    /// Gives the host an interface in each network. There is no default route, so nothing leaves
    /// this machine. What stands for the Internet in tests is on this machine.
    pub(crate) async fn attach(&self, host: &Host, number: u8) -> Result<()> {
        for (bridge, last) in [(INSIDE, number), (OUTSIDE, GATEWAY + number)] {
            let (id, port, address) = (host.id(), port(bridge, number), self.address(last));
            self.on_switch(&format!("link add {port} type veth peer name {bridge} netns {id}"))
                .await?;
            let on_host = || host.command_in_network("ip");
            ip(on_host(), &format!("address add {address}/25 dev {bridge}")).await?;
            ip(on_host(), &format!("link set {bridge} up")).await?;
            self.on_switch(&format!("link set {port} master {bridge} up")).await?;
        }
        let route = format!("route add {} via {}", internet::SUBNET, self.gateway());
        ip(host.command_in_network("ip"), &route).await?;
        Ok(())
    }

    /// Cuts the host off from all others, or connects it again.
    pub(crate) async fn set_reachable(&self, number: u8, reachable: bool) -> Result<()> {
        let (port, state) = (port(INSIDE, number), if reachable { "up" } else { "down" });
        self.on_switch(&format!("link set {port} {state}")).await
    }

    async fn on_switch(&self, arguments: &str) -> Result<()> {
        ip(self.switch.command_in_network("ip"), arguments).await?;
        Ok(())
    }
}

/// The name of the bridge's end of a host's interface.
fn port(bridge: &str, number: u8) -> String {
    format!("{bridge}-{number}")
}

/// Runs `ip`, and returns its standard output.
async fn ip(mut command: Command, arguments: &str) -> Result<String> {
    let output = command.args(arguments.split(' ')).output().await;
    let output = output.context("cannot run `ip`, which is in the package iproute2")?;
    ensure!(
        output.status.success(),
        "`ip {arguments}` failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The first three bytes of a subnet to which this machine has no route but the default one.
/// Swarm uses the beginning of 10.0.0.0/8 itself.
async fn unused_prefix() -> Result<[u8; 3]> {
    for _ in 0..TRIES {
        let [random, third, ..] = *Uuid::new_v4().as_bytes();
        let second = 0x80 | random;
        let routes = format!("-4 route show match 10.{second}.{third}.0/24");
        let routes = ip(Command::new("ip"), &routes).await?;
        if routes.lines().all(|route| route.starts_with("default ")) {
            return Ok([10, second, third]);
        }
    }
    bail!("this machine has routes to each of {TRIES} subnets of 10.128.0.0/9")
}
