//! Docker against a fake Engine.
