//! Which product and version an Engine is, where it keeps its data, and which limits it can set.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::{CALL_LIMIT, Docker, error, from_bollard, within};
use crate::{
    disk,
    provider::{
        Capacity,
        error::{Error, ErrorKind},
    },
};

/// Of Docker Engine 20.10; Podman has it since 4.0.
const API_VERSION_MIN: (u32, u32) = (1, 41);
/// Nothing waits longer for what the machine has.
const CAPACITY_LIMIT: Duration = Duration::from_secs(10);
pub(super) const DISK_LIMIT: Duration = Duration::from_secs(2);

/// Podman's own API, of the oldest version that is tested.
const PODMAN_INFO: &str = "/v4.3.0/libpod/info";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    Docker,
    Podman,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineVersion {
    pub product: Product,
    pub version: String,
}

/// What Podman can do on its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodmanInfo {
    pub rootless: bool,
    /// Of control groups, such as `cpu`, `memory` and `pids`.
    pub controllers: Vec<String>,
    pub log_drivers: Vec<String>,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker Engine",
            Self::Podman => "Podman",
        })
    }
}

impl fmt::Display for EngineVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.product, self.version)
    }
}

impl Docker {
    /// An error if it is too old.
    pub(crate) async fn version(&self) -> Result<EngineVersion, Error> {
        let call = "get the version";
        let response = self.bollard.version().await.map_err(|error| from_bollard(call, &error))?;
        let components = response.components.unwrap_or_default();
        let is_podman = components.iter().any(|component| component.name.starts_with("Podman"));
        let (product, oldest) =
            if is_podman { (Product::Podman, "4.3") } else { (Product::Docker, "20.10") };
        let version = EngineVersion { product, version: response.version.unwrap_or_default() };
        let api = response.api_version.unwrap_or_default();
        match api_version(&api) {
            Some(api) if api >= API_VERSION_MIN => Ok(version),
            _ => {
                let what =
                    format_args!("{version} (API {api}) is too old: {oldest} or newer is required");
                Err(error(ErrorKind::Refused, call, what))
            }
        }
    }

    /// Where the Engine keeps images and containers, on its own machine; empty if it does not say.
    pub(crate) async fn directory(&self) -> Result<PathBuf, Error> {
        Ok(directory(&self.info().await?))
    }

    /// The disk is known if the data directory is on this machine, or mounted into this container.
    pub(crate) async fn capacity(&self) -> Result<Capacity, Error> {
        let info = self.info().await?;
        // Zero is what an Engine answers that does not know.
        let number = |name: &str| info[name].as_u64().filter(|number| *number > 0);
        Ok(Capacity {
            memory_mib: number("MemTotal").map(|bytes| bytes >> 20),
            cpus: number("NCPU"),
            free_disk_mib: self.free_disk_mib(directory(&info)).await,
        })
    }

    async fn free_disk_mib(&self, directory: PathBuf) -> Option<u64> {
        if !self.is_here || directory == Path::new("") {
            return None;
        }
        let measure = move || disk::free_mib(&directory).ok();
        self.disk.run(DISK_LIMIT, measure).await.flatten()
    }

    pub(super) async fn info(&self) -> Result<Value, Error> {
        let call = "get information about the machine";
        let info = self.connection.get("/info", &[]);
        within(CAPACITY_LIMIT, call, async {
            info.await.map_err(|error| from_bollard(call, &error))
        })
        .await
    }

    pub(crate) async fn podman_info(&self) -> Result<PodmanInfo, Error> {
        let call = "get Podman's limits";
        let info = within(CALL_LIMIT, call, async {
            let info = self.connection.get(PODMAN_INFO, &[]).await;
            info.map_err(|error| from_bollard(call, &error))
        });
        let info = info.await?;
        let texts = |list: &Value| {
            let texts = list.as_array().into_iter().flatten();
            texts.filter_map(|it| it.as_str().map(str::to_owned)).collect()
        };
        Ok(PodmanInfo {
            rootless: info["host"]["security"]["rootless"] == true,
            controllers: texts(&info["host"]["cgroupControllers"]),
            log_drivers: texts(&info["plugins"]["log"]),
        })
    }
}

pub(super) fn directory(info: &Value) -> PathBuf {
    info["DockerRootDir"].as_str().unwrap_or_default().into()
}

fn api_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
