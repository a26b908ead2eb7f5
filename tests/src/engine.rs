//! A second Docker Engine, which a test can stop and start.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bollard::models::{IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::InspectNetworkOptions;
use edgerunner_testkit::programs::RUNNER_IMAGE;
use edgerunner_testkit::{Process, eventually_within, images, runtime};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::loop_disk::LoopDisk;
use crate::tools::dind_image;

/// It starts its own containerd first.
const START_LIMIT: Duration = Duration::from_secs(60);
/// It gives containers ten seconds.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Each runner with its own Engine has a network. Docker's own pools, which all Engines of the
/// machine share, have room for about 30. An Engine that has pools of its own removes `docker0` when
/// it is started a second time.
const MANY_NETWORKS: [&str; 2] = ["--default-address-pool", "base=10.213.0.0/16,size=26"];

pub struct Engine {
    /// Of its data; unmounted before the directory is removed.
    disk: Option<LoopDisk>,
    directory: TempDir,
    daemon: Option<Process>,
    bridge: Bridge,
    /// It is started once.
    is_shared: bool,
}

/// The Engine's default network. The machine's Engine creates it: with `docker0`, or with
/// none, the second Engine would take over the first one's.
struct Bridge {
    network: String,
    interface: String,
    gateway: IpAddr,
}

impl Engine {
    /// With the image of the sandbox's runner.
    pub async fn new() -> Result<Self> {
        Self::with(&[], false, None).await
    }

    /// With its data on a disk of this size.
    pub async fn with_disk(mib: u64) -> Result<Self> {
        Self::with(&[], false, Some(mib)).await
    }

    /// With these images as well, all copied from the machine's Engine.
    async fn with(further: &[&str], is_shared: bool, disk_mib: Option<u64>) -> Result<Self> {
        let directory = TempDir::new()?;
        let disk = match disk_mib {
            Some(mib) => {
                let (file, data) = (directory.path().join("disk"), directory.path().join("data"));
                Some(LoopDisk::mount(&file, data, mib).await?)
            }
            None => None,
        };
        let bridge = Bridge::new().await?;
        let mut engine = Self { disk, directory, daemon: None, bridge, is_shared };
        engine.start().await?;
        let names: Vec<&str> = further.iter().copied().chain([RUNNER_IMAGE]).collect();
        images::load(&engine.client()?, &names, images::export(&names).await?).await?;
        Ok(engine)
    }

    /// An Engine whose runners can have their own Engines. Tests that run at the same time
    /// share it; it ends with the last of them.
    pub async fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Engine>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(engine) = shared.upgrade() {
            return Ok(engine);
        }
        let engine = Arc::new(Self::with(&[&dind_image()?], true, None).await?);
        *shared = Arc::downgrade(&engine);
        Ok(engine)
    }

    /// That of its data, for an Engine made by [`Self::with_disk`].
    pub fn disk(&self) -> &LoopDisk {
        self.disk.as_ref().expect("Engine::with_disk")
    }

    /// The address at which containers reach this machine.
    pub fn gateway(&self) -> IpAddr {
        self.bridge.gateway
    }

    /// The value for `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// Starts it and waits until it answers.
    pub async fn start(&mut self) -> Result<()> {
        let mut dockerd = Command::new("dockerd");
        dockerd
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("docker.pid"))
            .args(["--host", &self.host()])
            .args(["--bridge", &self.bridge.interface])
            // The other Engine's rules must not change.
            .args(["--iptables=false", "--ip-forward=false", "--ip-masq=false"]);
        if self.is_shared {
            dockerd.args(MANY_NETWORKS);
        }
        if let Some(wrapper) = runtime::wrapper(self.directory.path())? {
            dockerd
                .arg(format!("--add-runtime=unlimited={}", wrapper.display()))
                .arg("--default-runtime=unlimited");
        }
        self.daemon = Some(Process::start("dockerd", dockerd, &self.log())?);
        eventually_within(START_LIMIT, "dockerd answers", async || {
            self.client()?.ping().await?;
            Ok(Some(()))
        })
        .await
        .with_context(|| std::fs::read_to_string(self.log()).unwrap_or_default())
    }

    /// Stops it and its containers.
    pub async fn stop(&mut self) -> Result<()> {
        let daemon = self.daemon.take().context("dockerd is not running")?;
        daemon.end(Signal::TERM).await?;
        Ok(())
    }

    pub fn client(&self) -> Result<bollard::Docker> {
        Ok(bollard::Docker::connect_with_host(&self.host())?)
    }

    fn log(&self) -> PathBuf {
        self.path("dockerd.log")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Engine {
    /// SIGKILL would leave mounts and its containerd behind.
    #[expect(clippy::disallowed_methods, reason = "a destructor cannot await")]
    fn drop(&mut self) {
        if let Some(daemon) = &self.daemon
            && daemon.signal(Signal::TERM).is_ok()
        {
            let deadline = Instant::now() + STOP_LIMIT;
            while self.path("docker.pid").exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        // dockerd leaves this mount behind once a container has run.
        let _ = unmount(self.path("exec/netns/default"), UnmountFlags::DETACH);
        self.bridge.remove();
    }
}

impl Bridge {
    async fn new() -> Result<Self> {
        let id = &uuid::Uuid::new_v4().simple().to_string()[..8];
        let (network, interface) = (format!("edgerunner-tests-{id}"), format!("er-{id}"));
        let docker = bollard::Docker::connect_with_defaults()?;
        let request = NetworkCreateRequest {
            name: network.clone(),
            options: Some(
                [("com.docker.network.bridge.name".to_owned(), interface.clone())].into(),
            ),
            ..Default::default()
        };
        docker.create_network(request).await?;
        let gateway = gateway(&docker, &network).await?;
        Ok(Self { network, interface, gateway })
    }

    /// On another thread, since a destructor cannot await.
    fn remove(&self) {
        let network = self.network.clone();
        let removed = std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let docker = bollard::Docker::connect_with_defaults()?;
            Ok(runtime.block_on(docker.remove_network(&network))?)
        })
        .join();
        if !matches!(removed, Ok(Ok(()))) {
            eprintln!("cannot remove the network {}: {removed:?}", self.network);
        }
    }
}

