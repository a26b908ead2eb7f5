//! The sidecars that share a store: which of them plans and how they do, as the API, page, metrics
//! and command line show it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    config::Fingerprints,
    control::{clock, leadership::Leadership},
    store::{Behind, Cluster, Error, LeaseRecord, Member, SILENT_AFTER_MS},
};
use edgerunner_scheduler::model::UnixMs;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SidecarState {
    Plans,
    Accepts,
    Silent,
}

impl SidecarState {
    pub(crate) const ALL: [Self; 3] = [Self::Plans, Self::Accepts, Self::Silent];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Plans => "plans",
            Self::Accepts => "accepts",
            Self::Silent => "silent",
        }
    }
}

/// A sidecar that shares its store with others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct SidecarView {
    /// Another one after each start.
    pub id: String,
    /// Name of its host.
    pub name: String,
    pub version: String,
    pub started_ms: UnixMs,
    /// When it last reported, which it does every 2 s.
    pub seen_ms: UnixMs,
    /// `plans` if it launches runners; `accepts` if it accepts deliveries and answers requests, as
    /// all of them do; `silent` if it has not reported for 10 s.
    pub state: String,
    /// Number of its term, if it plans. Each term has a higher one than all before.
    pub term: Option<u64>,
    /// Since when it plans.
    pub since_ms: Option<UnixMs>,
    /// Writes that wait for a commit.
    pub queued_writes: usize,
    /// Deliveries that are stored and that it has not planned for yet; `null` unless it plans.
    pub behind: Option<BehindView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct BehindView {
    pub deliveries: u64,
    /// When the oldest of them was received.
    pub oldest_ms: Option<UnixMs>,
}

impl SidecarView {
    pub(crate) fn is(&self, state: SidecarState) -> bool {
        self.state == state.as_str()
    }
}

/// What the store says of the sidecars at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overview {
    /// By name and start. Empty if the store cannot be shared.
    pub(crate) sidecars: Vec<SidecarView>,
    /// Whether the lease is free.
    pub(crate) nobody_plans: bool,
    /// Since when; `None` if none ever planned.
    pub(crate) nobody_plans_since: Option<UnixMs>,
}

impl Overview {
    pub(crate) fn new(members: Vec<Member>, lease: &LeaseRecord, now: UnixMs) -> Self {
        let view = |member: Member| {
            let plans = lease.holder.as_ref() == Some(&member.id);
            let state = match (plans, member.seen_ms_ago >= SILENT_AFTER_MS) {
                (true, _) => SidecarState::Plans,
                (false, true) => SidecarState::Silent,
                (false, false) => SidecarState::Accepts,
            };
            SidecarView {
                id: member.id,
                name: member.name,
                version: member.version,
                started_ms: member.started,
                seen_ms: now.saturating_sub(member.seen_ms_ago),
                state: state.as_str().to_owned(),
                term: plans.then_some(lease.term.0.cast_unsigned()),
                since_ms: plans.then_some(lease.since),
                queued_writes: member.figures.queued_writes,
                behind: member.behind.filter(|_| plans).map(BehindView::from),
            }
        };
        Self {
            sidecars: members.into_iter().map(view).collect(),
            nobody_plans: lease.holder.is_none(),
            nobody_plans_since: lease.until.filter(|_| lease.holder.is_none()),
        }
    }

    pub(crate) fn planner(&self) -> Option<&SidecarView> {
        self.sidecars.iter().find(|sidecar| sidecar.is(SidecarState::Plans))
    }

    /// Why nothing is planned for, as a title and what is known. Asked when the one that plans has
    /// not answered, or none plans.
    pub(crate) fn why_nothing_is_planned(&self, now: UnixMs) -> (String, String) {
        let title = match self.planner() {
            Some(planner) => {
                let name = name(planner, &self.sidecars);
                format!("The sidecar that plans does not answer: {name}")
            }
            None => "No sidecar plans".to_owned(),
        };
        let since = match (self.planner(), self.nobody_plans_since) {
            (None, Some(since)) => format!("For {} s. ", now.saturating_sub(since) / 1000),
            _ => String::new(),
        };
        let all: Vec<String> =
            self.sidecars.iter().map(|it| describe(it, &self.sidecars, now)).collect();
        let all = if all.is_empty() { "none has reported".to_owned() } else { all.join("; ") };
        let text = format!(
            "{since}Webhooks are accepted and stored; runners are launched and removed once a \
             sidecar plans. Sidecars: {all}."
        );
        (title, text)
    }
}

impl From<Behind> for BehindView {
    fn from(Behind { deliveries, oldest }: Behind) -> Self {
        Self { deliveries, oldest_ms: oldest }
    }
}

