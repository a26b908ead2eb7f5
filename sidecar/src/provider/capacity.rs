//! What the one machine of a provider has.

use crate::config::Reserves;
use edgerunner_scheduler::plan::{Disk, Machine};

/// `None` stands for what is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub memory_mib: Option<u64>,
    pub cpus: Option<u64>,
    /// Of the disk that containers are on.
    pub free_disk_mib: Option<u64>,
}

impl Capacity {
    /// What is left for runners.
    pub(crate) fn for_runners(self, reserves: &Reserves) -> Machine {
        let Reserves { memory_mib, cpus, disk_mib } = *reserves;
        let cpu_millis = self.cpus.map(|cpus| cpus.saturating_mul(1_000));
        let reserved_millis = cpus.map(|cpus| (cpus * 1_000.0) as u64);
        let left = |all: Option<u64>, reserved: Option<u64>| {
            all.zip(reserved).map(|(all, reserved)| all.saturating_sub(reserved))
        };
        Machine {
            memory_mib: left(self.memory_mib, memory_mib),
            cpu_millis: left(cpu_millis, reserved_millis),
            disk: self.free_disk_mib.map(|free_mib| Disk { free_mib, reserve_mib: disk_mib }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runners_have_what_is_known_and_not_reserved() {
        let capacity =
            Capacity { memory_mib: Some(8_000), cpus: Some(4), free_disk_mib: Some(5_000) };
        let machine = |memory_mib, cpus| {
            capacity.for_runners(&Reserves { memory_mib, cpus, disk_mib: 1_024 })
        };
        let disk = Some(Disk { free_mib: 5_000, reserve_mib: 1_024 });
        let nothing = Machine { memory_mib: None, cpu_millis: None, disk };
        assert_eq!(machine(None, None), nothing);
        let some = Machine { memory_mib: Some(7_000), cpu_millis: Some(3_500), disk };
        assert_eq!(machine(Some(1_000), Some(0.5)), some);
        // The reserve is larger than the machine.
        let none = Machine { memory_mib: Some(0), cpu_millis: Some(0), disk };
        assert_eq!(machine(Some(9_000), Some(4.5)), none);
        let reserves = Reserves { memory_mib: Some(1), cpus: Some(1.0), disk_mib: 1 };
        assert_eq!(Capacity::default().for_runners(&reserves), Machine::default());
    }
}
