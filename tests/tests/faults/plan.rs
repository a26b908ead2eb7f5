//! Which scenarios run, and for how long.

use std::fmt;

/// The amount and the selection of scenarios.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) long: bool,
}

impl Plan {
    pub(crate) fn from_environment() -> Self {
        let seed = std::env::var("EDGERUNNER_SOAK").ok();
        let seed = seed.map(|seed| seed.parse().expect("EDGERUNNER_SOAK holds a number"));
        Self { seed: seed.unwrap_or(1), long: seed.is_some() }
    }

    pub(crate) fn pick<T>(&self, short: T, long: T) -> T {
        if self.long { long } else { short }
    }

    pub(crate) fn random(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }

    /// Short scenarios mostly wait, so they run in parallel. Long ones would disturb each
    /// other's figures.
    pub(crate) fn at_once(&self) -> usize {
        self.pick(6, 1)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faults, the {} form, seed {}", self.pick("short", "long"), self.seed)
    }
}
