//! The sandbox seen from outside: over HTTP, through its handle, by its runner.

mod control;
mod faults;
mod flow;
mod hooks;
mod rest;
mod support;
mod webhooks;
