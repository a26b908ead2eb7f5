//! `docs/configuration.md`, made of the doc comments, the schema and the example file.
//! Written anew by `UPDATE_EXPECT=1 cargo test -p edgerunner reference`.

use std::{fmt::Write as _, fs};

use expect_test::expect_file;
use serde_json::{Map, Value};

use super::{
    environment::is_settable,
    schema::{Schema, range},
    tests::EXAMPLE,
};

const INTRODUCTION: &str = "\
# Configuration reference

Made from the code: `sidecar/src/config/sections.rs`. What to set first is in the
[README](../README.md#configuration), and every field stands in
[edgerunner.example.toml](../edgerunner.example.toml).

Settings come from one TOML file (`--config FILE` or `EDGERUNNER_CONFIG`), from the
environment, or from both; the environment wins. The variable of a field is named below it.
In a variable, a list is separated by commas, and a single comma is an empty list. A field
without a variable is for the file alone. `edgerunner check` tells all errors at once.
";

#[test]
fn the_reference_is_what_the_code_says() {
    let schema = Schema::of_config();
    let example = fs::read_to_string(EXAMPLE).unwrap();
    let defaults: Value = toml::from_str(&example).unwrap();
    let mut text = INTRODUCTION.to_owned();
    for (name, section) in schema.0["properties"].as_object().unwrap() {
        if name == "pools" {
            text += &heading("[[pools]]", section);
            text += "\n`name`, unique, 1 to 30 of `a` to `z`, `0` to `9` and `-`, and any field of \
                     `[runner]` and of `[docker]` but `host`.\n";
        } else if let Some(fields) = section["items"]["properties"].as_object() {
            text += &heading(&format!("[[{name}]]"), section);
            text += &table(fields, None, &Value::Null);
        } else {
            let fields = section["properties"].as_object().unwrap();
            text += &heading(&format!("[{name}]"), section);
            text += &table(fields, Some(name), &defaults[name]);
        }
    }
    expect_file![concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")].assert_eq(&text);
}

fn heading(name: &str, section: &Value) -> String {
    format!("\n## `{name}`\n\n{}\n", prose(section))
}

fn table(fields: &Map<String, Value>, section: Option<&str>, defaults: &Value) -> String {
    let mut rows = "\n| field | default | meaning |\n| --- | --- | --- |\n".to_owned();
    for (field, schema) in fields {
        let variable = section
            .filter(|_| is_settable(schema))
            .map(|section| format!("<br>`{}`", format!("{section}_{field}").to_ascii_uppercase()));
        let default = match &defaults[field] {
            Value::Null => String::new(),
            default => format!("`{default}`"),
        };
        let range = range(schema).map(|range| format!(" Numbers{range}.")).unwrap_or_default();
        writeln!(
            rows,
            "| `{field}`{} | {default} | {}{range} |",
            variable.unwrap_or_default(),
            prose(schema),
        )
        .unwrap();
        let parts = schema["items"]["properties"].as_object().into_iter().flatten();
        for (part, schema) in parts {
            writeln!(rows, "| `{field}[].{part}` | | {} |", prose(schema)).unwrap();
        }
    }
    rows
}

fn prose(schema: &Value) -> String {
    let words: Vec<&str> =
        schema["description"].as_str().unwrap_or_default().split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}
