//! Devices of the host, such as GPUs, of which each runner has some for itself from its launch
//! until its container does not run any more.

use std::collections::BTreeMap;

use super::{Phase, State, Waiting, launch::Capacity};

/// The devices of each runner that has any. Adopted runners may have some that are not in
/// [`super::Settings::devices`], or that another one has as well.
#[derive(Debug, Default)]
pub(super) struct HeldDevices(BTreeMap<String, Vec<String>>);

impl HeldDevices {
    pub(super) fn hold(&mut self, runner: &str, devices: Vec<String>) {
        if !devices.is_empty() {
            self.0.insert(runner.to_owned(), devices);
        }
    }

    pub(super) fn release(&mut self, runner: &str) {
        self.0.remove(runner);
    }
}

impl State {
    /// The devices for a new runner of a pool, which are its own from now on.
    pub(super) fn take_devices(&mut self, pool: usize, runner: &str) -> Vec<String> {
        let wanted = self.pool(pool).devices;
        let free = self.free_devices().take(wanted).cloned();
        let devices: Vec<String> = free.collect();
        self.devices.hold(runner, devices.clone());
        devices
    }

    fn free_devices(&self) -> impl Iterator<Item = &String> {
        let in_use: Vec<&String> = self.holders(Phase::may_run).flatten().collect();
        self.settings.devices.iter().filter(move |device| !in_use.contains(device))
    }

    /// The devices of each runner in such a phase.
    fn holders(&self, phase: fn(&Phase) -> bool) -> impl Iterator<Item = &Vec<String>> {
        let is_in = move |name: &str| self.runners.get(name).is_some_and(|it| phase(&it.phase));
        self.devices.0.iter().filter(move |(name, _)| is_in(name)).map(|(_, devices)| devices)
    }

    /// How many devices of the host can be given to runners that are launched now.
    pub(super) fn available_devices(&self, capacity: Capacity) -> usize {
        if self.settings.devices.is_empty() {
            return 0;
        }
        let free = self.free_devices().count();
        match capacity {
            Capacity::Free => free,
            Capacity::Reclaimable => {
                let pools = self.settings.pools.iter().zip(&self.pool_counts);
                let preemptible: usize =
                    pools.map(|(pool, counts)| pool.devices * counts.preemptible).sum();
                let all = free + self.devices_being_released() + preemptible;
                all.min(self.settings.devices.len())
            }
        }
    }

    fn devices_being_released(&self) -> usize {
        let removing = |phase: &Phase| matches!(phase, Phase::Removing(_)) && phase.may_run();
        self.holders(removing).map(Vec::len).sum()
    }

    /// How many runners of a pool get their devices from so many.
    pub(super) fn device_room(&self, pool: usize, available: usize) -> usize {
        available.checked_div(self.pool(pool).devices).unwrap_or(usize::MAX)
    }

    /// Why no runner of a pool is launched, if the host's devices are used up.
    pub(super) fn devices_used_up(&self, pool: usize) -> Option<Waiting> {
        let (needed, free) = (self.pool(pool).devices, self.available_devices(Capacity::Free));
        let total = self.settings.devices.len();
        (free < needed).then_some(Waiting::HostDevices { needed, free, total })
    }

    /// Adds to `lacking_in`, the number of runners to preempt in each pool, those whose devices are
    /// needed for `wanted` new runners of each pool.
    pub(super) fn preempt_for_devices(&self, wanted: &[usize], lacking_in: &mut [usize]) {
        let needed_by = |counts: &[usize]| -> usize {
            let pools = self.settings.pools.iter().zip(counts);
            pools.map(|(pool, count)| pool.devices * count).sum()
        };
        let coming = self.available_devices(Capacity::Free)
            + self.devices_being_released()
            + needed_by(lacking_in);
        let mut lacking = needed_by(wanted).saturating_sub(coming);
        for pool in self.pools_by_priority.iter().rev().flatten() {
            let each = self.pool(*pool).devices;
            if lacking == 0 || each == 0 {
                continue;
            }
            let left = self.pool_counts[*pool].preemptible.saturating_sub(lacking_in[*pool]);
            let more = lacking.div_ceil(each).min(left);
            lacking_in[*pool] += more;
            lacking = lacking.saturating_sub(more * each);
        }
    }
}
