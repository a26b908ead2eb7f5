//! Figures: the numbers of the current state, without the jobs and runners behind them, for
//! metrics.

use std::collections::{BTreeMap, HashMap};

use crate::{
    control::snapshot::{BudgetView, MachineView, RunnerVersionView},
    provider::Node,
};
use edgerunner_scheduler::{
    model::Moment,
    plan::{State, WaitingFigures},
};

pub(crate) const PHASES: [&str; 7] =
    ["provisioning", "starting", "idle", "busy", "leaving", "parking", "parked"];

pub(crate) struct Figures {
    /// Whether launches may begin.
    pub(crate) recovered: bool,
    pub(crate) pools: Vec<PoolFigures>,
    /// By the stable name of the waiting reason. Reasons of no job are left out.
    pub(crate) waiting: BTreeMap<&'static str, WaitingFigures>,
    /// Back-offs, by the stable name of their cause. Causes of none are left out.
    pub(crate) back_offs: BTreeMap<&'static str, usize>,
    pub(crate) budgets: Vec<BudgetView>,
    /// Machines of a provider that has several.
    pub(crate) nodes: Vec<Node>,
    /// Of a provider that has but one; `None` as long as nothing is known of it.
    pub(crate) machine: Option<MachineView>,
    /// The versions of the runners, by pool.
    pub(crate) versions: BTreeMap<String, RunnerVersionView>,
}

pub(crate) struct PoolFigures {
    pub(crate) name: String,
    /// In the order of [`PHASES`].
    pub(crate) runners: [usize; PHASES.len()],
    pub(crate) queued: usize,
    pub(crate) min_idle: usize,
    /// Runners to keep parked at each target.
    pub(crate) parked: usize,
    pub(crate) max: usize,
}

impl Figures {
    pub(crate) fn new(
        state: &State,
        budgets: Vec<BudgetView>,
        nodes: Vec<Node>,
        now: Moment,
    ) -> Self {
        let phases = PhaseCounts::new(state);
        let pools = state.settings().pools.iter().enumerate().map(|(index, pool)| PoolFigures {
            name: pool.name.clone(),
            runners: phases.of(&pool.name),
            queued: state.queued(index),
            min_idle: pool.min_idle,
            parked: pool.parked,
            max: pool.max,
        });
        let mut back_offs = BTreeMap::new();
        for (_, backoff) in state.backoffs() {
            *back_offs.entry(backoff.cause.as_str()).or_default() += 1;
        }
        Self {
            recovered: state.recovered(),
            pools: pools.collect(),
            waiting: state.waiting_figures(now.instant),
            back_offs,
            budgets,
            nodes,
            machine: MachineView::of(state),
            versions: BTreeMap::new(),
        }
    }
}

/// How many runners of each pool are in each phase.
pub(crate) struct PhaseCounts<'a>(HashMap<&'a str, [usize; PHASES.len()]>);

impl<'a> PhaseCounts<'a> {
    pub(crate) fn new(state: &'a State) -> Self {
        let mut runners: HashMap<&str, [usize; PHASES.len()]> = HashMap::new();
        for runner in state.runners() {
            let phase = PHASES.iter().position(|phase| *phase == runner.phase.as_str());
            if let Some(phase) = phase {
                runners.entry(&runner.pool).or_default()[phase] += 1;
            }
        }
        Self(runners)
    }

    /// In the order of [`PHASES`].
    pub(crate) fn of(&self, pool: &str) -> [usize; PHASES.len()] {
        self.0.get(pool).copied().unwrap_or_default()
    }
}
