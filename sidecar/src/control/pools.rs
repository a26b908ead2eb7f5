//! Pools as they are now: they may be read anew while we run.

use std::sync::Arc;

use tokio::sync::watch;

use edgerunner_scheduler::plan::Pool;

pub(crate) type Pools = watch::Receiver<Arc<[Pool]>>;
