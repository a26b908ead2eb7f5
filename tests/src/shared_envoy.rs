//! Envoys that one test leaves to the next. To start one takes half a second of a processor, most of
//! it to compile the filter.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Result;
use edgerunner_testkit::{Envoy, ports};
use tempfile::TempDir;

/// Of tests with the same configuration and variables of Envoy, and one sidecar.
pub(crate) struct SharedEnvoy {
    /// None before the first test has started it.
    pub(crate) envoy: Option<Envoy>,
    directory: TempDir,
    /// Where it looks for the sidecar.
    sidecar: SocketAddr,
    idle: Arc<Idle>,
}

/// Those that no test uses. They are killed with the last test that could.
type Idle = Mutex<Vec<(Envoy, TempDir, SocketAddr)>>;

impl SharedEnvoy {
    pub(crate) fn take() -> Result<Self> {
        static IDLE: Mutex<Weak<Idle>> = Mutex::new(Weak::new());
        let idle = {
            let mut current = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = current.upgrade().unwrap_or_default();
            *current = Arc::downgrade(&idle);
            idle
        };
        let left = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(match left {
            Some((envoy, directory, sidecar)) => {
                Self { envoy: Some(envoy), directory, sidecar, idle }
            }
            None => Self { envoy: None, directory: TempDir::new()?, sidecar: ports::free()?, idle },
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn sidecar(&self) -> SocketAddr {
        self.sidecar
    }

    /// Leaves it to the next test.
    pub(crate) fn leave(self, envoy: Envoy) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((envoy, self.directory, self.sidecar));
    }
}
