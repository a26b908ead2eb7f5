//! What jobs ask for by labels of the form `key=value`, within what their pool permits.
//!
//! GitHub assigns a job to a runner that has all of its labels, so a runner is launched with those
//! very labels, and only jobs that ask for the same share it.

use std::{
    error, fmt,
    ops::{Deref, RangeInclusive},
    str::FromStr,
    sync::Arc,
};

/// What the labels of a job ask for. Small and cheap to clone, also if that is something: each lane
/// and each runner has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Parameters(Option<Arc<Values>>);

/// The values of [`Parameters`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Values {
    /// The runner's limit of CPUs.
    pub cpu: Option<u32>,
    /// The runner's limit of memory.
    pub memory_gib: Option<u32>,
    /// The runner's image, as the pool's list has it.
    pub image: Option<String>,
    /// The workflow run of the job. One that names another run cannot use the runner.
    pub run: Option<u64>,
}

/// What the labels of a job may ask a pool for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelParameters {
    pub cpu: Option<RangeInclusive<u32>>,
    pub memory_gib: Option<RangeInclusive<u32>>,
    /// Empty: none may be asked for.
    pub image: Vec<String>,
    pub run: bool,
}

/// A text that is not [`Parameters`].
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidParameters(String);

impl fmt::Display for InvalidParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` has something else than cpu=, memory_gib=, image= and run=", self.0)
    }
}

impl error::Error for InvalidParameters {}

const MIB_PER_GIB: u64 = 1_024;
const NONE: &Values = &Values { cpu: None, memory_gib: None, image: None, run: None };

impl Deref for Parameters {
    type Target = Values;

    fn deref(&self) -> &Values {
        self.0.as_deref().unwrap_or(NONE)
    }
}

impl From<Values> for Parameters {
    fn from(values: Values) -> Self {
        Self((values != *NONE).then(|| Arc::new(values)))
    }
}

impl Values {
    pub fn memory_mib(&self) -> Option<u64> {
        self.memory_gib.map(|gib| u64::from(gib) * MIB_PER_GIB)
    }
}

impl Parameters {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The labels that ask for this.
    pub fn labels(&self) -> Vec<String> {
        let Values { cpu, memory_gib, image, run } = &**self;
        let cpu = cpu.map(|cpu| format!("cpu={cpu}"));
        let memory = memory_gib.map(|gib| format!("memory_gib={gib}"));
        let image = image.as_ref().map(|image| format!("image={image}"));
        let run = run.map(|run| format!("run={run}"));
        [cpu, memory, image, run].into_iter().flatten().collect()
    }

    /// Those that the container depends on.
    pub(super) fn of_container(&self) -> Self {
        match self.run {
            None => self.clone(),
            Some(_) => Values { run: None, ..Values::clone(self) }.into(),
        }
    }
}

/// Their labels, with spaces between them.
impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.labels().join(" "))
    }
}

/// From what [`Parameters`] are displayed as.
impl FromStr for Parameters {
    type Err = InvalidParameters;

    fn from_str(text: &str) -> Result<Self, InvalidParameters> {
        let invalid = || InvalidParameters(text.to_owned());
        let mut parameters = Values::default();
        for label in text.split_whitespace() {
            let (key, value) = label.split_once('=').ok_or_else(invalid)?;
            let known = match key {
                "cpu" => set(&mut parameters.cpu, value.parse().ok()),
                "memory_gib" => set(&mut parameters.memory_gib, value.parse().ok()),
                "image" => set(&mut parameters.image, Some(value.to_owned())),
                "run" => set(&mut parameters.run, value.parse().ok()),
                _ => false,
            };
            if !known {
                return Err(invalid());
            }
        }
        Ok(parameters.into())
    }
}

/// Returns whether there is a value, and no other one before.
fn set<T: PartialEq>(slot: &mut Option<T>, value: Option<T>) -> bool {
    match (slot.as_ref(), value) {
        (_, None) => false,
        (Some(before), Some(value)) => *before == value,
        (None, value) => {
            *slot = value;
            true
        }
    }
}

impl LabelParameters {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The keys that labels may have.
    pub fn keys(&self) -> Vec<&'static str> {
        [
            ("cpu", self.cpu.is_some()),
            ("memory_gib", self.memory_gib.is_some()),
            ("image", !self.image.is_empty()),
            ("run", self.run),
        ]
        .into_iter()
        .filter_map(|(key, permitted)| permitted.then_some(key))
        .collect()
    }

    /// Adds what a label in lower case asks for to `parameters`. `run_id`: that of the job; 0 if
    /// it is not known. The error says what is wrong with the label, after its name.
    pub(super) fn read(
        &self,
        label: &str,
        run_id: u64,
        parameters: &mut Values,
    ) -> Result<(), String> {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        let is_only = match (key, &self.cpu, &self.memory_gib) {
            ("cpu", Some(range), _) => {
                set(&mut parameters.cpu, Some(number_in(key, value, range)?))
            }
            ("memory_gib", _, Some(range)) => {
                set(&mut parameters.memory_gib, Some(number_in(key, value, range)?))
            }
            ("image", ..) if !self.image.is_empty() => {
                let image = self.image.iter().find(|image| image.eq_ignore_ascii_case(value));
                let Some(image) = image else {
                    let permitted = self.image.join(", ");
                    return Err(format!("names none of the permitted images: {permitted}"));
                };
                set(&mut parameters.image, Some(image.clone()))
            }
            ("run", ..) if self.run => match number(value) {
                Some(run) if run_id == 0 || run == run_id => set(&mut parameters.run, Some(run)),
                _ => {
                    let own = "does not name the job's own run: write run=${{ github.run_id }}";
                    return Err(own.to_owned());
                }
            },
            _ => {
                let permitted = self.keys().join(", ");
                return Err(format!("has another key than the permitted ones: {permitted}"));
            }
        };
        is_only.then_some(()).ok_or_else(|| format!("contradicts another label with the key {key}"))
    }
}

fn number_in(key: &str, value: &str, range: &RangeInclusive<u32>) -> Result<u32, String> {
    let (min, max) = range.clone().into_inner();
    number(value)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            format!(
                "has no value that is permitted: write a whole number, {key}={min} to {key}={max}"
            )
        })
}

/// As GitHub would compare it with the same number in a runner's label.
fn number(value: &str) -> Option<u64> {
    value.parse().ok().filter(|number: &u64| number.to_string() == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted() -> LabelParameters {
        LabelParameters {
            cpu: Some(1..=8),
            memory_gib: Some(2..=64),
            image: vec!["ghcr.io/acme/runner:22.04-A".into(), "acme/other".into()],
            run: true,
        }
    }

    fn read(labels: &[&str]) -> Result<Parameters, String> {
        let mut parameters = Values::default();
        for label in labels {
            permitted().read(label, 17, &mut parameters)?;
        }
        Ok(parameters.into())
    }

    #[test]
    fn what_is_permitted_is_read_and_given_back_as_labels() {
        let labels = ["cpu=4", "memory_gib=64", "image=ghcr.io/acme/runner:22.04-a", "run=17"];
        let parameters = read(&labels).unwrap();
        assert_eq!(
            parameters.to_string(),
            "cpu=4 memory_gib=64 image=ghcr.io/acme/runner:22.04-A run=17"
        );
        assert_eq!(parameters.to_string().parse(), Ok(parameters));
        assert_eq!("".parse(), Ok(Parameters::default()));
        assert_eq!(read(&["cpu=4", "cpu=4"]), read(&["cpu=4"]));
    }

    #[test]
    fn what_is_not_permitted_says_what_to_write() {
        for (labels, expected) in [
            (&["cpu=9"][..], "write a whole number, cpu=1 to cpu=8"),
            (&["cpu=0"], "cpu=1 to cpu=8"),
            (&["cpu=04"], "cpu=1 to cpu=8"),
            (&["cpu=+4"], "cpu=1 to cpu=8"),
            (&["cpu=1.5"], "cpu=1 to cpu=8"),
            (&["cpu="], "cpu=1 to cpu=8"),
            (&["memory_gib=99999999999999999999"], "memory_gib=2 to memory_gib=64"),
            (&["image=ubuntu"], "ghcr.io/acme/runner:22.04-A, acme/other"),
            (&["run=18"], "write run=${{ github.run_id }}"),
            (&["run=x"], "write run=${{ github.run_id }}"),
            (&["gpu=1"], "permitted ones: cpu, memory_gib, image, run"),
            (&["cpu=4", "cpu=5"], "contradicts another label with the key cpu"),
        ] {
            let problem = read(labels).unwrap_err();
            assert!(problem.ends_with(expected), "{labels:?}: {problem}");
        }
        let none = LabelParameters { run: true, ..LabelParameters::default() };
        let problem = none.read("cpu=4", 17, &mut Values::default()).unwrap_err();
        assert!(problem.ends_with("the permitted ones: run"), "{problem}");
    }

    #[test]
    fn a_text_that_has_something_else_is_no_parameters() {
        for text in ["cpu=x", "gpu=1", "cpu", "cpu=1 cpu=2"] {
            assert_eq!(text.parse::<Parameters>(), Err(InvalidParameters(text.into())));
        }
    }
}
