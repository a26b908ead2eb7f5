//! A stand-in GitHub, for trying edgerunner without credentials and for its tests: the REST
//! endpoints that an autoscaler calls, signed webhooks, faults on demand, and a stand-in runner
//! that runs the jobs.

mod app;
mod app_manifest;
mod assertion;
mod call;
mod control;
mod delivery;
mod faults;
mod http_client;
mod installation;
mod jit_config;
mod job;
mod job_message;
mod job_page;
mod keys;
mod payload;
mod protocol;
mod rate_limit;
mod registration;
mod repository;
mod rest;
pub mod runner;
mod runner_groups;
mod runner_service;
mod sandbox;
mod scope;
mod sender;
mod settings;
mod signature;
mod state;

pub use call::Call;
pub use delivery::DeliveryRecord;
pub use faults::{DeliveryFault, DeliveryFaultKind, Fault, Faults, RequestFault, RetryAfter};
pub use installation::InstallationStatus;
pub use job::{AssignedRunner, Conclusion, Job, JobRequest, JobStatus, Step};
pub use payload::APP_ID;
pub use registration::Runner;
pub use repository::{Access, NameTaken, Repository, Visibility};
pub use sandbox::{Sandbox, Timeout};
pub use scope::{InvalidRepositoryName, RepositoryName, Scope};
pub use settings::{Settings, WebhookKind};
pub use state::jobs::JobError;
pub use state::registrations::RemoveError;
