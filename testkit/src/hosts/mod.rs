//! Hosts made of namespaces, and the networks between them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;

mod cgroups;
mod host;
mod network;

pub(crate) use self::cgroups::Cgroups;
pub(crate) use self::host::Host;
pub(crate) use self::network::Network;

/// This machine's `PATH` with `bin` in front. Other users' paths lack the directories of system
/// programs, which runc and iptables are in.
pub(crate) fn search_path(bin: &Path) -> Result<OsString> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let first = [bin.to_owned(), bin.with_file_name("sbin")];
    Ok(std::env::join_paths(first.into_iter().chain(std::env::split_paths(&own)).chain(system))?)
}
