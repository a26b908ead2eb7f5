//! The configuration while it is read: a tree of values, where each of them was written, and
//! the errors found so far.

use std::collections::{BTreeSet, HashMap};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use super::{
    ConfigError, ConfigErrors,
    schema::{Schema, is_a},
};

/// The tree of values that were written. Values are identified by JSON pointers.
pub(super) struct Document {
    pub(super) schema: Schema,
    pub(super) tree: Value,
    origins: HashMap<String, Origin>,
    errors: Vec<ConfigError>,
    /// Pointers of invalid values. Each is reported once: further errors would only follow from
    /// the first.
    invalid: BTreeSet<String>,
}

/// Where a value was written.
pub(super) enum Origin {
    /// `file:line`.
    Line(String),
    Variable(String),
    /// At this JSON pointer; a pool inherited it from there.
    Inherited(String),
}

impl Document {
    pub(super) fn new() -> Self {
        Self {
            schema: Schema::new(),
            tree: Value::Object(Map::new()),
            origins: HashMap::new(),
            errors: Vec::new(),
            invalid: BTreeSet::new(),
        }
    }

    pub(super) fn into_result<T>(self, config: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(self.errors)) }
    }

    pub(super) fn set_origin(&mut self, pointer: &str, origin: Origin) {
        self.origins.insert(pointer.to_owned(), origin);
    }

    pub(super) fn get(&self, pointer: &str) -> Option<&Value> {
        self.tree.pointer(pointer)
    }

    /// A table at the top level, created if it does not exist.
    pub(super) fn section(&mut self, name: &str) -> Option<&mut Map<String, Value>> {
        self.tree
            .as_object_mut()?
            .entry(name)
            .or_insert_with(|| Value::Object(Map::new()))
            .as_object_mut()
    }

    /// The pointers of the tables in a list.
    pub(super) fn tables(&self, list: &str) -> Vec<String> {
        let count = self.get(list).and_then(Value::as_array).map_or(0, Vec::len);
        (0..count).map(|index| format!("{list}/{index}")).collect()
    }

    /// Reports an error that has no value in the tree.
    pub(super) fn error_in(&mut self, location: String, problem: String) {
        self.errors.push(ConfigError { location, problem });
    }

    /// Reports the value at `pointer` as invalid, unless it, a table or list around it, or
    /// the value it was inherited from was reported before.
    pub(super) fn error(&mut self, pointer: &str, problem: impl Into<String>) {
        let (pointer, origin) = self.trace(pointer);
        if ancestors(&pointer).any(|location| self.invalid.contains(location)) {
            return;
        }
        let location = match origin {
            Some(Origin::Variable(name)) => name.clone(),
            Some(Origin::Line(line)) => format!("{line}: {}", dotted(&pointer)),
            Some(Origin::Inherited(_)) | None => dotted(&pointer),
        };
        let mut problem = problem.into();
        if let Some(found) = self.found(&pointer) {
            problem = format!("{problem} (found {found})");
        }
        self.invalid.insert(pointer);
        self.error_in(location, problem);
    }

    /// The value at `pointer` as it may be shown: not if it could be a secret, also one that was
    /// written in the wrong place.
    fn found(&self, pointer: &str) -> Option<String> {
        let schema = self.schema.at(pointer)?;
        let is_text = !is_a(schema, "object") && !is_a(schema, "array");
        let is_path = pointer.ends_with("_file");
        if schema["writeOnly"] == true || !is_text || is_path || pointer.contains("/env/") {
            return None;
        }
        match self.get(pointer)? {
            value @ (Value::Bool(_) | Value::Number(_)) => Some(value.to_string()),
            Value::String(text) if !may_be_secret(text) => Some(format!("{text:?}")),
            _ => None,
        }
    }

    /// Reports the value at `pointer` as invalid and says what the schema expects there.
    pub(super) fn expected(&mut self, pointer: &str) {
        let text = self.schema.what_to_write(pointer);
        let text = match self.trace(pointer).1 {
            Some(Origin::Variable(_)) => text.replace(" in quotes", "").replace('"', ""),
            _ => text,
        };
        self.error(pointer, format!("write {text}"));
    }

    /// Where the value at `pointer` was written, and its pointer there.
    fn trace(&self, pointer: &str) -> (String, Option<&Origin>) {
        for location in ancestors(pointer) {
            match self.origins.get(location) {
                Some(Origin::Inherited(from)) => {
                    return self.trace(&format!("{from}{}", &pointer[location.len()..]));
                }
                Some(origin) => return (pointer.to_owned(), Some(origin)),
                None => {}
            }
        }
        (pointer.to_owned(), None)
    }

    /// The value at `pointer`, with defaults for missing values and for invalid ones, which
    /// are reported.
    pub(super) fn read<T: DeserializeOwned + Default>(&mut self, pointer: &str) -> T {
        while let Some(value) = self.get(pointer) {
            match serde_path_to_error::deserialize(value.clone()) {
                Ok(read) => return read,
                Err(error) => {
                    let location = error.path().iter().fold(pointer.to_owned(), pointer_to);
                    self.expected(&location);
                    self.prune(&location);
                }
            }
        }
        T::default()
    }

    /// Removes a value, so that the others around it can be read.
    pub(super) fn prune(&mut self, pointer: &str) {
        // If the reader points at a value that is not in the tree, the value around it has to
        // go. Otherwise `read` would fail on it again and again.
        let _ = ancestors(pointer).find(|location| self.remove(location));
    }

    /// Whether there was such a value.
    fn remove(&mut self, pointer: &str) -> bool {
        let Some((parent, last)) = pointer.rsplit_once('/') else {
            return false;
        };
        match self.tree.pointer_mut(parent) {
            Some(Value::Object(table)) => table.remove(&unescape(last)).is_some(),
            // The other items must keep their indexes. All these are lists of strings.
            Some(Value::Array(list)) => {
                last.parse().ok().and_then(|index: usize| list.get_mut(index)).is_some_and(|item| {
                    let empty = Value::String(String::new());
                    std::mem::replace(item, empty.clone()) != empty
                })
            }
            _ => false,
        }
    }
}

