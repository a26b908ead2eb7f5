//! Each test starts everything anew, so any of them can be run alone:
//! `cargo xtask test` sets the variables that name what is tested.

mod body;
mod command_line;
mod credentials;
mod dind;
mod drain;
mod edge;
mod github;
mod hooks;
mod job;
mod own_envoy;
mod recovery;
mod scheduling;
mod webhook;
