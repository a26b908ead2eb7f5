//! Addresses of this machine that stand for public ones.

use std::net::Ipv4Addr;

use anyhow::Result;
use bollard::Docker;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};

/// Nobody announces these addresses on the Internet.
pub(crate) const SUBNET: &str = "11.0.0.0/8";

/// A Docker network whose addresses are not private ones.
pub struct Internet {
    docker: Docker,
    network: String,
    /// That of this machine.
    pub address: Ipv4Addr,
}

impl Internet {
    /// `network`: its name. One that a run has left which was killed is removed.
    pub async fn start(docker: Docker, network: &str) -> Result<Self> {
        let _ = docker.remove_network(network).await;
        let [second, third, ..] = *uuid::Uuid::new_v4().as_bytes();
        let address = Ipv4Addr::new(11, second, third, 1);
        let config = IpamConfig {
            subnet: Some(format!("11.{second}.{third}.0/24")),
            gateway: Some(address.to_string()),
            ..IpamConfig::default()
        };
        let request = NetworkCreateRequest {
            name: network.to_owned(),
            ipam: Some(Ipam { config: Some(vec![config]), ..Ipam::default() }),
            ..NetworkCreateRequest::default()
        };
        docker.create_network(request).await?;
        Ok(Self { docker, network: network.to_owned(), address })
    }

    /// Nothing may use it any more.
    pub async fn end(self) -> Result<()> {
        Ok(self.docker.remove_network(&self.network).await?)
    }
}
