//! Each test starts everything anew, so any of them can be run alone:
//! `cargo xtask test` sets the variables that name what is tested.

mod api;
mod body;
mod command_line;
mod containers;
mod credentials;
mod dind;
mod documents;
mod drain;
mod edge;
mod enterprise_server;
mod github;
mod groups;
mod hooks;
mod images;
mod job;
mod kubernetes;
mod metrics;
mod missed;
mod operator;
mod own_envoy;
mod packages;
mod recovery;
mod scheduling;
mod sweep;
mod traces;
mod webhook;
