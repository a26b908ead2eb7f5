//! The step `limits`: reports the resource limits of the container that the runner is in.

use std::fs::read_to_string;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// One line of JSON; resources without a limit are `null`.
pub(super) fn report() -> Result<String> {
    let status = read_to_string("/proc/self/status")?;
    let status = |name: &str| value_of(&status, name).map(str::to_owned);
    let limits = read_to_string("/proc/self/limits")?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut files = files.unwrap_or_default().split_whitespace();
    let mounts = read_to_string("/proc/self/mountinfo")?;
    let shm = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/dev/shm"));
    let shm = shm.and_then(|line| line.rsplit_once("size=")).map(|(_, rest)| rest);
    let report = json!({
        "memory": first_of(&["memory.max", "memory/memory.limit_in_bytes"]),
        "cpus": cpus()?,
        "pids": first_of(&["pids.max", "pids/pids.max"]),
        "open_files": [files.next(), files.next()],
        "shm": shm.and_then(|text| text.split([',', ' ']).next()),
        "user": status("Uid:").and_then(|ids| Some(ids.split_whitespace().next()?.to_owned())),
        "capabilities": status("CapEff:"),
        "no_new_privileges": status("NoNewPrivs:"),
    });
    Ok(report.to_string())
}

/// The content of the first of these files that exists. The versions of cgroups name them
/// differently.
fn first_of(files: &[&str]) -> Value {
    let text = files.iter().find_map(|file| read_to_string(format!("/sys/fs/cgroup/{file}")).ok());
    text.map_or(Value::Null, |text| text.trim().into())
}

fn cpus() -> Result<Value> {
    let version_1 = || {
        let [quota, period] = ["quota", "period"]
            .map(|name| read_to_string(format!("/sys/fs/cgroup/cpu/cpu.cfs_{name}_us")));
        Some(format!("{} {}", quota.ok()?.trim(), period.ok()?.trim()))
    };
    let Some(text) = read_to_string("/sys/fs/cgroup/cpu.max").ok().or_else(version_1) else {
        return Ok(Value::Null);
    };
    let (quota, period) = text.trim().split_once(' ').context("cpu.max has no period")?;
    Ok(quota
        .parse()
        .ok()
        .filter(|quota: &f64| *quota > 0.0)
        .map_or(Value::Null, |quota| (quota / period.parse::<f64>().unwrap_or(f64::NAN)).into()))
}

fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}
