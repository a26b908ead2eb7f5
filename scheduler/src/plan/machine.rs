//! What the one machine of a provider has for runners: memory, CPUs and free disk space.
//!
//! Nothing here measures what runners use. Each one holds what its pool promises it, from its
//! launch until its container does not run any more, so that all of them can use it at once.

use super::{LaneKey, Phase, State, Waiting, launch::Capacity};

/// Memory and CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub memory_mib: u64,
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
}

/// What a machine has for runners, without the reserve for everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// `None`: launches do not depend on it.
    pub memory_mib: Option<u64>,
    /// Thousandths of a CPU. `None`: launches do not depend on them.
    pub cpu_millis: Option<u64>,
    /// `None`: it is unknown, or launches do not depend on it.
    pub disk: Option<Disk>,
}

/// The disk that the containers of runners are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    pub free_mib: u64,
    /// Nothing is launched while less than this is free.
    pub reserve_mib: u64,
}

impl Disk {
    pub fn is_short(self) -> bool {
        self.free_mib < self.reserve_mib
    }
}

/// What the runners of a provider hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) all: Resources,
    /// The part of those that are being removed.
    pub(super) removing: Resources,
}

impl Resources {
    const UNLIMITED: Self = Self { memory_mib: u64::MAX, cpu_millis: u64::MAX };

    pub fn times(self, count: usize) -> Self {
        let times = |each: u64| each.saturating_mul(count as u64);
        Self { memory_mib: times(self.memory_mib), cpu_millis: times(self.cpu_millis) }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
        }
    }

    /// Nothing where there would be less.
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
        }
    }

    /// How many that need `each` find room in this.
    pub fn room_for(self, each: Self) -> usize {
        let by_memory = self.memory_mib.checked_div(each.memory_mib).unwrap_or(u64::MAX);
        let by_cpus = self.cpu_millis.checked_div(each.cpu_millis).unwrap_or(u64::MAX);
        usize::try_from(by_memory.min(by_cpus)).unwrap_or(usize::MAX)
    }

    /// How many that have `each` make room for this, if they can.
    fn needed_of(self, each: Self) -> usize {
        let of = |lacking: u64, each: u64| if each == 0 { 0 } else { lacking.div_ceil(each) };
        let count = of(self.memory_mib, each.memory_mib).max(of(self.cpu_millis, each.cpu_millis));
        usize::try_from(count).unwrap_or(usize::MAX)
    }
}

impl Machine {
    /// For runners, if there are none yet.
    pub fn total(self) -> Resources {
        Resources {
            memory_mib: self.memory_mib.unwrap_or(u64::MAX),
            cpu_millis: self.cpu_millis.unwrap_or(u64::MAX),
        }
    }
}

impl State {
    /// What a provider's machine has; without any limit if it is not known.
    pub fn machine(&self, provider: usize) -> Machine {
        self.machines[provider]
    }

    /// What the runners of a provider may use together.
    pub fn promised(&self, provider: usize) -> Resources {
        self.held[provider].all
    }

    /// What a runner of a lane may use, as far as is known of one that an earlier process launched.
    pub(super) fn promised_by(&self, lane: Option<&LaneKey>) -> Resources {
        lane.map(|lane| self.promised_in(lane)).unwrap_or_default()
    }

    /// What each runner of a lane may use.
    pub(super) fn promised_in(&self, key: &LaneKey) -> Resources {
        self.pool(key.pool).promised_with(&key.parameters)
    }

    /// Counts in or out what a runner in this phase holds.
    pub(super) fn hold(&mut self, provider: usize, promised: Resources, phase: &Phase, add: bool) {
        if !phase.may_run() {
            return;
        }
        let change = if add { Resources::plus } else { Resources::minus };
        let held = &mut self.held[provider];
        held.all = change(held.all, promised);
        if matches!(phase, Phase::Removing(_)) {
            held.removing = change(held.removing, promised);
        }
    }

