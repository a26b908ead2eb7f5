//! Each test starts everything anew, so any of them can be run alone:
//! `cargo xtask test` sets the variables that name what is tested.

mod body;
mod command_line;
mod containers;
mod credentials;
mod dind;
mod drain;
mod edge;
mod github;
mod hooks;
mod images;
mod job;
mod own_envoy;
mod recovery;
mod scheduling;
mod sweep;
mod webhook;