/// Its name; with its ID if another one has the same.
pub(crate) fn name(sidecar: &SidecarView, all: &[SidecarView]) -> String {
    let namesakes = all.iter().filter(|it| it.name == sidecar.name).count();
    match namesakes {
        0 | 1 => sidecar.name.clone(),
        _ => format!("{} ({})", sidecar.name, short_id(&sidecar.id)),
    }
}

pub(crate) fn short_id(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// One sidecar in words.
pub(crate) fn describe(sidecar: &SidecarView, all: &[SidecarView], now: UnixMs) -> String {
    let name = name(sidecar, all);
    let seconds = |since: UnixMs| now.saturating_sub(since) / 1000;
    match (sidecar.term, sidecar.since_ms) {
        (Some(term), Some(since)) => {
            let silent = match seconds(sidecar.seen_ms) {
                0..3 => String::new(),
                silent => format!(", but has not reported for {silent} s"),
            };
            format!("{name} plans for {} s (term {term}){silent}", seconds(since))
        }
        _ if sidecar.is(SidecarState::Silent) => {
            format!("{name} has not reported for {} s", seconds(sidecar.seen_ms))
        }
        _ => format!("{name} accepts deliveries"),
    }
}

/// Sections of the configuration that are not the same on all sidecars that live, each with the
/// names of those whose section is another than that of the first, which plans if any does.
pub(crate) fn differing_sections(members: &[Member], overview: &Overview) -> Vec<(String, String)> {
    let all = &overview.sidecars;
    let figures = |sidecar: &SidecarView| {
        let member = members.iter().find(|it| it.id == sidecar.id);
        member.map(|member| &member.figures.configuration)
    };
    let living = all.iter().filter(|it| !it.is(SidecarState::Silent));
    let mut living: Vec<(String, &BTreeMap<String, String>)> =
        living.filter_map(|it| Some((name(it, all), figures(it)?))).collect();
    if let Some(planner) = overview.planner() {
        let planner = name(planner, all);
        living.sort_by_key(|(name, _)| *name != planner);
    }
    let Some(((first, expected), others)) = living.split_first() else { return Vec::new() };
    let sections: BTreeSet<&String> = living.iter().flat_map(|(_, it)| it.keys()).collect();
    let mut differing = Vec::new();
    for section in sections {
        let other = others.iter().filter(|(_, it)| it.get(section) != expected.get(section));
        let names: Vec<&str> = other.map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            let text = format!("that of {} differs from that of {first}", names.join(", "));
            differing.push((section.clone(), text));
        }
    }
    differing
}

/// What this process knows of all sidecars, itself included. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Sidecars(Option<Arc<Shared>>);

struct Shared {
    cluster: Cluster,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Of this sidecar, the last one.
    leadership: Option<Leadership>,
    configuration: Fingerprints,
    /// What was last read.
    overview: Overview,
    store_answers: bool,
}

/// What metrics need, without a wait for the store.
pub(crate) struct Gauged {
    /// `None` unless this sidecar plans at this moment, by its own clock.
    pub(crate) term: Option<u64>,
    pub(crate) overview: Overview,
    /// Whether it answered the last report.
    pub(crate) store_answers: bool,
}

impl Sidecars {
    /// `cluster`: `None` if no other sidecar can share the store.
    pub(crate) fn new(cluster: Option<Cluster>, configuration: Fingerprints) -> Self {
        let known = Known { configuration, store_answers: true, ..Known::default() };
        Self(cluster.map(|cluster| Arc::new(Shared { cluster, known: known.into() })))
    }

    /// Whether others can share the store.
    pub(crate) fn are_shared(&self) -> bool {
        self.0.is_some()
    }

    /// From now on, this sidecar plans while this is held.
    pub(crate) fn leads(&self, leadership: Leadership) {
        if let Some(shared) = &self.0 {
            shared.known().leadership = Some(leadership);
        }
    }

    /// The hash of each section of the configuration that is in force.
    pub(crate) fn configuration(&self) -> BTreeMap<String, String> {
        let shared = self.0.as_ref();
        shared.map(|it| it.known().configuration.sections().clone()).unwrap_or_default()
    }

    /// After a reload.
    pub(crate) fn reloaded(&self, file: &Fingerprints) {
        if let Some(shared) = &self.0 {
            let mut known = shared.known();
            known.configuration = known.configuration.reloaded(file);
        }
    }

