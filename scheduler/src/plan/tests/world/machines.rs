//! The machines on which runners run, and what becomes of those that go away.

use super::*;

const HOUR_MS: u64 = 3_600_000;

#[derive(Debug)]
pub(super) struct Machines {
    /// Where containers are placed.
    all: Vec<u64>,
    next: u64,
    /// Those that do not answer, and until when.
    away: BTreeMap<u64, u64>,
    /// Whether any ever went away.
    pub(super) failed: bool,
}

impl Default for Machines {
    fn default() -> Self {
        Self { all: vec![0, 1, 2], next: 3, away: BTreeMap::new(), failed: false }
    }
}

impl Machines {
    pub(super) fn is_away(&self, machine: u64) -> bool {
        self.away.contains_key(&machine)
    }

    pub(super) fn come_back(&mut self, now: u64) {
        self.away.retain(|_, until| *until > now);
    }

    /// All come back but those that went for good.
    pub(super) fn end_faults(&mut self) {
        self.come_back(u64::MAX - 1);
    }
}

impl World {
    /// A machine on which a container starts.
    pub(super) fn any_machine(&mut self) -> u64 {
        let any = self.below(self.machines.all.len() as u64) as usize;
        let Machines { all, .. } = &self.machines;
        let there = all.iter().cycle().skip(any).take(all.len());
        there.copied().find(|it| !self.machines.is_away(*it)).unwrap_or(all[any])
    }

    /// A machine goes away: for good, until it was started again, or it is only cut off from the
    /// sidecar and its runners work on.
    pub(super) fn machine_goes_away(&mut self) {
        let index = self.below(self.machines.all.len() as u64) as usize;
        let machine = self.machines.all[index];
        if self.machines.is_away(machine) {
            return;
        }
        self.machines.failed = true;
        self.figures.machines_away += 1;
        let cut_off = self.chance(400);
        let for_good = !cut_off && self.chance(300);
        if for_good {
            self.machines.all[index] = self.machines.next;
            self.machines.next += 1;
        }
        let longest = [HOUR_MS / 60, HOUR_MS / 3, 2 * HOUR_MS][self.below(3) as usize];
        let until = if for_good { u64::MAX } else { self.now + 1 + self.below(longest) };
        self.machines.away.insert(machine, until);
        if cut_off {
            return;
        }
        let here = self.containers.iter().filter(|(_, it)| it.machine == machine);
        for name in here.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.stops(name, 137);
        }
    }

    /// A runner is given up with its machine although it may run a job: only if GitHub did not
    /// have it as online or busy.
    pub(super) fn check_lost(&self, runner: &str) {
        if let Some(Runner { phase: Phase::Removing(removing), .. }) = self.state.runner(runner)
            && removing.reason == EndReason::MachineLost
            && removing.job_deadline.is_some()
            && let Some(real) = self.registrations.get(runner)
        {
            assert!(!real.online && real.job.is_none(), "{runner} is given up: {real:?}");
        }
    }
}