    /// What runners that are launched now at a provider may use together.
    pub(super) fn available_resources(&self, provider: usize, capacity: Capacity) -> Resources {
        let total = self.machines[provider].total();
        if total == Resources::UNLIMITED {
            return total;
        }
        let Held { all, removing } = self.held[provider];
        let taken = match capacity {
            Capacity::Free => all,
            Capacity::Reclaimable => {
                all.minus(removing).minus(self.preemptible_resources(provider))
            }
        };
        total.minus(taken)
    }

    fn preemptible_resources(&self, provider: usize) -> Resources {
        let pools = (0..self.settings.pools.len()).filter(|it| self.pool(*it).provider == provider);
        pools
            .flat_map(|pool| self.preemptible_in(pool))
            .map(|(key, count)| self.promised_in(key).times(count))
            .fold(Resources::default(), Resources::plus)
    }

    pub(super) fn disk_is_short(&self, pool: usize) -> bool {
        self.machines[self.pool(pool).provider].disk.is_some_and(Disk::is_short)
    }

    /// The same for each provider.
    pub(super) fn available_at_providers(&self, capacity: Capacity) -> Vec<Resources> {
        (0..self.machines.len()).map(|it| self.available_resources(it, capacity)).collect()
    }

    /// How many runners of a lane have room in what is `available` at each provider.
    pub(super) fn room_on_machine(&self, key: &LaneKey, available: &[Resources]) -> usize {
        available[self.pool(key.pool).provider].room_for(self.promised_in(key))
    }

    /// Why no runner of a lane is launched, if the machine has no room for one.
    pub(super) fn machine_full(&self, key: &LaneKey) -> Option<Waiting> {
        let pool = self.pool(key.pool);
        let machine = self.machines[pool.provider];
        if let Some(Disk { free_mib, reserve_mib }) = machine.disk.filter(|it| it.is_short()) {
            return Some(Waiting::HostDisk { free_mib, reserve_mib });
        }
        let (free, total) =
            (self.available_resources(pool.provider, Capacity::Free), machine.total());
        let needed = self.promised_in(key);
        if free.memory_mib < needed.memory_mib {
            return Some(Waiting::HostMemory {
                needed_mib: needed.memory_mib,
                free_mib: free.memory_mib,
                total_mib: total.memory_mib,
            });
        }
        (free.cpu_millis < needed.cpu_millis).then_some(Waiting::HostCpus {
            needed_millis: needed.cpu_millis,
            free_millis: free.cpu_millis,
            total_millis: total.cpu_millis,
        })
    }

    /// Adds to `lacking_in`, the number of runners to preempt in each pool, those whose memory and
    /// CPUs are needed for new runners: `wanted` of them for each provider.
    pub(super) fn preempt_for_resources(&self, wanted: &[Resources], lacking_in: &mut [usize]) {
        for (provider, held) in self.held.iter().enumerate() {
            let free = self.available_resources(provider, Capacity::Free).plus(held.removing);
            let mut lacking = wanted[provider].minus(free);
            if lacking == Resources::default() {
                continue;
            }
            // Of each lane: the pool, what a runner holds, and how many are not chosen yet.
            let mut preemptible = Vec::new();
            let pools = self.pools_by_priority.iter().rev().flatten();
            for pool in pools.filter(|pool| self.pool(**pool).provider == provider) {
                let mut chosen = lacking_in[*pool];
                for (key, count) in self.preemptible_in(*pool) {
                    let already = chosen.min(count);
                    chosen -= already;
                    let promised = self.promised_in(key);
                    lacking = lacking.minus(promised.times(already));
                    preemptible.push((*pool, promised, count - already));
                }
            }
            for (pool, promised, left) in preemptible {
                let more = lacking.needed_of(promised).min(left);
                lacking_in[pool] += more;
                lacking = lacking.minus(promised.times(more));
            }
        }
    }
}
