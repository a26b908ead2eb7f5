//! The scheduler: decides which runners to launch and remove. It has no clock, no
//! randomness of its own, no input or output, and cannot fail.

pub mod model;
pub mod plan;
pub mod schedule;
