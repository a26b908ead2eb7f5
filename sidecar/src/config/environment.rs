//! Settings from environment variables, and secrets from files.

use std::path::Path;

use serde_json::Value;

use super::{
    document::{Document, Origin, alternative},
    engine_address::DOCKER_VARIABLES,
    schema::{is_a, is_list},
};
use crate::secret::read_secret;

const FILE: &str = "_file";
/// Edits that turn a misspelled name into the name of a setting. Other programs' variables, such
/// as `RUNNER_NAME` or `DOCKER_CONFIG`, differ by more.
const TYPO_EDITS_MAX: usize = 2;
const CONFIG_FILE: &str = "EDGERUNNER_CONFIG";

fn variable(section: &str, field: &str) -> String {
    format!("{section}_{field}").to_ascii_uppercase()
}

impl Document {
    /// Every setting of a section has a variable, except tables and lists of tables.
    pub(super) fn read_environment(&mut self, env: &dyn Fn(&str) -> Option<String>) {
        let mut settings = Vec::new();
        for (section, fields) in self.schema.sections() {
            for (field, schema) in fields.iter().filter(|(_, schema)| is_settable(schema)) {
                let variable = variable(section, field);
                if let Some(text) = env(&variable).filter(|text| !text.is_empty()) {
                    let value = typed(schema, text);
                    settings.push((section.to_owned(), field.clone(), variable, value));
                }
            }
        }
        // The environment overrides the file, even where the file uses the alternative
        // setting.
        for (section, field, _, _) in &settings {
            if let Some(table) = self.section(section) {
                table.remove(field.trim_end_matches(FILE));
                table.remove(&format!("{}{FILE}", field.trim_end_matches(FILE)));
                if let Some(other) = alternative(field) {
                    table.remove(other);
                }
            }
        }
        for (section, field, variable, value) in settings {
            let pointer = format!("/{section}/{field}");
            if let Some(table) = self.section(&section) {
                table.insert(field, value);
                self.set_origin(&pointer, Origin::Variable(variable));
            }
        }
    }

    /// Reports variables that set nothing, and whose names are nearly those of settings.
    pub(super) fn check_variables(&mut self, names: &[String]) {
        let settings = self.schema.sections().flat_map(|(section, fields)| {
            let settable = fields.iter().filter(|(_, schema)| is_settable(schema));
            settable.map(move |(field, _)| variable(section, field))
        });
        let others = [CONFIG_FILE].into_iter().chain(DOCKER_VARIABLES).map(str::to_owned);
        let known: Vec<String> = settings.chain(others).collect();
        for name in names.iter().filter(|name| name.contains('_') && !known.contains(name)) {
            let nearest = known
                .iter()
                // Most names are far from each other, and comparing them all takes longer than all
                // else at the start.
                .filter(|known| known.len().abs_diff(name.len()) <= TYPO_EDITS_MAX)
                .map(|known| (strsim::damerau_levenshtein(known, name), known))
                .min_by_key(|(edits, _)| *edits);
            let Some((edits, nearest)) = nearest else { continue };
            let section = |name: &str| name.split_once('_').map(|(section, _)| section.to_owned());
            let edits_max = match section(name) == section(nearest) {
                true => TYPO_EDITS_MAX,
                false => 1,
            };
            if edits <= edits_max {
                let problem = format!("no setting has this variable: did you mean {nearest}?");
                self.error_in(name.clone(), problem);
            }
        }
    }

    /// Reads the secrets that are set by `…_file`.
    pub(super) fn read_secret_files(&mut self) {
        let sections = self.schema.sections().map(|(section, _)| format!("/{section}"));
        let tables: Vec<String> =
            sections.chain(self.tables("/credentials")).chain(self.tables("/registries")).collect();
        for table in tables {
            let fields = self.schema.at(&table).and_then(|schema| schema["properties"].as_object());
            let secrets: Vec<String> = fields
                .into_iter()
                .flatten()
                .filter(|(_, schema)| schema["writeOnly"] == true)
                .map(|(field, _)| field.clone())
                .collect();
            for field in secrets {
                self.read_secret_file(&table, &field);
            }
        }
    }

    fn read_secret_file(&mut self, table: &str, field: &str) {
        let secret = format!("{table}/{field}");
        let file = format!("{secret}{FILE}");
        let Some(path) = self.get(&file).and_then(Value::as_str).map(str::to_owned) else {
            return;
        };
        if self.get(&secret).is_some() {
            return self.error(&file, "the secret is also set directly: remove one of the two");
        }
        self.set_origin(&secret, Origin::Inherited(file.clone()));
        match read_secret(Path::new(&path)) {
            Ok(text) => {
                if let Some(Value::Object(fields)) = self.tree.pointer_mut(table) {
                    fields.insert(field.to_owned(), Value::String(text));
                }
            }
            Err(problem) => self.error(&file, problem),
        }
    }
}

pub(super) fn is_settable(schema: &Value) -> bool {
    !is_a(schema, "object") && !is_list(schema)
}

/// Text that does not have the setting's type stays text; reading the section reports it.
fn typed(schema: &Value, text: String) -> Value {
    let trimmed = text.trim();
    if is_a(schema, "array") {
        let items = trimmed.split(',').map(str::trim);
        return items.filter(|item| !item.is_empty()).collect();
    }
    if is_a(schema, "string") || schema.get("oneOf").is_some() || schema.get("enum").is_some() {
        return Value::String(text);
    }
    serde_json::from_str(trimmed).unwrap_or(Value::String(text))
}
