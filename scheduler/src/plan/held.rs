//! Jobs that GitHub holds back: it has announced them as queued, and assigns them to no runner
//! although one is idle. `max-parallel`, a concurrency group, an approval and a runner group
//! that excludes the repository all look like this.
//!
//! Such jobs launch no runners, except for a probe after each of [`PAUSES`]. Everything is kept
//! for each repository in each lane, so that one repository does not delay another's jobs.

use std::{sync::Arc, time::Duration};

use super::{LaneKey, State, demand::Share, jobs::Tracked};
use crate::model::{Host, Instant, JobKey};

/// A job is held back if it and an idle runner of its lane have both waited this long: GitHub
/// usually assigns a job within seconds.
pub(super) const PICK_UP: Duration = Duration::from_secs(60);
/// Pauses before one probe and the next; the last one repeats. A probe costs about four calls
/// to GitHub (registration, look-ups of the runner and the job, removal), so a repository whose
/// jobs are never assigned costs fewer than twelve calls an hour.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(60), Duration::from_secs(1_200), Duration::from_secs(3_600)];
/// The end of another job of the repository may release one that is held back, so it starts a
/// probe at once. The pause after such a probe that was given no job doubles up to this limit.
const HINT_PAUSE_LONGEST: Duration = Duration::from_secs(300);
/// New jobs of a repository launch runners although older ones are held back. After this many
/// that were held back as well, they wait for the next probe.
const TRIES_MAX: u32 = 3;
/// Jobs that one tick finds to be held back, so that none takes long.
pub(super) const HELD_AT_ONCE_MAX: usize = 1_000;
/// Probes that one tick starts, so that no tick takes long.
const PROBES_AT_ONCE_MAX: usize = 100;

/// Probes for the jobs of one repository that are held back in one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probing {
    /// Runners that may wait for these jobs; 0 during a pause.
    runners: usize,
    /// When `runners` last changed from or to 0.
    since: Instant,
    /// The end of the pause.
    until: Instant,
    /// Probes in a row that were given no job, up to the last of [`PAUSES`].
    misses: usize,
    /// The same for probes that the end of another job started.
    hint_misses: u32,
    /// The current probe was started by the end of another job.
    by_hint: bool,
    /// New jobs in a row that were held back as well.
    tries: u32,
}

impl Probing {
    fn new(now: Instant) -> Self {
        Self {
            runners: 0,
            since: now,
            until: now + PAUSES[0],
            misses: 0,
            hint_misses: 0,
            by_hint: false,
            tries: 1,
        }
    }

    fn paused(&self) -> bool {
        self.runners == 0
    }

    fn open(&mut self, runners: usize, by_hint: bool, now: Instant) {
        (self.runners, self.by_hint, self.since) = (runners, by_hint, now);
    }

    /// The probe was given no job.
    fn miss(&mut self, now: Instant) {
        if self.by_hint {
            self.hint_misses = self.hint_misses.saturating_add(1);
        } else {
            self.misses = (self.misses + 1).min(PAUSES.len() - 1);
        }
        self.pause(now);
    }

    fn pause(&mut self, now: Instant) {
        if !self.by_hint || self.until <= now {
            self.until = now + PAUSES[self.misses];
        }
        (self.runners, self.since, self.by_hint) = (0, now, false);
    }

    /// Another job of the repository ended, so that GitHub may release one.
    fn hint(&mut self, now: Instant) {
        if self.runners > 0 {
            if self.by_hint {
                self.open(self.runners + 1, true, now);
            }
            return;
        }
        let pause = match self.hint_misses {
            0 => Duration::ZERO,
            misses => (PAUSES[0] * (1 << (misses - 1).min(10))).min(HINT_PAUSE_LONGEST),
        };
        if self.since + pause <= now {
            self.open(1, true, now);
        } else {
            self.until = self.until.min(self.since + pause);
        }
    }

    /// GitHub assigned one of the jobs that are held back.
    fn picked_up(&mut self, now: Instant) {
        (self.misses, self.hint_misses) = (0, 0);
        if !self.by_hint || self.paused() {
            // It may have released them all.
            self.open(self.runners.max(1) + 1, false, now);
        } else if self.runners > 1 {
            self.runners -= 1;
        } else {
            // The other job's end explains this one: the next is released when this one ends.
            self.pause(now);
        }
    }
}

impl Share {
    /// Jobs that may launch runners: all new ones, unless earlier ones were held back.
    pub(super) fn wanted(&self) -> usize {
        match self.probing {
            None | Some(Probing { tries: 0, .. }) => self.queued,
            Some(Probing { tries: 1..TRIES_MAX, .. }) => self.queued.min(1),
            Some(_) => 0,
        }
    }

    pub(super) fn probes_wanted(&self) -> usize {
        self.probing.map_or(0, |probing| self.held.min(probing.runners))
    }

    /// When the next probe begins; `None` while one is under way.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.probing.filter(Probing::paused).map(|probing| probing.until)
    }
}

