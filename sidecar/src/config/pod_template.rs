//! A template for the pods of a pool, with what has no setting of its own.

use std::{fmt, path::Path};

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::{Runner, document::Document};
use crate::blocking::read_file;

const BYTES_MAX: u64 = 256 << 10;

/// The `metadata` and `spec` of a pod. Kubernetes knows all of its fields.
#[derive(Clone, PartialEq)]
pub(crate) struct PodTemplate(Value);

/// It may contain secrets.
impl fmt::Debug for PodTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PodTemplate")
    }
}

impl PodTemplate {
    pub(crate) fn value(&self) -> &Value {
        &self.0
    }

    /// Returns what is wrong with it, otherwise.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut template: Value = serde_saphyr::from_str(text)
            .map_err(|error| format!("cannot read that file as YAML: {}", first_line(&error)))?;
        let Value::Object(parts) = &template else {
            return Err("write the metadata and the spec of a pod into that file".to_owned());
        };
        if let Some(name) = parts.keys().find(|name| !["metadata", "spec"].contains(&&***name)) {
            return Err(format!(
                "{name} does not belong into that file: write only the metadata and the spec of a \
                 pod, as in the template of a Deployment"
            ));
        }
        write_quantities(&mut template);
        let known: PodTemplateSpec = serde_json::from_value(template.clone())
            .map_err(|error| format!("that file is not a pod's template: {error}"))?;
        let known = serde_json::to_value(known).unwrap_or_default();
        match unknown_field(&template, &known) {
            Some(field) => Err(format!("pods have no field {field}: correct that file")),
            None => Ok(Self(template)),
        }
    }
}

impl Document {
    pub(super) fn read_pod_template(&mut self, pool: &str, runner: &Runner) -> Option<PodTemplate> {
        let file = runner.pod_template.as_deref()?;
        match read(file) {
            Ok(template) => Some(template),
            Err(problem) => {
                self.error(&format!("{pool}/pod_template"), problem);
                None
            }
        }
    }
}

fn read(file: &Path) -> Result<PodTemplate, String> {
    let content = read_file(file, BYTES_MAX + 1)
        .map_err(|error| format!("cannot read that file: {error}"))?;
    if content.len() as u64 > BYTES_MAX {
        return Err("that file is larger than 256 KiB".to_owned());
    }
    let text = String::from_utf8(content).map_err(|_| "that file is not UTF-8".to_owned())?;
    PodTemplate::parse(&text)
}

fn first_line(error: &dyn fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Kubernetes reads numbers as quantities, such as `cpu: 2`.
fn write_quantities(value: &mut Value) {
    let quantities = ["limits", "requests", "sizeLimit", "divisor", "overhead"];
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Object(amounts) if quantities.contains(&name.as_str()) => {
                        amounts.values_mut().for_each(write_number);
                    }
                    field if quantities.contains(&name.as_str()) => write_number(field),
                    field => write_quantities(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_quantities),
        _ => {}
    }
}

fn write_number(value: &mut Value) {
    if let Value::Number(number) = value {
        *value = Value::String(number.to_string());
    }
}

/// The first field of `given` that is not in `known`, which lacks what Kubernetes does not know.
fn unknown_field(given: &Value, known: &Value) -> Option<String> {
    let below = |name: String, rest: String| match rest.is_empty() || rest.starts_with('[') {
        true => format!("{name}{rest}"),
        false => format!("{name}.{rest}"),
    };
    match (given, known) {
        (Value::Object(given), known) => {
            given.iter().find_map(|(name, value)| match known.get(name) {
                _ if value.is_null() => None,
                None => Some(name.clone()),
                Some(known) => unknown_field(value, known).map(|rest| below(name.clone(), rest)),
            })
        }
        (Value::Array(given), known) => given.iter().enumerate().find_map(|(index, value)| {
            let rest = unknown_field(value, known.get(index)?)?;
            Some(below(format!("[{index}]"), rest))
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_the_metadata_and_the_spec_of_a_pod() {
        let template = PodTemplate::parse(
            "metadata: {labels: {team: build}}\n\
             spec:\n  tolerations: [{key: ci, operator: Exists}]\n  containers:\n  - name: runner\n    \
             resources: {limits: {example.com/fpga: 1}, requests: {cpu: 1.5}}\n",
        );
        let spec = &template.unwrap().0["spec"];
        assert_eq!(spec["containers"][0]["resources"]["limits"]["example.com/fpga"], "1");
        assert_eq!(spec["containers"][0]["resources"]["requests"]["cpu"], "1.5");
        // JSON is YAML.
        PodTemplate::parse(r#"{"spec": {"nodeSelector": {"disk": "ssd"}}}"#).unwrap();
    }

    #[test]
    fn what_kubernetes_would_drop_or_refuse_is_reported_with_its_place() {
        for (text, expected) in [
            ("spec: {tolerations: [{kee: ci}]}", "pods have no field spec.tolerations[0].kee:"),
            ("spec: {toleration: []}", "pods have no field spec.toleration:"),
            ("metadata: {label: {}}", "pods have no field metadata.label:"),
            ("kind: Pod\nspec: {}", "kind does not belong into that file:"),
            ("spec: {priority: high}", "that file is not a pod's template:"),
            ("spec: {", "cannot read that file as YAML:"),
            ("[]", "write the metadata and the spec of a pod"),
        ] {
            let problem = PodTemplate::parse(text).unwrap_err();
            assert!(problem.starts_with(expected), "{text}: {problem}");
            assert!(!problem.contains('\n'), "{problem}");
        }
    }
}
