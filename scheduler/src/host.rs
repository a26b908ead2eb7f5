//! The host of a GitHub server: GitHub numbers jobs, and people name repositories, on each one
//! by itself.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    fmt,
    sync::{Mutex, PoisonError},
};

/// Different hosts that are kept. Only signed webhooks name hosts that the configuration does
/// not.
const HOSTS_MAX: usize = 1_000;
/// Stands for every host beyond that number. No credential serves it.
const ANY_OTHER: &str = "(other)";

/// Every host that was ever named, so that a copy of one is as cheap as a number.
static HOSTS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The host of a server's web pages, in lower case and with its port unless that is the default:
/// `github.com`. The default value is an empty name: the host is not known.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Host(&'static str);

/// Two values of one host nearly always share their text, so most comparisons end at its address.
impl Ord for Host {
    fn cmp(&self, other: &Self) -> Ordering {
        if std::ptr::eq(self.0, other.0) { Ordering::Equal } else { self.0.cmp(other.0) }
    }
}

impl PartialOrd for Host {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Host {
    pub fn new(name: &str) -> Self {
        if name.is_empty() {
            return Self::default();
        }
        let mut hosts = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hosts.get(name) {
            return Self(known);
        }
        if hosts.len() >= HOSTS_MAX {
            return Self(ANY_OTHER);
        }
        let name: &'static str = Box::leak(name.into());
        hosts.insert(name);
        Self(name)
    }

    pub fn as_str(self) -> &'static str {
        self.0
    }

    pub fn is_known(self) -> bool {
        !self.0.is_empty()
    }

    /// Whether the two are one as far as is known.
    pub fn may_be(self, other: Self) -> bool {
        self == other || !self.is_known() || !other.is_known()
    }

    /// This host if it is known, or else the other.
    pub fn or(self, other: Self) -> Self {
        if self.is_known() { self } else { other }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_equal_if_their_names_are() {
        let name = String::from("ghe.example.com");
        assert_eq!(Host::new(&name), Host::new("ghe.example.com"));
        assert_ne!(Host::new(&name), Host::new("github.com"));
        assert_eq!(Host::new(""), Host::default());
        assert_eq!(Host::default().or(Host::new(&name)).as_str(), name);
    }
}
