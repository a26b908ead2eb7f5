//! A machine that runs runners.

use std::collections::BTreeMap;

/// Of a provider that has several.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub name: String,
    pub id: String,
    /// `ready`, `down`, `disconnected` or `unknown`.
    pub state: String,
    /// Why, if it is not ready.
    pub message: String,
    pub availability: Availability,
    pub manager: bool,
    pub leader: bool,
    /// Whether the other managers reach it; always for a worker.
    pub reachable: bool,
    /// Version of its Docker Engine.
    pub engine: String,
    /// Nothing is launched there: its Engine would leave runners running.
    pub too_old: bool,
    pub cpus: f64,
    pub memory_mib: u64,
    /// By the runners of this installation.
    pub reserved_cpus: f64,
    pub reserved_memory_mib: u64,
    /// Of this installation.
    pub runners: usize,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    Active,
    /// Nothing new is launched there.
    Pause,
    /// The same, and services that are no jobs move elsewhere.
    Drain,
}

/// Whether new runners may be launched on a node and, if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Condition {
    /// It does not answer its managers.
    Down,
    TooOld,
    Drained,
    Ready,
}

impl Condition {
    pub(crate) const ALL: [Self; 4] = [Self::Down, Self::TooOld, Self::Drained, Self::Ready];

    /// Stable name for metrics and the page.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::TooOld => "too_old",
            Self::Drained => "drained",
            Self::Ready => "ready",
        }
    }
}

impl Node {
    /// Whether it meets a constraint such as `node.labels.disk==ssd`. Constraints on labels of its
    /// Engine and on its platform are not checked.
    pub(crate) fn meets(&self, constraint: &str) -> bool {
        let (name, value, equal) = match constraint.split_once("==") {
            Some((name, value)) => (name, value, true),
            None => match constraint.split_once("!=") {
                Some((name, value)) => (name, value, false),
                None => return true,
            },
        };
        let role = if self.manager { "manager" } else { "worker" };
        let actual = match name.trim() {
            "node.id" => &self.id,
            "node.hostname" => &self.name,
            "node.role" => role,
            name => match name.strip_prefix("node.labels.") {
                Some(label) => self.labels.get(label).map_or("", String::as_str),
                None => return true,
            },
        };
        actual.eq_ignore_ascii_case(value.trim()) == equal
    }

    pub(crate) fn condition(&self) -> Condition {
        match (&*self.state, self.availability) {
            ("ready", _) if self.too_old => Condition::TooOld,
            ("ready", Availability::Active) => Condition::Ready,
            ("ready", Availability::Pause | Availability::Drain) => Condition::Drained,
            _ => Condition::Down,
        }
    }

    /// Whether new runners may be launched there.
    pub(crate) fn may_launch(&self) -> bool {
        self.condition() == Condition::Ready
    }
}

impl Availability {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        }
    }
}

#[cfg(test)]
impl Node {
    /// A worker with 4 CPUs, 8 GiB and nothing on it.
    pub(crate) fn example(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            id: format!("id-of-{name}"),
            state: "ready".into(),
            message: String::new(),
            availability: Availability::Active,
            manager: false,
            leader: false,
            reachable: true,
            engine: "26.1.5".into(),
            too_old: false,
            cpus: 4.0,
            memory_mib: 8192,
            reserved_cpus: 0.0,
            reserved_memory_mib: 0,
            runners: 0,
            labels: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_meets_constraints_as_swarm_reads_them() {
        let labels = [("disk".to_owned(), "ssd".to_owned())].into();
        let node = Node { labels, ..Node::example("build-1") };
        for (constraint, expected) in [
            ("node.labels.disk==ssd", true),
            ("node.labels.disk == SSD", true),
            ("node.labels.disk!=ssd", false),
            ("node.labels.gpu==yes", false),
            ("node.labels.gpu!=yes", true),
            ("node.role==worker", true),
            ("node.hostname!=build-1", false),
            ("engine.labels.os==debian", true),
        ] {
            assert_eq!(node.meets(constraint), expected, "{constraint}");
        }
    }

    #[test]
    fn the_condition_is_what_keeps_runners_away_first() {
        for (state, availability, too_old, expected) in [
            ("ready", Availability::Active, false, "ready"),
            ("ready", Availability::Pause, false, "drained"),
            ("ready", Availability::Drain, false, "drained"),
            ("ready", Availability::Drain, true, "too_old"),
            ("down", Availability::Drain, true, "down"),
            ("disconnected", Availability::Active, false, "down"),
            ("unknown", Availability::Active, false, "down"),
        ] {
            let state = state.to_owned();
            let node = Node { state, availability, too_old, ..Node::example("build-1") };
            assert_eq!(node.condition().as_str(), expected, "{node:?}");
            assert_eq!(node.may_launch(), expected == "ready", "{node:?}");
        }
    }
}
