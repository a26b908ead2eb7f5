//! The JSON schema of the configuration file, generated from the sections.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::sections::File;

/// The JSON schema of the whole file: names, descriptions and types of all settings.
pub(super) struct Schema(pub(super) Value);

/// Names that are more similar than this are taken for a typo of each other.
const SIMILARITY_MIN: f64 = 0.8;

impl Schema {
    pub(super) fn new() -> Self {
        let settings =
            SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        Self(settings.into_generator().into_root_schema_for::<File>().to_value())
    }

    /// The tables at the top level and their fields, without lists of tables.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        let sections = self.0["properties"].as_object();
        sections
            .into_iter()
            .flatten()
            .filter_map(|(name, section)| Some((name.as_str(), section["properties"].as_object()?)))
    }

    /// Whether it is a list of tables.
    pub(super) fn is_list(&self, pointer: &str) -> bool {
        self.at(pointer).is_some_and(is_list)
    }

    /// Whether it is a table whose fields the schema names.
    pub(super) fn is_table(&self, pointer: &str) -> bool {
        self.at(pointer).is_some_and(|schema| schema["properties"].is_object())
    }

    /// The schema of the value at a JSON pointer.
    pub(super) fn at(&self, pointer: &str) -> Option<&Value> {
        pointer.split('/').skip(1).try_fold(&self.0, |schema, segment| {
            schema
                .get("properties")
                .and_then(|properties| properties.get(segment))
                .or_else(|| schema.get("items"))
                .or_else(|| schema.get("additionalProperties"))
                .filter(|schema| schema.is_object())
        })
    }

    /// What to write at a JSON pointer, for an error message.
    pub(super) fn what_to_write(&self, pointer: &str) -> String {
        self.at(pointer).map_or_else(|| "a different value".to_owned(), what_to_write)
    }

    /// Which setting of `parent` an unknown name was probably meant to be.
    pub(super) fn suggestion(&self, parent: &str, name: &str) -> String {
        let fields = self.at(parent).and_then(|schema| schema["properties"].as_object());
        let fields: Vec<&str> =
            fields.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let nearest = fields
            .iter()
            .map(|field| (strsim::jaro_winkler(field, name), field))
            .max_by(|one, other| one.0.total_cmp(&other.0));
        if let Some((similarity, field)) = nearest
            && similarity > SIMILARITY_MIN
        {
            return format!("did you mean `{field}`?");
        }
        let elsewhere = self.sections().find(|(_, fields)| fields.contains_key(name));
        match elsewhere {
            Some((section, _)) => format!("did you mean `{section}.{name}`?"),
            None => format!("write one of {}", fields.join(", ")),
        }
    }
}

pub(super) fn is_a(schema: &Value, kind: &str) -> bool {
    match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        one => one == kind,
    }
}

pub(super) fn is_list(schema: &Value) -> bool {
    is_a(schema, "array") && is_a(&schema["items"], "object")
}

/// ` from 1 to 10`.
pub(super) fn range(schema: &Value) -> Option<String> {
    match (&schema["minimum"], &schema["maximum"]) {
        (Value::Number(min), Value::Number(max)) => Some(format!(" from {min} to {max}")),
        _ => None,
    }
}

fn what_to_write(schema: &Value) -> String {
    if let Some(text) = schema["x-write"].as_str() {
        return text.to_owned();
    }
    let words: Vec<String> = match (&schema["enum"], &schema["oneOf"]) {
        (Value::Array(words), _) => words.iter().map(Value::to_string).collect(),
        (_, Value::Array(variants)) => {
            variants.iter().map(|variant| variant["const"].to_string()).collect()
        }
        _ => Vec::new(),
    };
    if !words.is_empty() {
        return words.join(" or ");
    }
    let range = range(schema).unwrap_or_default();
    if is_a(schema, "integer") {
        format!("a whole number{range}")
    } else if is_a(schema, "number") {
        format!("a number{range}")
    } else if is_a(schema, "boolean") {
        "true or false".to_owned()
    } else if is_a(schema, "array") {
        "a list of strings such as [\"one\", \"two\"]".to_owned()
    } else if is_a(schema, "object") {
        "a table".to_owned()
    } else {
        "a string in quotes".to_owned()
    }
}
