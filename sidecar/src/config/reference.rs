//! Generates `docs/configuration.md` from the doc comments, the schema and the example file.
//! To update it, run `UPDATE_EXPECT=1 cargo test -p edgerunner reference`.

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

This page is generated from `sidecar/src/config/sections.rs`. The
[README](../README.md#configuration) shows which settings you need first;
[edgerunner.example.toml](../edgerunner.example.toml) contains all of them.

Settings come from one TOML file, from environment variables, or from both; environment
variables override the file. The file is the first of these: the one that `--config FILE` names;
the one that the variable `EDGERUNNER_CONFIG` names, where an empty value means no file; and
`/etc/edgerunner/edgerunner.toml`, if it exists. The variable of a setting is
listed below its name. In a variable, separate the items of a list with commas; a single comma
is an empty list. A setting without a variable can only be set in the file. `edgerunner check`
reports all errors at once.
";

#[test]
fn the_reference_is_what_the_code_says() {
    let mut schema = Schema::new();
    // Whether serde_json does so itself depends on the packages that are built together.
    schema.0.sort_all_objects();
    let example = fs::read_to_string(EXAMPLE).unwrap();
    let defaults: Value = toml::from_str(&example).unwrap();
    let mut text = INTRODUCTION.to_owned();
    for (name, section) in schema.0["properties"].as_object().unwrap() {
        if name == "pools" {
            text += &heading("[[pools]]", section);
            text += "\nEach pool has a unique `name` (1 to 30 characters of `a` to `z`, `0` to `9` \
                     and `-`) and any setting of `[runner]` and `[docker]` except `host`, \
                     `cert_path`, `host_gpus` and those that begin with `reserve_`.\n";
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
    let mut rows = "\n| setting | default | meaning |\n| --- | --- | --- |\n".to_owned();
    for (field, schema) in fields {
        let variable = section
            .filter(|_| is_settable(schema))
            .map(|section| format!("<br>`{}`", format!("{section}_{field}").to_ascii_uppercase()));
        let default = match &defaults[field] {
            Value::Null => String::new(),
            default => format!("`{default}`"),
        };
        let range = range(schema).map(|range| format!(" A number{range}.")).unwrap_or_default();
        writeln!(
            rows,
            "| `{field}`{} | {default} | {}{range} |",
            variable.unwrap_or_default(),
            prose(schema),
        )
        .unwrap();
        add_parts(&mut rows, &format!("{field}[]"), &schema["items"]);
        add_parts(&mut rows, field, schema);
    }
    rows
}

/// The rows of a table within a table.
fn add_parts(rows: &mut String, name: &str, table: &Value) {
    for (part, schema) in table["properties"].as_object().into_iter().flatten() {
        let range = range(schema).map(|range| format!(" A number{range}.")).unwrap_or_default();
        writeln!(rows, "| `{name}.{part}` | | {}{range} |", prose(schema)).unwrap();
        add_parts(rows, &format!("{name}.{part}"), schema);
    }
}

fn prose(schema: &Value) -> String {
    let words: Vec<&str> =
        schema["description"].as_str().unwrap_or_default().split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}
