//! What runners leave to everything else on the machine of the Docker Engine.

use super::document::Document;

/// Below it, hardly any image can be pulled.
const DISK_MIB: u64 = 1_024;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reserves {
    /// `None`: launches do not depend on the machine's memory.
    pub memory_mib: Option<u64>,
    /// `None`: launches do not depend on the machine's CPUs.
    pub cpus: Option<f64>,
    pub disk_mib: u64,
}

impl Document {
    pub(super) fn read_reserves(&mut self) -> Reserves {
        let disk_mib: Option<u64> = self.read("/docker/reserve_disk_mib");
        Reserves {
            memory_mib: self.read("/docker/reserve_memory_mib"),
            cpus: self.read("/docker/reserve_cpus"),
            disk_mib: disk_mib.unwrap_or(DISK_MIB),
        }
    }
}
