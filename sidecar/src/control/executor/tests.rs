//! The executor against a fake provider and a small GitHub.
