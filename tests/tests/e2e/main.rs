//! End-to-end tests. Each starts everything itself, so each can run alone. `cargo xtask
//! test` sets the variables with the programs' paths.

mod api;
mod body;
mod command_line;
mod compose;
mod containers;
mod credentials;
mod dind;
mod docs_walkthrough;
mod documents;
mod drain;
mod edge;
mod enterprise_server;
mod github;
mod groups;
mod hooks;
mod how_to;
mod images;
mod isolation;
mod job;
mod kubernetes;
mod launch;
mod metrics;
mod missed;
mod operator;
mod own_envoy;
mod packages;
mod recovery;
mod registry;
mod restart;
mod scheduling;
mod swarm;
mod sweep;
mod terminal;
mod traces;
mod webhook;
