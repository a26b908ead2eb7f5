//! The rules for a log in JSON: each line is one flat object, each key is there once, and no
//! value is the debug output of a program.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

/// An error that ends a program is printed for people, also by one that logs in JSON.
const PRINTED: &str = "edgerunner: ";

/// Checks each line of the sidecar's log.
pub fn check(log: &str) -> Result<()> {
    let mut is_printed = false;
    for (index, line) in log.lines().enumerate() {
        is_printed = !line.starts_with('{') && (is_printed || line.starts_with(PRINTED));
        if !is_printed {
            check_line(line).with_context(|| format!("line {} of the log: {line}", index + 1))?;
        }
    }
    Ok(())
}

fn check_line(line: &str) -> Result<()> {
    let Line(fields) = serde_json::from_str(line)?;
    for key in ["timestamp", "level", "message"] {
        let text = fields.get(key).and_then(Value::as_str).unwrap_or_default();
        ensure!(!text.is_empty(), "it has no {key}");
    }
    // Events of libraries have a name such as `Processor.Flush` in place of a text, and fields
    // as the library has them.
    let is_name = |text: &str| text.contains('.') && !text.contains(' ');
    let ours = !fields["message"].as_str().is_some_and(is_name);
    for (key, value) in &fields {
        match value {
            Value::Object(_) => bail!("{key} is an object"),
            Value::Null => bail!("{key} is null"),
            Value::String(text) => ensure!(!ours || !is_debug(text), "{key} is debug output"),
            Value::Array(items) => {
                ensure!(items.iter().all(Value::is_string), "{key} is not a list of texts");
            }
            Value::Bool(_) | Value::Number(_) => {}
        }
    }
    ensure!(!fields.contains_key("job") || fields.contains_key("delivery"), "it has no delivery");
    Ok(())
}

/// As Rust's `Debug` shows lists, options, results, structures and variants.
fn is_debug(text: &str) -> bool {
    let named = text.trim_start_matches(|it: char| it.is_ascii_alphanumeric() || "_:".contains(it));
    let is_named = named.len() < text.len() && text.starts_with(|it: char| it.is_ascii_uppercase());
    let is_variant = ["Some(", "Ok(", "Err("].iter().any(|start| text.starts_with(start));
    text == "None" || is_variant || text.starts_with("[\"") || is_named && named.starts_with(" { ")
}

/// The fields of a line, each of which it has once.
struct Line(Map<String, Value>);

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Line;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Line, A::Error> {
                let mut fields = Map::new();
                while let Some((key, value)) = access.next_entry::<String, Value>()? {
                    if fields.contains_key(&key) {
                        return Err(A::Error::custom(format!("{key} is there twice")));
                    }
                    fields.insert(key, value);
                }
                Ok(Line(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(fields: &str) -> Result<()> {
        let head = r#""timestamp":"2026-01-01T00:00:00Z","level":"INFO","message":"event stored""#;
        check(&format!("{{{head}{fields}}}\n"))
    }

    #[test]
    fn lines_are_flat_objects_that_have_each_key_once() {
        with(r#","job":"5#1","delivery":"guid","labels":["a"],"count":2,"live":true"#).unwrap();
        for wrong in [
            r#","message":"twice""#,
            r#","pool":"a","pool":"a""#,
            r#","labels":"[\"self-hosted\"]""#,
            r#","status":"Some(404)""#,
            r#","runner":"None""#,
            r#","event":"Launched { runner: \"edge-1\" }""#,
            r#","spans":[{"name":"launch"}]"#,
            r#","job":"5#1""#,
            r#","pool":null"#,
        ] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        assert!(check("not JSON\n").is_err());
        assert!(check("{\"level\":\"INFO\"}\n").is_err());
    }

    #[test]
    fn text_for_people_is_left_out_and_ends_with_the_next_line() {
        check("edgerunner: invalid configuration:\nGITHUB_TOKEN: no\n").unwrap();
        assert!(check("edgerunner: it failed\n{\"level\":\"INFO\"}\n").is_err());
    }
}
