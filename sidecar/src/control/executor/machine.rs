//! Reports what the machines of providers have for runners.

use tracing::warn;

use super::{Executor, places::Place};
use edgerunner_scheduler::plan::{Event, Machine};

impl Executor {
    /// Reports what each machine has, and makes space on disks that are nearly full, which may take
    /// long.
    pub(crate) async fn keep_machines(self) {
        for place in 0..self.shared.places.len() {
            let machine = self.report_machine(place).await;
            let disk = machine.and_then(|machine| machine.disk);
            if let Some(disk) = disk.filter(|disk| disk.is_short())
                && self.make_space(place, disk).await
            {
                self.report_machine(place).await;
            }
        }
    }

    /// For a provider that has one machine. What cannot be found out now stays as it was reported
    /// last. Bounded in time.
    pub(super) async fn report_machine(&self, place: usize) -> Option<Machine> {
        if !self.is_used(place) {
            return None;
        }
        let Place { name, provider, .. } = &self.shared.places[place];
        let capacity = provider.capacity().await?;
        let reserves = &self.shared.reserves;
        let problem = match &capacity {
            Err(error) => Some(format!("its machine is not known: {error}")),
            Ok(capacity) if capacity.free_disk_mib.is_none() && reserves.disk_mib > 0 => Some(
                "its directory cannot be seen from here, so docker.reserve_disk_mib holds nothing \
                 back"
                    .to_owned(),
            ),
            Ok(_) => None,
        };
        let problem = problem.map(|problem| (name.clone(), problem));
        for (provider, problem) in self.shared.unknown_machines.replace(problem) {
            warn!(provider, problem, "launches do not wait for room on the machine");
        }
        let machine = capacity.ok()?.for_runners(reserves);
        self.send(Event::Machine { provider: place, machine }).await;
        Some(machine)
    }
}
