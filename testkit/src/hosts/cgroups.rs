//! The control groups of a set of hosts.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROOT: &str = "/sys/fs/cgroup";
/// The kernel removes the processes of a control group a moment after their end.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Removed when it is dropped. Everything in them has to end before.
pub(crate) struct Cgroups {
    name: String,
}

impl Cgroups {
    /// `id` is unique on this machine.
    pub(crate) fn new(id: &str) -> Self {
        Self { name: format!("edgerunner-{id}") }
    }

    /// The parent of the control groups of one host, as a container runtime takes it.
    pub(crate) fn of_host(&self, host: &str) -> String {
        format!("/{}/{host}", self.name)
    }

    /// Creates [`Self::of_host`], with all controllers: a kubelet does not.
    pub(crate) fn create(&self, host: &str) -> io::Result<()> {
        for hierarchy in hierarchies()? {
            let of_all = hierarchy.join(&self.name);
            std::fs::create_dir_all(of_all.join(host))?;
            for parent in [hierarchy, of_all] {
                pass_controllers(&parent)?;
            }
        }
        Ok(())
    }

    fn remove(&self) -> io::Result<()> {
        for cgroup in hierarchies()?.into_iter().map(|hierarchy| hierarchy.join(&self.name)) {
            if cgroup.is_dir() {
                remove(&cgroup)?;
            }
        }
        Ok(())
    }
}

impl Drop for Cgroups {
    #[expect(clippy::disallowed_methods, reason = "a destructor cannot await")]
    fn drop(&mut self) {
        let deadline = Instant::now() + END_LIMIT;
        while let Err(error) = self.remove() {
            if Instant::now() > deadline {
                eprintln!("cannot remove the control groups {}: {error}", self.name);
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The one of version 2, or each of version 1.
fn hierarchies() -> io::Result<Vec<PathBuf>> {
    let root = PathBuf::from(ROOT);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root]);
    }
    let entries = root.read_dir()?.map(|entry| Ok(entry?.path()));
    let entries = entries.collect::<io::Result<Vec<PathBuf>>>()?;
    // Some are links to others.
    Ok(entries.into_iter().filter(|path| path.is_dir() && !path.is_symlink()).collect())
}

/// In version 2, the groups in a control group have only the controllers that its
/// `cgroup.subtree_control` names.
fn pass_controllers(cgroup: &Path) -> io::Result<()> {
    let Ok(controllers) = std::fs::read_to_string(cgroup.join("cgroup.controllers")) else {
        return Ok(());
    };
    let all = controllers.split_whitespace().map(|name| format!("+{name}"));
    std::fs::write(cgroup.join("cgroup.subtree_control"), all.collect::<Vec<_>>().join(" "))
}

/// Its files cannot be removed, and need not be.
fn remove(path: &Path) -> io::Result<()> {
    for entry in path.read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    std::fs::remove_dir(path)
}
