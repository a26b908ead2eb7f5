//! Problems that are found again and again while they last, and logged when they begin.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The problems of one kind that exist, by what they are about.
#[derive(Default)]
pub(crate) struct Recurring(Mutex<BTreeMap<String, String>>);

impl Recurring {
    /// Replaces all problems by the current ones. Returns those that are new or have changed.
    pub(crate) fn replace(
        &self,
        current: impl IntoIterator<Item = (String, String)>,
    ) -> Vec<(String, String)> {
        let current: BTreeMap<String, String> = current.into_iter().collect();
        let mut known = self.lock();
        let is_new = |(subject, problem): &(&String, &String)| known.get(*subject) != Some(problem);
        let new = current.iter().filter(is_new);
        let new = new.map(|(subject, problem)| (subject.clone(), problem.clone())).collect();
        *known = current;
        new
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_new_when_it_begins_changes_or_begins_again() {
        let problems = Recurring::default();
        let found = |current: &[(&str, &str)]| -> Vec<String> {
            let current = current
                .iter()
                .map(|(subject, problem)| ((*subject).to_owned(), (*problem).to_owned()));
            problems.replace(current).into_iter().map(|(subject, _)| subject).collect()
        };
        assert_eq!(found(&[("a", "hangs"), ("b", "hangs")]), ["a", "b"]);
        assert_eq!(found(&[("a", "hangs"), ("b", "is broken"), ("c", "hangs")]), ["b", "c"]);
        assert_eq!(found(&[("b", "is broken")]), [""; 0]);
        assert_eq!(found(&[("a", "hangs"), ("b", "is broken")]), ["a"]);
    }
}
