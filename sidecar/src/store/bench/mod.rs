//! Benchmarks of the store.

mod accept;
mod month;

pub use accept::accept;
pub use month::measure;
