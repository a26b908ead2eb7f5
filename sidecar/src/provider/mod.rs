//! Where runners run.

pub(crate) mod docker;
pub(crate) mod registration;
