//! Output of the commands that show something: as a table, JSON, YAML or names, once or repeatedly.

mod table;
mod watch;

use std::io::Write as _;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub(super) use table::{Table, Width, cut, parts, printable};

use edgerunner_scheduler::model::UnixMs;

/// In which form something is printed.
#[derive(Args, Clone, Copy, Default)]
pub(super) struct Form {
    /// Print JSON as the API returns it, the same as YAML, a table with all columns in full, or only
    /// names or IDs, one a line, as other commands take them. If left out, a table that is cut to
    /// the terminal's width.
    #[arg(long = "output", short = 'o', value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Print all columns in full, however wide: the same as `--output wide`.
    #[arg(long, conflicts_with = "format")]
    wide: bool,
    /// Print JSON: the same as `--output json`.
    #[arg(long, conflicts_with_all = ["format", "wide"])]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Yaml,
    Wide,
    Name,
}

/// The form, and whether to go on printing.
#[derive(Args, Clone, Copy, Default)]
pub(super) struct Output {
    #[command(flatten)]
    form: Form,
    /// Refresh every 2 s until Ctrl-C: in place on a terminal; with JSON, one object per line.
    #[arg(long)]
    watch: bool,
}

impl Form {
    fn format(self) -> Option<Format> {
        let wide = self.wide.then_some(Format::Wide);
        self.format.or(wide).or(self.json.then_some(Format::Json))
    }

    /// Prints `value` once. `names`: what `--output name` prints; `describe` makes text of it.
    pub(super) fn print<T: Serialize>(
        self,
        value: &T,
        names: impl Fn(&T) -> Vec<String>,
        describe: impl Fn(&T, Width) -> Result<String>,
    ) -> Result<()> {
        print(&self.text(value, &names, &describe)?)
    }

    fn text<T: Serialize>(
        self,
        value: &T,
        names: &impl Fn(&T) -> Vec<String>,
        describe: &impl Fn(&T, Width) -> Result<String>,
    ) -> Result<String> {
        match self.format() {
            None => describe(value, Width::of_terminal()),
            Some(Format::Wide) => describe(value, Width::FULL),
            Some(Format::Json) => json(value),
            Some(Format::Yaml) => yaml(value),
            Some(Format::Name) => {
                Ok(names(value).into_iter().map(|name| printable(name) + "\n").collect())
            }
        }
    }
}

impl Output {
    /// Prints what `get` returns, once or repeatedly. `names`: what `--output name` prints;
    /// `describe` makes text of it.
    pub(super) fn show<T: Serialize>(
        self,
        get: impl Fn() -> Result<T>,
        names: impl Fn(&T) -> Vec<String>,
        describe: impl Fn(&T, Width) -> Result<String>,
    ) -> Result<()> {
        let Self { form, watch } = self;
        if !watch {
            return form.print(&get()?, names, describe);
        }
        match form.format() {
            Some(Format::Json) => {
                watch::one_after_the_other(|| Ok(serde_json::to_string(&get()?)? + "\n"))
            }
            Some(Format::Yaml) => {
                watch::one_after_the_other(|| Ok("---\n".to_owned() + &yaml(&get()?)?))
            }
            _ => watch::in_place(|| form.text(&get()?, &names, &describe)),
        }
    }
}

/// Prints to standard output, with styles only if it is a terminal that wants them.
pub(super) fn print(text: &str) -> Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn yaml<T: Serialize>(value: &T) -> Result<String> {
    Ok(serde_saphyr::to_string(value)?)
}

pub(super) fn parse<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value)
        .context("unexpected response: does the sidecar have another version than this command?")
}

/// One line for each field that has a value.
pub(super) fn fields<const N: usize>(fields: [(&str, String); N]) -> String {
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{:<15}{}\n", format!("{name}:"), printable(value)))
        .collect()
}

/// What `key` is in each object of a list.
pub(super) fn names_in(list: &Value, key: &str) -> Vec<String> {
    let name = |item: &Value| match &item[key] {
        Value::String(name) => name.clone(),
        other => other.to_string(),
    };
    list.as_array().into_iter().flatten().map(name).collect()
}

pub(super) fn age(since: UnixMs, now: UnixMs) -> String {
    let seconds = now.saturating_sub(since) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli;

    fn form(options: &[&str]) -> Form {
        cli::arguments(options).unwrap()
    }

    fn printed(options: &[&str]) -> String {
        let pools = json!([{ "name": "a", "max": 4, "note": null }, { "name": "b\u{1b}" }]);
        let describe = |_: &Value, width| {
            Ok(if width == Width::FULL { "wide\n" } else { "fitted\n" }.to_owned())
        };
        form(options).text(&pools, &|pools| names_in(pools, "name"), &describe).unwrap()
    }

    #[test]
    fn every_format_prints_the_same_value() {
        assert_eq!(printed(&["-oname"]), "a\nb \n");
        assert_eq!(printed(&["--output=wide"]), "wide\n");
        assert_eq!(printed(&["--wide"]), "wide\n");
        let read: Value = serde_json::from_str(&printed(&["-o", "json"])).unwrap();
        assert_eq!(read[0]["max"], 4);
        assert_eq!(printed(&["--json"]), printed(&["-ojson"]));
        let yaml: Value = serde_saphyr::from_str(&printed(&["-oyaml"])).unwrap();
        assert_eq!(yaml, read);
    }

    #[test]
    fn one_format_is_chosen_at_most() {
        for wrong in [&["-ojson", "--wide"][..], &["--json", "-oyaml"], &["--json", "--wide"]] {
            assert!(cli::arguments::<Form>(wrong).is_err(), "{wrong:?}");
        }
        assert!(cli::arguments::<Form>(&["-oxml"]).is_err());
    }

    #[test]
    fn text_that_yaml_would_read_as_something_else_stays_text() {
        let value =
            json!({ "a": "true", "b": "1.0", "c": "x: y", "d": "", "e": "- z", "f": "a\nb" });
        let read: Value = serde_saphyr::from_str(&yaml(&value).unwrap()).unwrap();
        assert_eq!(read, value);
    }

    #[test]
    fn ages_have_units_by_their_size() {
        let ages = [0, 119, 120, 7_199, 7_200, 172_799, 172_800];
        let shown = ages.map(|seconds| age(1_000, 1_000 + seconds * 1_000));
        assert_eq!(shown, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
    }
}
