//! Checks that the Engine's machine has what pools promise to their runners.

use std::ops::RangeInclusive;

use super::report::Report;
use crate::{
    config::{Config, PoolConfig, ProviderName},
    provider::Capacity,
};
use edgerunner_scheduler::plan::{LabelParameters, Machine, Parameters, Values};

pub(super) fn check(config: &Config, capacity: Capacity, report: &mut Report) {
    let machine = capacity.for_runners(&config.reserves);
    if machine.memory_mib == Some(0) || machine.cpu_millis == Some(0) {
        let what = "docker.reserve_memory_mib or docker.reserve_cpus is all that the machine has: \
                    lower it";
        return report.failed("room for runners", what);
    }
    for pool in config.pools.iter().filter(|it| it.provider == ProviderName::Docker) {
        let name = format!("room for pool {}", pool.name);
        match room(pool, machine) {
            None => {}
            Some(Ok(count)) => report.ok(name, count),
            Some(Err(problem)) => report.failed(name, problem),
        }
        for problem in beyond(pool, machine) {
            report.failed(format!("labels of pool {}", pool.name), problem);
        }
    }
}

/// What labels may ask a pool for although the machine does not have it.
fn beyond(pool: &PoolConfig, machine: Machine) -> Vec<String> {
    let LabelParameters { cpu, memory_gib, .. } = &pool.label_parameters;
    let max = |range: &Option<RangeInclusive<u32>>| range.as_ref().map(|range| *range.end());
    [
        ("cpu", Values { cpu: max(cpu), ..Values::default() }),
        ("memory_gib", Values { memory_gib: max(memory_gib), ..Values::default() }),
    ]
    .into_iter()
    .map(|(key, most)| (key, Parameters::from(most)))
    .filter(|(_, most)| !most.is_empty())
    .filter(|(_, most)| machine.total().room_for(pool.planner_pool().promised_with(most)) == 0)
    .map(|(key, most)| {
        format!(
            "a job that asks for {most} is never launched, because the machine does not have that \
             for its runner: lower label_parameters.{key}.max"
        )
    })
    .collect()
}

/// `None` if launches of the pool do not wait for room.
fn room(pool: &PoolConfig, machine: Machine) -> Option<Result<String, String>> {
    let (promised, total) = (pool.promised(), machine.total());
    let waits = (machine.memory_mib.is_some() && promised.memory_mib > 0)
        || (machine.cpu_millis.is_some() && promised.cpu_millis > 0);
    if !waits {
        return None;
    }
    match total.room_for(promised) {
        0 => {
            let problem = match promised.memory_mib > total.memory_mib {
                true => format!(
                    "none of its runners is ever launched: each may use {} MiB of memory, and the \
                     machine has {} MiB for runners. Lower memory_mib, or \
                     docker.reserve_memory_mib",
                    promised.memory_mib, total.memory_mib
                ),
                false => format!(
                    "none of its runners is ever launched: each may use {} CPUs, and the machine \
                     has {} for runners. Lower cpus, or docker.reserve_cpus",
                    promised.cpu_millis as f64 / 1_000.0,
                    total.cpu_millis as f64 / 1_000.0
                ),
            };
            Some(Err(problem))
        }
        count => Some(Ok(format!("{count} runners at a time, if no other pool has any"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DockerAccess;

    #[test]
    fn a_pool_that_never_fits_is_named_with_what_it_lacks() {
        let pool = |memory_mib, cpus, docker| {
            let mut pool = Config::load(None, &|_| None).unwrap().pools.remove(0);
            (pool.container.memory_mib, pool.container.cpus) = (memory_mib, cpus);
            pool.container.docker = docker;
            pool
        };
        let machine = Machine { memory_mib: Some(4_096), cpu_millis: Some(2_000), disk: None };
        let found = |memory_mib, cpus, docker| room(&pool(memory_mib, cpus, docker), machine);
        assert_eq!(found(None, None, DockerAccess::None), None);
        let two = "2 runners at a time, if no other pool has any";
        assert_eq!(found(Some(2_048), None, DockerAccess::None), Some(Ok(two.to_owned())));
        // The runner's own Engine counts.
        let problem = found(Some(2_049), None, DockerAccess::Dind).unwrap().unwrap_err();
        assert!(problem.contains("each may use 4098 MiB of memory"), "{problem}");
        let problem = found(None, Some(2.5), DockerAccess::None).unwrap().unwrap_err();
        assert!(problem.contains("each may use 2.5 CPUs, and the machine has 2"), "{problem}");
        assert_eq!(room(&pool(Some(9_999), None, DockerAccess::None), Machine::default()), None);

        let mut pool = pool(Some(512), None, DockerAccess::Dind);
        pool.label_parameters.cpu = Some(1..=1);
        pool.label_parameters.memory_gib = Some(1..=3);
        let expected = "a job that asks for memory_gib=3 is never launched, because the machine \
                        does not have that for its runner: lower label_parameters.memory_gib.max";
        assert_eq!(beyond(&pool, machine), [expected]);
        assert_eq!(beyond(&pool, Machine::default()), [] as [String; 0]);
    }
}
