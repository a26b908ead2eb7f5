//! Errors in the configuration.

use std::fmt;

/// An error in the configuration. Neither part repeats a value that could be a secret, also one
/// that was written in the wrong place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {problem}")]
pub(crate) struct ConfigError {
    /// File, line and setting, or the environment variable.
    pub location: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// All errors in the configuration, shown one on each line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigErrors(pub Vec<ConfigError>);

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}
