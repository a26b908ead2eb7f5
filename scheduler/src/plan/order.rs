//! Whose turn it is: the order in which targets get runners, among pools of one priority.
//!
//! Each runner goes to the target with the fewest, so a target that queues many jobs delays no
//! other: of k targets that ask, each has at least max/k places once jobs that run have ended.
//! Within an organization GitHub decides which job gets a runner.

use std::collections::{BTreeSet, HashMap, btree_set};
use std::fmt;
use std::iter::Peekable;

use super::{LaneKey, Order, State, Waiting, jobs::Tracked, launch::Capacity};
use crate::model::{Instant, Job, ServerTarget};

/// Lanes that are looked at to find whose turn is next. Launches in the first ones may be paused.
const LOOKED_AT_MAX: usize = 20;

/// The place of a lane in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// No job waits for the runner: it is to be idle, or a probe.
    pub(super) without_job: bool,
    /// Those of the target, in all pools. Always 0 with [`Order::Oldest`].
    pub(super) runners: usize,
    /// When the oldest job was queued.
    pub(super) oldest: Instant,
}

/// The target that gets the next runner.
#[derive(Debug)]
struct Next {
    target: ServerTarget,
    /// How many it has; `None` if that does not matter, with [`Order::Oldest`].
    runners: Option<usize>,
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, runners } = self;
        match runners {
            Some(runners) => write!(f, "next: {target}, which has the fewest runners ({runners})"),
            None => write!(f, "next: {target}, which has the oldest job"),
        }
    }
}

/// Waiting reasons in words, with whose turn is next.
pub struct Explanations<'a> {
    state: &'a State,
    now: Instant,
    /// In each pool, and in all of them (`None`).
    next: HashMap<Option<usize>, Option<Next>>,
}

impl Explanations<'_> {
    pub fn explain(&mut self, job: &Job, reason: &Waiting) -> String {
        let Some(Tracked { lane: Ok(LaneKey { pool, target, .. }), .. }) =
            self.state.jobs.get(&job.key)
        else {
            return reason.to_string();
        };
        let place_in = match reason {
            Waiting::PoolMax { .. } => Some(*pool),
            Waiting::GlobalMax { .. } => None,
            _ => return reason.to_string(),
        };
        let (state, now) = (self.state, self.now);
        match self.next.entry(place_in).or_insert_with(|| state.next_turn(place_in, now)) {
            Some(next) if next.target != *target => format!("{reason}; {next}"),
            _ => reason.to_string(),
        }
    }
}

impl State {
    /// The lane's place, if it needs more runners.
    pub(super) fn place(&self, key: &LaneKey) -> Option<Place> {
        let lane = self.lanes.get(key).filter(|lane| lane.deficit() > 0)?;
        let runners = match self.settings.order {
            Order::Fair => self.runners_at(&key.target),
            Order::Oldest => 0,
        };
        let oldest = lane.queued.first().map_or(Instant::MAX, |(since, _)| *since);
        Some(Place { without_job: lane.job_deficit() == 0, runners, oldest })
    }

    /// Runners at a target that are launching, or have or may get a job.
    fn runners_at(&self, target: &ServerTarget) -> usize {
        self.lanes_at(target).map(|(_, lane)| lane.active()).sum()
    }

    /// Must be called after each change of a lane's runners.
    pub(super) fn update_lanes_at(&mut self, key: &LaneKey) {
        self.update_lane(key);
        if self.settings.order == Order::Oldest {
            return;
        }
        let others = self.lanes_at(&key.target);
        let in_deficit = others.filter(|(other, lane)| *other != key && lane.in_deficit.is_some());
        let in_deficit: Vec<LaneKey> = in_deficit.map(|(other, _)| other.clone()).collect();
        for other in in_deficit {
            self.update_lane(&other);
        }
    }

