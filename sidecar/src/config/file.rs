//! The configuration file: parses TOML and keeps the line of each value.

use std::path::Path;

use serde_json::{Map, Value};
use toml::{
    Spanned,
    de::{DeInteger, DeTable, DeValue},
};

use super::document::{Document, Origin, child};
use crate::blocking::read_text;

/// Thousands of pools need less.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

impl Document {
    pub(super) fn read_file(&mut self, path: &Path) {
        let text = match read_text(path, CONFIG_BYTES_MAX) {
            Ok(text) => text,
            Err(error) => {
                let problem = format!("cannot read the configuration file: {error}");
                return self.error_in(path.display().to_string(), problem);
            }
        };
        let line = |offset: usize| {
            let breaks = text.bytes().take(offset).filter(|byte| *byte == b'\n');
            format!("{}:{}", path.display(), breaks.count() + 1)
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            let location = line(error.span().map_or(0, |span| span.start));
            self.error_in(location, format!("invalid TOML: {}", error.message()));
        }
        self.tree = self.convert_table(table.get_ref(), "", &line);
    }

    fn convert_table(
        &mut self,
        table: &DeTable<'_>,
        pointer: &str,
        line: &impl Fn(usize) -> String,
    ) -> Value {
        let converted = table.iter().map(|(name, value)| {
            let location = child(pointer, name.get_ref());
            self.set_origin(&location, Origin::Line(line(name.span().start)));
            (name.get_ref().to_string(), self.convert(value, &location, line))
        });
        Value::Object(converted.collect::<Map<_, _>>())
    }

    fn convert(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        pointer: &str,
        line: &impl Fn(usize) -> String,
    ) -> Value {
        match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Integer(number) => integer(number),
            DeValue::Float(number) => number
                .as_str()
                .parse()
                .ok()
                .and_then(serde_json::Number::from_f64)
                .map_or(Value::Null, Value::Number),
            DeValue::Datetime(_) => Value::Null,
            DeValue::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    let location = format!("{pointer}/{index}");
                    self.set_origin(&location, Origin::Line(line(item.span().start)));
                    self.convert(item, &location, line)
                })
                .collect(),
            DeValue::Table(table) => self.convert_table(table, pointer, line),
        }
    }
}

fn integer(number: &DeInteger<'_>) -> Value {
    i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Null, Value::from)
}