impl State {
    /// A runner of the lane has been idle for [`PICK_UP`]. The jobs that waited as long are held
    /// back, and so are those that a probe as old was for.
    pub(super) fn passed_over(&mut self, key: &LaneKey, now: Instant) {
        // Many of its runners may have been idle for that long.
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| lane.passed_over != Some(now))
        else {
            return;
        };
        lane.passed_over = Some(now);
        let old = lane.queued.iter().take_while(|(since, _)| *since + PICK_UP <= now);
        let jobs: Vec<JobKey> = old.take(self.hold_left).map(|(_, job)| *job).collect();
        self.hold_left -= jobs.len();
        let mut tried: Vec<String> = jobs.iter().filter_map(|job| self.hold_back(*job)).collect();
        tried.sort_unstable();
        tried.dedup();
        for repository in tried {
            let probing = match self.probing(&repository, key) {
                Some(probing) => Probing { tries: probing.tries.saturating_add(1), ..probing },
                None => Probing::new(now),
            };
            self.set_probing(&repository, key, Some(probing));
        }
        for (repository, mut probing) in self.probings(key) {
            if !probing.paused() && probing.since + PICK_UP <= now {
                probing.miss(now);
                self.set_probing(&repository, key, Some(probing));
            }
        }
    }

    /// Counts a queued job as held back. Returns its repository.
    fn hold_back(&mut self, job: JobKey) -> Option<String> {
        let Tracked { job, lane: Ok(key), since, candidates, .. } = self.jobs.get(&job)? else {
            return None;
        };
        let (entry, key, repository) = ((*since, job.key), key.clone(), job.repository.clone());
        let candidates = Arc::clone(candidates);
        if !self.dequeue(entry, &key, &candidates) {
            return None;
        }
        self.lanes.get_mut(&key)?.held.insert(entry);
        let share = self.share_mut(&repository, &key);
        (share.queued, share.held) = (share.queued - 1, share.held + 1);
        Some(repository)
    }

    /// After a reload: counts a job as held back as it was before.
    pub(super) fn hold_back_again(&mut self, job: JobKey, probing: Probing) {
        let Some(Tracked { lane: Ok(key), .. }) = self.jobs.get(&job) else {
            return;
        };
        let key = key.clone();
        if let Some(repository) = self.hold_back(job) {
            self.set_probing(&repository, &key, Some(probing));
        }
    }

    pub(super) fn probing(&self, repository: &str, key: &LaneKey) -> Option<Probing> {
        self.share(repository, key).and_then(|share| share.probing)
    }

    /// The repositories that have jobs held back in the lane.
    fn probings(&self, key: &LaneKey) -> Vec<(String, Probing)> {
        let Some(lane) = self.lanes.get(key) else {
            return Vec::new();
        };
        let probing =
            |repository: &String| Some((repository.clone(), self.probing(repository, key)?));
        lane.held_by.iter().filter_map(probing).collect()
    }

    /// No other function changes when probes are due.
    pub(super) fn set_probing(&mut self, repository: &str, key: &LaneKey, new: Option<Probing>) {
        let share = self.share_mut(repository, key);
        let old = std::mem::replace(&mut share.probing, new);
        let due = |probing: Probing| (probing.until, repository.to_owned(), key.clone());
        if let Some(old) = old.filter(Probing::paused) {
            self.probes_due.remove(&due(old));
        }
        if let Some(new) = new.filter(Probing::paused) {
            self.probes_due.insert(due(new));
        }
        if let Some(lane) = self.lanes.get_mut(key) {
            match new {
                Some(_) => drop(lane.held_by.insert(repository.to_owned())),
                None => drop(lane.held_by.remove(repository)),
            }
        }
        self.divide_limit(&(key.target.host, repository.to_owned()));
        self.update_lane(key);
    }

    /// Starts the probes whose pause is over.
    pub(super) fn start_probes(&mut self, now: Instant) {
        for _ in 0..PROBES_AT_ONCE_MAX {
            match self.probes_due.first() {
                Some((at, repository, key)) if *at <= now => {
                    let (repository, key) = (repository.clone(), key.clone());
                    let Some(mut probing) = self.probing(&repository, &key) else { break };
                    probing.open(1, false, now);
                    self.set_probing(&repository, &key, Some(probing));
                }
                _ => break,
            }
        }
    }

    /// A runner was assigned this queued job.
    pub(super) fn picked_up(&mut self, job: JobKey, now: Instant) {
        let Some(Tracked { job, lane: Ok(key), since, .. }) = self.jobs.get(&job) else {
            return;
        };
        let (entry, key, repository) = ((*since, job.key), key.clone(), job.repository.clone());
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        lane.picked_up = Some(now);
        let held = lane.held.contains(&entry);
        if let Some(mut probing) = self.probing(&repository, &key) {
            probing.tries = 0;
            if held {
                probing.picked_up(now);
            }
            self.set_probing(&repository, &key, Some(probing));
        }
    }

    /// A runner of the lane was assigned a job that no event named.
    pub(super) fn picked_up_unknown(&mut self, key: &LaneKey, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.picked_up = Some(now);
        }
        for (repository, mut probing) in self.probings(key) {
            probing.hint(now);
            self.set_probing(&repository, key, Some(probing));
        }
    }

    /// A job of the repository ended: see [`Probing::hint`].
    pub(super) fn job_ended(&mut self, repository: &(Host, String), now: Instant) {
        let Some(found) = self.repositories.get(repository) else {
            return;
        };
        let shares = found.waiting.iter();
        let held: Vec<(LaneKey, Probing)> =
            shares.filter_map(|((_, key), share)| Some((key.clone(), share.probing?))).collect();
        for (key, mut probing) in held {
            probing.hint(now);
            self.set_probing(&repository.1, &key, Some(probing));
        }
    }

    /// A runner of the lane was preempted, and with it the probes that it was launched for.
    pub(super) fn probe_preempted(&mut self, key: &LaneKey, now: Instant) {
        for (repository, mut probing) in self.probings(key) {
            if !probing.paused() {
                probing.miss(now);
                self.set_probing(&repository, key, Some(probing));
            }
        }
    }
}
