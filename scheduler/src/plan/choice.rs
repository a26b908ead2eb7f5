//! Which of the credentials that serve a target each launch there uses.
//!
//! Launches are spread by what each credential has left. One that is paused is left out. Once its
//! wait is over, a single launch tries whether it works again.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use super::{
    AT_TARGET_MAX, LaneKey, State, WITH_CREDENTIAL_MAX,
    backoff::{Blocked, Gate},
    credential::credentials_for,
    launch::let_through,
};
use crate::model::{Instant, ServerTarget};

/// What may still be launched with each credential, while launches are being found.
pub(super) struct CredentialRoom {
    /// Of each credential, what its own back-off lets through.
    with: Vec<usize>,
    /// For each credential of which one launch is to find out whether it works again: the target
    /// of that launch.
    probes: Vec<Option<ServerTarget>>,
    /// Launches that were found.
    found_with: Vec<usize>,
    found_at: HashMap<ServerTarget, usize>,
    /// Where one launch was let through: `None` for all credentials.
    probed: BTreeSet<(ServerTarget, Option<usize>)>,
}

impl CredentialRoom {
    pub(super) fn new(with: Vec<usize>, probes: Vec<Option<ServerTarget>>) -> Self {
        let found_with = vec![0; with.len()];
        Self { with, probes, found_with, found_at: HashMap::new(), probed: BTreeSet::new() }
    }
}

/// The order in which credentials are used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Preference {
    /// Its wait is over: one launch tries whether it works again.
    Probe,
    Works,
    /// It fails at other targets, and has not been tried at this one.
    Doubtful,
}

struct Candidate {
    credential: usize,
    preference: Preference,
    room: usize,
    /// Counts against the credential's own room.
    counts: bool,
    /// The entry of `probed` if only one launch is let through.
    probe: Option<(ServerTarget, Option<usize>)>,
}

impl State {
    /// Divides launches in a lane among the credentials of its target: each with its number of
    /// launches. Fewer than `wanted` if there is no room for more.
    pub(super) fn choose(
        &self,
        key: &LaneKey,
        wanted: usize,
        room: &mut CredentialRoom,
        now: Instant,
    ) -> Vec<(usize, usize)> {
        let target = &key.target;
        // Without a credential nothing can be launched there.
        if wanted == 0 || self.credentials_at(key).is_empty() {
            return Vec::new();
        }
        let found_at = room.found_at.get(target).copied().unwrap_or_default();
        let room_at = self.launch_rates.room_at(target, now).saturating_sub(found_at);
        let mut candidates: Vec<Candidate> = self
            .credentials_at(key)
            .iter()
            .filter_map(|credential| self.candidate(target, *credential, room, now))
            .collect();
        let mut chosen: Vec<(usize, usize)> = Vec::new();
        for _ in 0..wanted.min(room_at) {
            let left = |it: &Candidate| {
                let found = room.found_with[it.credential];
                self.launch_rates.left(it.credential, target, found, now)
            };
            let usable = |it: &&mut Candidate| {
                it.room > 0 && it.probe.as_ref().is_none_or(|probe| !room.probed.contains(probe))
            };
            let next = candidates
                .iter_mut()
                .filter(usable)
                .min_by_key(|it| (it.preference, Reverse(left(it)), it.credential));
            let Some(candidate) = next else { break };
            candidate.room -= 1;
            let credential = candidate.credential;
            if candidate.counts {
                room.with[credential] -= 1;
            }
            room.found_with[credential] += 1;
            room.probed.extend(candidate.probe.clone());
            match chosen.iter_mut().find(|(with, _)| *with == credential) {
                Some((_, count)) => *count += 1,
                None => chosen.push((credential, 1)),
            }
        }
        let count: usize = chosen.iter().map(|(_, count)| count).sum();
        if room_at < usize::MAX {
            *room.found_at.entry(target.clone()).or_default() += count;
        }
        chosen
    }

