//! A stand-in GitHub for trying edgerunner without credentials and for its
//! tests: the REST calls an autoscaler makes, signed webhooks, faults on
//! demand, and a stand-in runner that takes the jobs.

mod app;
mod calls;
mod control;
mod delivery;
mod faults;
mod jitconfig;
mod job;
mod jobs;
mod payload;
mod protocol;
mod registration;
mod registrations;
mod rest;
pub mod runner;
mod sandbox;
mod scope;
mod sender;
mod sessions;
mod settings;
mod state;

pub use calls::Call;
pub use delivery::Delivery;
pub use faults::{DeliveryFault, Fault, Faults, Mishap, RequestFault, RetryAfter};
pub use job::{Conclusion, Job, JobRequest, JobStatus, Step, TakenBy};
pub use jobs::JobError;
pub use payload::APP_ID;
pub use registration::Runner;
pub use sandbox::{Sandbox, WaitedInVain};
pub use scope::{NotARepository, RepositoryName, Scope};
pub use settings::{HookKind, RunnerGroup, Settings};
