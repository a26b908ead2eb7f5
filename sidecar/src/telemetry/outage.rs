//! Something that fails again and again: logged when it begins, when the reason changes, and when it
//! is over.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
};

use tracing::{info, warn};

pub(crate) struct Outage {
    /// What fails, and what follows from it.
    what: &'static str,
    error: Mutex<Option<String>>,
}

impl Outage {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, error: Mutex::default() }
    }

    pub(crate) fn observe<T>(&self, result: &Result<T, impl Display>) {
        let what = self.what;
        let mut last = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        let error = result.as_ref().err().map(ToString::to_string);
        match &error {
            Some(error) if last.as_ref() != Some(error) => warn!(error, "{what}"),
            None if last.is_some() => info!("over: {what}"),
            _ => {}
        }
        *last = error;
    }
}