    /// What the store says now, within 2 s.
    pub(crate) async fn look(&self) -> Result<Overview, Error> {
        let Some(shared) = &self.0 else { return Ok(Overview::default()) };
        let read = async {
            let members = shared.cluster.members().await?;
            Ok::<_, Error>((members, shared.cluster.lease_record().await?))
        };
        let read = read.await;
        let mut known = shared.known();
        known.store_answers = read.is_ok();
        let (members, lease) = read?;
        known.overview = Overview::new(members, &lease, clock::now().wall);
        Ok(known.overview.clone())
    }

    /// What [`Self::look`] last returned.
    pub(crate) fn last(&self) -> Overview {
        self.0.as_ref().map(|shared| shared.known().overview.clone()).unwrap_or_default()
    }

    /// `None` if no other sidecar can share the store.
    pub(crate) fn gauged(&self) -> Option<Gauged> {
        let known = self.0.as_ref()?.known();
        let held = known.leadership.as_ref().filter(|it| it.is_held());
        Some(Gauged {
            term: held.and_then(Leadership::term).map(|term| term.0.cast_unsigned()),
            overview: known.overview.clone(),
            store_answers: known.store_answers,
        })
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemberFigures, Term};

    const NOW: UnixMs = 1_000_000;

    fn member(id: &str, name: &str, seen_ms_ago: u64, pools: &str) -> Member {
        let configuration = [("pools".to_owned(), pools.to_owned())].into();
        Member {
            id: id.to_owned(),
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            started: NOW - 60_000,
            seen_ms_ago,
            figures: MemberFigures { queued_writes: 3, configuration, ..MemberFigures::default() },
            behind: Some(Behind { deliveries: 2, oldest: Some(NOW - 500) }),
        }
    }

    fn lease(holder: Option<&str>) -> LeaseRecord {
        let holder = holder.map(str::to_owned);
        LeaseRecord { holder, term: Term(7), since: NOW - 30_000, until: Some(NOW - 8_000) }
    }

    #[test]
    fn only_the_holder_of_the_lease_plans_and_has_a_term() {
        let members = vec![
            member("a", "edge-a", 11_000, "x"),
            member("b", "edge-b", 0, "x"),
            member("c", "edge-c", 40_000, "x"),
        ];
        let overview = Overview::new(members.clone(), &lease(Some("a")), NOW);
        let states: Vec<&str> = overview.sidecars.iter().map(|it| &*it.state).collect();
        assert_eq!(states, ["plans", "accepts", "silent"]);
        let [planner, other, _] = &overview.sidecars[..] else { panic!() };
        assert_eq!((planner.term, planner.since_ms), (Some(7), Some(NOW - 30_000)));
        assert_eq!(planner.behind.as_ref().unwrap().deliveries, 2);
        assert_eq!((other.term, other.since_ms, &other.behind), (None, None, &None));
        let (title, text) = overview.why_nothing_is_planned(NOW);
        assert_eq!(title, "The sidecar that plans does not answer: edge-a");
        assert!(text.contains("edge-a plans for 30 s (term 7), but has not reported for 11 s"));

        let overview = Overview::new(members, &lease(None), NOW);
        assert!(overview.nobody_plans && overview.planner().is_none());
        let (title, text) = overview.why_nothing_is_planned(NOW);
        assert_eq!(title, "No sidecar plans");
        assert!(text.starts_with("For 8 s. "), "{text}");
        assert!(text.contains("edge-b accepts deliveries; edge-c has not reported for 40 s"));
    }

    #[test]
    fn sidecars_with_one_name_are_told_apart_by_their_id() {
        let members =
            vec![member("0123456789", "edge", 0, "x"), member("9876543210", "edge", 0, "x")];
        let Overview { sidecars, .. } = Overview::new(members, &lease(None), NOW);
        assert_eq!(name(&sidecars[0], &sidecars), "edge (01234567)");
        assert_eq!(name(&sidecars[0], &sidecars[..1]), "edge");
    }

    #[test]
    fn a_section_that_differs_from_that_of_the_planner_is_named_and_silent_sidecars_do_not_count() {
        let members = [
            member("a", "edge-a", 0, "x"),
            member("b", "edge-b", 0, "y"),
            member("c", "edge-c", 40_000, "z"),
        ];
        let differing = |members: &[Member], holder| {
            let overview = Overview::new(members.to_vec(), &lease(holder), NOW);
            differing_sections(members, &overview)
        };
        assert_eq!(
            differing(&members, Some("b")),
            [("pools".to_owned(), "that of edge-a differs from that of edge-b".to_owned())]
        );
        assert!(differing(&members[1..], None).is_empty());
    }

    #[test]
    fn without_others_there_is_nothing_to_show() {
        let alone = Sidecars::new(None, Fingerprints::default());
        assert!(!alone.are_shared() && alone.gauged().is_none());
        assert_eq!(alone.last(), Overview::default());
    }
}
