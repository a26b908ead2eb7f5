//! The control loop: what the planner decides, carried out.

pub(crate) mod clock;
pub(crate) mod driver;
pub(crate) mod executor;
pub(crate) mod pools;
pub(crate) mod reload;
pub(crate) mod snapshot;