pub(super) fn child(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The other setting for the same thing, of which only one may be set.
pub(super) fn alternative(field: &str) -> Option<&'static str> {
    match field {
        "group" => Some("group_id"),
        "group_id" => Some("group"),
        "path" => Some("url"),
        "url" => Some("path"),
        _ => None,
    }
}

/// Whether a text is long and without words, has the form of a credential, or contains one.
fn may_be_secret(text: &str) -> bool {
    const LONGEST_WORD: usize = 20;
    let is_word_end = |c: char| !c.is_ascii_alphanumeric();
    text.is_empty()
        || text.split(is_word_end).any(|word| word.len() > LONGEST_WORD)
        || ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "-----", "@"]
            .iter()
            .any(|part| text.contains(part))
}

fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

fn pointer_to(pointer: String, segment: &Segment) -> String {
    match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } => child(&pointer, key),
        Segment::Enum { .. } | Segment::Unknown => pointer,
    }
}

/// The pointer itself, then those of the tables and lists around it, the nearest first.
fn ancestors(pointer: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(pointer), |location| {
        location.rsplit_once('/').map(|(parent, _)| parent)
    })
}

/// As in TOML: `pools[0].labels[1]`.
fn dotted(pointer: &str) -> String {
    pointer.split('/').skip(1).fold(String::new(), |path, segment| {
        let segment = unescape(segment);
        match segment.parse::<usize>() {
            Ok(index) => format!("{path}[{index}]"),
            Err(_) if path.is_empty() => segment,
            Err(_) => format!("{path}.{segment}"),
        }
    })
}