    /// For the reasons that [`Self::visit_waiting`] finds at this time.
    pub fn explanations(&self, now: Instant) -> Explanations<'_> {
        Explanations { state: self, now, next: HashMap::new() }
    }

    /// Whose turn is next, in one pool or in all of them; `None` if launches are paused for all
    /// that were looked at.
    fn next_turn(&self, pool: Option<usize>, now: Instant) -> Option<Next> {
        let classes = self.pools_by_priority.iter();
        let mut turns = classes.flat_map(|class| {
            let pools = class.iter().copied().filter(|it| pool.is_none_or(|pool| pool == *it));
            let mut turns = Turns::new(self, pools);
            std::iter::from_fn(move || turns.next()).take(LOOKED_AT_MAX)
        });
        let next = turns.find(|turn| {
            turn.jobs > 0 && self.missing_in(turn.lane, Capacity::Reclaimable, now) > 0
        })?;
        let runners = (self.settings.order == Order::Fair).then_some(next.place.runners);
        Some(Next { target: next.lane.target.clone(), runners })
    }
}

/// The lanes of pools of one priority, each at its turn.
pub(super) struct Turns<'a> {
    state: &'a State,
    /// The lanes of each pool that had no turn yet.
    queues: Vec<Queue<'a>>,
    /// Lanes that had a turn, or whose target got a runner by that of another.
    again: BTreeSet<NextTurn<'a>>,
    /// Runners that targets got by these turns.
    given: HashMap<&'a ServerTarget, usize>,
}

struct Queue<'a> {
    pool: usize,
    lanes: Peekable<btree_set::Iter<'a, (Place, LaneKey)>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NextTurn<'a> {
    place: Place,
    pub(super) lane: &'a LaneKey,
    /// Jobs without a runner.
    jobs: usize,
    /// Runners that the target had before the first turn.
    runners: usize,
}

impl<'a> Turns<'a> {
    pub(super) fn new(state: &'a State, pools: impl Iterator<Item = usize>) -> Self {
        let queue = |pool| Queue { pool, lanes: state.in_deficit[pool].iter().peekable() };
        let queues = pools.map(queue).collect();
        Self { state, queues, again: BTreeSet::new(), given: HashMap::new() }
    }

    /// Ends the turns of a pool.
    pub(super) fn close(&mut self, pool: usize) {
        self.queues.retain(|queue| queue.pool != pool);
    }

    /// The lane got a runner, and may need more.
    pub(super) fn served(&mut self, mut turn: NextTurn<'a>) {
        turn.jobs = turn.jobs.saturating_sub(1);
        *self.given.entry(&turn.lane.target).or_default() += 1;
        self.again.insert(self.now(turn));
    }

    pub(super) fn next(&mut self) -> Option<NextTurn<'a>> {
        loop {
            let heads = self.queues.iter_mut().enumerate().filter_map(|(index, queue)| {
                let (place, lane) = queue.lanes.peek()?;
                Some((*place, lane, index))
            });
            let turn = match (heads.min(), self.again.first()) {
                (Some((place, lane, index)), again)
                    if again.is_none_or(|it| (place, lane.pool) < (it.place, it.lane.pool)) =>
                {
                    self.queues[index].lanes.next();
                    let jobs = self.state.lanes.get(lane)?.job_deficit();
                    NextTurn { place, lane, jobs, runners: place.runners }
                }
                _ => self.again.pop_first()?,
            };
            let now = self.now(turn);
            if now == turn {
                return Some(turn);
            }
            self.again.insert(now);
        }
    }

    /// With its place of now.
    fn now(&self, turn: NextTurn<'a>) -> NextTurn<'a> {
        let given = match self.state.settings.order {
            Order::Fair => self.given.get(&turn.lane.target).copied().unwrap_or_default(),
            Order::Oldest => 0,
        };
        let runners = turn.runners + given;
        let place = Place { without_job: turn.jobs == 0, runners, ..turn.place };
        NextTurn { place, ..turn }
    }
}
