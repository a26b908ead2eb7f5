//! Settings that need a restart to take effect, to detect whether a reload changed them.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use serde_json::Value;

/// The settings in `[docker]` that are no defaults of pools.
const ENGINE: [&str; 6] =
    ["host", "cert_path", "host_gpus", "reserve_memory_mib", "reserve_cpus", "reserve_disk_mib"];

/// A hash of each section that a reload does not apply. Hashes, because values may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct RestartRequired(BTreeMap<String, u64>);

impl fmt::Debug for RestartRequired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RestartRequired")
    }
}

impl RestartRequired {
    /// `tree` must not contain secrets from files: those may be replaced at any time.
    pub(super) fn new(tree: &Value) -> Self {
        let sections = tree.as_object().into_iter().flatten();
        let hashes = sections.filter_map(|(name, section)| match name.as_str() {
            "pools" | "runner" => None,
            // Defaults of pools, except for those of the Engine below.
            "docker" => None,
            _ => Some((name.clone(), hash(section))),
        });
        let engine = ENGINE.into_iter().filter_map(|field| {
            let value = tree.get("docker")?.get(field)?;
            Some((format!("docker.{field}"), hash(value)))
        });
        Self(hashes.chain(engine).collect())
    }

    /// The names of the sections that differ, sorted.
    pub(crate) fn changed(&self, other: &Self) -> Vec<String> {
        let names = self.0.keys().chain(other.0.keys());
        let mut names: Vec<String> =
            names.filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect();
        names.sort();
        names.dedup();
        names
    }
}

fn hash(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_sections_that_pools_do_not_use_need_a_restart() {
        let before = json!({ "server": { "http_address": "a" }, "docker": { "cpus": 1 },
            "runner": { "max": 1 }, "log": { "level": "info" } });
        let after = json!({ "server": { "http_address": "b" }, "log": { "level": "info" },
            "docker": { "cpus": 2, "host": "h", "cert_path": "c", "host_gpus": ["0"] },
            "runner": { "max": 2 }, "pools": [{}], "store": {} });
        let changed = RestartRequired::new(&before).changed(&RestartRequired::new(&after));
        assert_eq!(
            changed,
            ["docker.cert_path", "docker.host", "docker.host_gpus", "server", "store",]
        );
        assert_eq!(
            RestartRequired::new(&before).changed(&RestartRequired::new(&before)),
            Vec::<String>::new()
        );
    }
}
