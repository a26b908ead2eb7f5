//! The sandbox from outside: through HTTP, through its handle, through its runner.

mod app_manifests;
mod control;
mod deliveries;
mod faults;
mod flow;
mod installations;
mod job_page;
mod protocol;
mod repositories;
mod rest;
mod support;
mod timestamps;
mod webhooks;