/// The address at which a network's containers reach this machine.
pub async fn gateway(docker: &bollard::Docker, network: &str) -> Result<IpAddr> {
    let made = docker.inspect_network(network, None::<InspectNetworkOptions>).await?;
    let configured = made.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    own_address(&configured).with_context(|| format!("the network {network}: {configured:?}"))
}

/// The machine's own address in a network. The network's settings may not name it: an Engine that
/// found its bridge at its start leaves the gateway out, and the bridge may have changed since.
fn own_address(configured: &[IpamConfig]) -> Result<IpAddr> {
    let named = configured.iter().filter_map(|config| config.gateway.as_deref()?.parse().ok());
    let is_own = |address: &IpAddr| UdpSocket::bind((*address, 0)).is_ok();
    let in_subnets =
        configured.iter().filter_map(|config| own_address_in(config.subnet.as_deref()?).ok());
    named.filter(is_own).chain(in_subnets).next().context("this machine has no address in it")
}

/// The address that this machine sends from to others in the subnet, such as `172.17.0.0/16`.
fn own_address_in(subnet: &str) -> Result<IpAddr> {
    let (network, _) = subnet.split_once('/').context("a subnet without a length")?;
    let network: Ipv4Addr = network.parse()?;
    let other = Ipv4Addr::from_bits(network.to_bits() + 254);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Sends nothing.
    socket.connect((other, 9))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_of_a_network_is_an_address_of_this_machine() {
        let network = |gateway: Option<&str>, subnet: Option<&str>| {
            let (gateway, subnet) = (gateway.map(str::to_owned), subnet.map(str::to_owned));
            own_address(&[IpamConfig { gateway, subnet, ..IpamConfig::default() }])
        };
        let subnet = Some("127.0.0.0/8");
        assert_eq!(network(Some("127.0.0.3"), subnet).unwrap(), Ipv4Addr::new(127, 0, 0, 3));
        // Left out, empty, or no longer this machine's.
        for gateway in [None, Some(""), Some("192.0.2.1")] {
            assert_eq!(network(gateway, subnet).unwrap(), Ipv4Addr::LOCALHOST);
        }
        assert!(network(None, None).is_err());
    }

    #[test]
    fn the_machine_knows_its_own_address_in_a_subnet() {
        assert_eq!(own_address_in("127.0.0.0/8").unwrap(), Ipv4Addr::LOCALHOST);
        assert!(own_address_in("127.0.0.0").is_err());
    }
}
