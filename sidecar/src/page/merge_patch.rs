//! Changes between two JSON values, as a JSON Merge Patch (RFC 7396).

use serde_json::{Map, Value};

/// The patch that turns `old` into `new`; `None` if they are equal. Neither may contain `null`,
/// which in a patch removes a member.
pub(super) fn diff(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for (name, value) in new {
        let changed = match old.get(name) {
            Some(before) => diff(before, value),
            None => Some(value.clone()),
        };
        patch.extend(changed.map(|changed| (name.clone(), changed)));
    }
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    patch.extend(gone.map(|name| (name.clone(), Value::Null)));
    Some(Value::Object(patch))
}

/// Removes members that are `null`: they mean the same as absent ones.
pub(super) fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As the RFC defines it.
    fn apply(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        let members = target.as_object_mut().unwrap();
        for (name, value) in patch {
            if value.is_null() {
                members.remove(name);
            } else {
                apply(members.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }

    #[test]
    fn a_patch_turns_each_value_into_each_other() {
        let values = [
            json!({}),
            json!({ "a": 1 }),
            json!({ "a": { "b": [1, 2], "c": "x" }, "d": true }),
            json!({ "a": { "b": [2], "e": {} }, "d": true }),
            json!({ "a": [{ "b": 1 }] }),
        ];
        for old in &values {
            for new in &values {
                let mut patched = old.clone();
                match diff(old, new) {
                    Some(patch) => apply(&mut patched, &patch),
                    None => assert_eq!(old, new),
                }
                assert_eq!(&patched, new, "from {old}");
            }
        }
    }

    #[test]
    fn a_patch_contains_what_changed_and_nothing_else() {
        let old = json!({ "jobs": { "1": { "state": "queued", "name": "a" }, "2": {} }, "n": 1 });
        let new = json!({ "jobs": { "1": { "state": "done", "name": "a" }, "3": {} }, "n": 1 });
        let patch = json!({ "jobs": { "1": { "state": "done" }, "2": null, "3": {} } });
        assert_eq!(diff(&old, &new), Some(patch));
    }

    #[test]
    fn nulls_are_removed_everywhere() {
        let mut value = json!({ "a": null, "b": [{ "c": null, "d": 0 }] });
        without_nulls(&mut value);
        assert_eq!(value, json!({ "b": [{ "d": 0 }] }));
    }
}
