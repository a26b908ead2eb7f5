//! Fingerprints of the configuration's sections, to compare sidecars that share a store.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What a reload applies.
const RELOADED: [&str; 3] = ["pools", "runner", "docker"];
/// What sidecars on different machines may have each their own of.
const OWN: [&str; 2] = ["log", "traces"];
const OWN_ADDRESSES: [&str; 2] = ["grpc_address", "http_address"];
const BYTES: usize = 8;

/// By the name of the section. Hashes, because values may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Fingerprints(BTreeMap<String, String>);

impl fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprints")
    }
}

impl Fingerprints {
    /// `tree` must not contain secrets from files: those may be replaced at any time.
    pub(super) fn new(tree: &Value) -> Self {
        let sections = tree.as_object().into_iter().flatten();
        let sections = sections.filter(|(name, _)| !OWN.contains(&name.as_str()));
        Self(sections.filter_map(|(name, section)| Some((name.clone(), of(section)?))).collect())
    }

    /// Those that are in force after a reload.
    pub(crate) fn reloaded(&self, file: &Self) -> Self {
        let is_reloaded = |name: &str| RELOADED.contains(&name);
        let kept = self.0.iter().filter(|(name, _)| !is_reloaded(name));
        let taken = file.0.iter().filter(|(name, _)| is_reloaded(name));
        Self(kept.chain(taken).map(|(name, hash)| (name.clone(), hash.clone())).collect())
    }

    pub(crate) fn sections(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// `None` for a section without settings that all sidecars share. The same in every release.
fn of(section: &Value) -> Option<String> {
    let mut section = section.clone();
    if let Some(fields) = section.as_object_mut() {
        fields.retain(|name, _| !OWN_ADDRESSES.contains(&name.as_str()));
        if fields.is_empty() {
            return None;
        }
    }
    let hash = Sha256::digest(section.to_string());
    Some(hash.iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_belongs_to_one_machine_is_left_out_and_a_reload_replaces_pools() {
        let before = Fingerprints::new(&json!({ "server": { "http_address": "a" },
            "log": { "level": "info" }, "github": { "token": "t" }, "pools": [{ "name": "a" }] }));
        let names: Vec<&str> = before.0.keys().map(String::as_str).collect();
        assert_eq!(names, ["github", "pools"]);
        let file = Fingerprints::new(
            &json!({ "github": { "token": "u" }, "pools": [{ "name": "b" }], "docker": { "cpus": 1 } }),
        );
        let after = before.reloaded(&file);
        assert_eq!(after.0["github"], before.0["github"]);
        assert_eq!((&after.0["pools"], &after.0["docker"]), (&file.0["pools"], &file.0["docker"]));
    }
}
