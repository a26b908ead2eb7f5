//! Puts a pod onto its pool's template.

use serde_json::Value;

/// The fields by which items of a list are the same, as in Kubernetes' own strategic merge.
const KEYS: [(&str, &str); 8] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("imagePullSecrets", "name"),
    ("volumeMounts", "mountPath"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
];

/// Lists whose items have parts of which only one may be set.
const WHOLE: [&str; 2] = ["env", "volumes"];

/// What `ours` has takes precedence, down to single fields and to the items of lists that have
/// names. Any other list of `ours` replaces that of the template.
pub(super) fn merge(template: &mut Value, ours: Value) {
    match (template, ours) {
        (Value::Object(template), Value::Object(ours)) => {
            for (name, field) in ours {
                match template.get_mut(&name) {
                    Some(present) => merge_field(&name, present, field),
                    None => drop(template.insert(name, field)),
                }
            }
        }
        (template, ours) => *template = ours,
    }
}

fn merge_field(name: &str, template: &mut Value, ours: Value) {
    let key = KEYS.iter().find(|(list, _)| *list == name).map(|(_, key)| *key);
    match (key, template, ours) {
        (Some(key), Value::Array(template), Value::Array(ours)) => {
            for item in ours {
                match template.iter_mut().find(|it| it[key] == item[key]) {
                    Some(present) if WHOLE.contains(&name) => *present = item,
                    Some(present) => merge(present, item),
                    None => template.push(item),
                }
            }
        }
        (_, template, ours) => merge(template, ours),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_edgerunner_sets_takes_precedence_over_the_template() {
        let mut template = json!({
            "metadata": { "labels": { "team": "build", "ours": "no" } },
            "spec": {
                "restartPolicy": "Always",
                "tolerations": [{ "key": "ci" }],
                "containers": [
                    { "name": "logs", "image": "logs:1" },
                    { "name": "runner", "image": "other",
                      "env": [{ "name": "A", "value": "template" }, { "name": "B", "value": "b" }],
                      "resources": { "limits": { "cpu": "9", "example.com/fpga": "1" } } },
                ],
            },
        });
        merge(
            &mut template,
            json!({
                "metadata": { "labels": { "ours": "yes" } },
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        { "name": "runner", "image": "runner:1", "args": ["run.sh"],
                          "env": [{ "name": "A", "valueFrom": {} }],
                          "resources": { "limits": { "cpu": "2" } } },
                    ],
                },
            }),
        );
        let expected = json!({
            "metadata": { "labels": { "team": "build", "ours": "yes" } },
            "spec": {
                "restartPolicy": "Never",
                "tolerations": [{ "key": "ci" }],
                "containers": [
                    { "name": "logs", "image": "logs:1" },
                    { "name": "runner", "image": "runner:1", "args": ["run.sh"],
                      "env": [{ "name": "A", "valueFrom": {} }, { "name": "B", "value": "b" }],
                      "resources": { "limits": { "cpu": "2", "example.com/fpga": "1" } } },
                ],
            },
        });
        assert_eq!(template, expected);
    }
}
