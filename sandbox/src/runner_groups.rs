//! The runner groups of every organization and enterprise.

pub(crate) struct RunnerGroup {
    pub id: u64,
    pub name: &'static str,
}

/// The group of runners that do not name a group.
pub(crate) const DEFAULT_GROUP_ID: u64 = 1;

pub(crate) const RUNNER_GROUPS: [RunnerGroup; 2] =
    [RunnerGroup { id: DEFAULT_GROUP_ID, name: "Default" }, RunnerGroup { id: 2, name: "large" }];