    /// `None` if nothing may be launched at the target with the credential now.
    fn candidate(
        &self,
        target: &ServerTarget,
        credential: usize,
        room: &CredentialRoom,
        now: Instant,
    ) -> Option<Candidate> {
        let spared = self.backoffs.spared(credential, target).is_some();
        let own = match &room.probes[credential] {
            _ if spared => usize::MAX,
            Some(elsewhere) if elsewhere != target => 0,
            _ => room.with[credential],
        };
        let host = self.settings.credentials[credential].host;
        let in_minute = self.launch_rates.room_with(credential, host, now);
        let in_minute = in_minute.saturating_sub(room.found_with[credential]);
        let gate = self.backoffs.gate_at(target, Some(credential), now);
        let in_flight = self.in_flight(target, credential, &gate);
        let through = own.min(in_minute).min(let_through(&gate, in_flight));
        let preference = match &gate {
            _ if spared => Preference::Doubtful,
            _ if self.backoffs.probes(credential, now) => Preference::Probe,
            Gate::OneAtATime(Blocked::TargetWith(..), _) => Preference::Probe,
            _ => Preference::Works,
        };
        let probe = match &gate {
            Gate::OneAtATime(Blocked::Target(_), _) => Some((target.clone(), None)),
            Gate::OneAtATime(..) => Some((target.clone(), Some(credential))),
            _ => None,
        };
        let candidate = Candidate { credential, preference, room: through, counts: !spared, probe };
        (through > 0).then_some(candidate)
    }

    /// Launches in flight that may prove that the cause of such a gate at the target is gone.
    fn in_flight(&self, target: &ServerTarget, credential: usize, gate: &Gate<'_>) -> usize {
        match gate {
            Gate::Open | Gate::Closed(..) => 0,
            Gate::OneAtATime(Blocked::Target(_), _) => self.provisioning_at(target, None),
            Gate::OneAtATime(..) => self.provisioning_at(target, Some(credential)),
        }
    }

    /// How many launches at a target are let through with any of its credentials, whatever the
    /// pool.
    pub(super) fn room_at_target(&self, target: &ServerTarget, now: Instant) -> usize {
        let room = |credential: usize| {
            let host = self.settings.credentials[credential].host;
            let own = match self.backoffs.spared(credential, target) {
                Some(_) => usize::MAX,
                None => let_through(
                    &self.backoffs.gate_for(Blocked::Credential(credential), now),
                    self.provisioning_with[credential],
                ),
            };
            let gate = self.backoffs.gate_at(target, Some(credential), now);
            own.min(self.launch_rates.room_with(credential, host, now))
                .min(let_through(&gate, self.in_flight(target, credential, &gate)))
        };
        let with_any = credentials_for(&self.settings.credentials, target)
            .fold(0, |sum: usize, credential| sum.saturating_add(room(credential)));
        with_any.min(self.launch_rates.room_at(target, now))
    }

    /// Launches in flight at a target, from all pools: with one credential, or with all.
    pub(super) fn provisioning_at(
        &self,
        target: &ServerTarget,
        credential: Option<usize>,
    ) -> usize {
        self.lanes_at(target)
            .map(|(_, lane)| match credential {
                Some(it) => lane.provisioning_with.get(&it).copied().unwrap_or_default(),
                None => lane.in_flight(),
            })
            .sum()
    }

    /// Why nothing more may be launched at the target in this minute: where GitHub has such a
    /// limit, how many launches that is, and when the next may follow.
    pub(super) fn minute_limit(
        &self,
        target: &ServerTarget,
        now: Instant,
    ) -> Option<(String, usize, Instant)> {
        let rates = &self.launch_rates;
        if rates.room_at(target, now) == 0 {
            let until = rates.next_at(target, now)?;
            return Some((format!("at {target}"), AT_TARGET_MAX, until));
        }
        let paused = |credential: &usize| {
            let gate = self.backoffs.gate_of_requests(target, Some(*credential), now);
            matches!(gate, Gate::Closed(..))
        };
        let next = |credential: usize| {
            let host = self.settings.credentials[credential].host;
            let used_up = rates.room_with(credential, host, now) == 0;
            Some((used_up.then(|| rates.next_with(credential, now)).flatten()?, credential))
        };
        let credentials = credentials_for(&self.settings.credentials, target);
        let next_with_each: Option<Vec<(Instant, usize)>> =
            credentials.filter(|it| !paused(it)).map(next).collect();
        let (until, credential) = next_with_each?.into_iter().min()?;
        let name = self.credential_name(credential);
        Some((format!("with credential {name}"), WITH_CREDENTIAL_MAX, until))
    }
}
