//! Scripts that runners run before and after each job.

use std::path::Path;

use super::{Container, document::Document};
use crate::blocking::read_file;

const BYTES_MAX: u64 = 1 << 20;

/// A script that the runner runs before or after each job.
#[derive(Clone, Debug)]
pub(crate) struct JobScript {
    /// Environment variable that gives the runner the path.
    pub variable: &'static str,
    /// In the container, outside of the runner's directory, as GitHub requires.
    pub path: String,
    pub content: Vec<u8>,
}

impl Document {
    pub(super) fn read_job_scripts(&mut self, pool: &str, container: &Container) -> Vec<JobScript> {
        let mut scripts = Vec::new();
        for (field, file, variable, name) in [
            (
                "job_started_script",
                &container.job_started_script,
                "ACTIONS_RUNNER_HOOK_JOB_STARTED",
                "job-started",
            ),
            (
                "job_completed_script",
                &container.job_completed_script,
                "ACTIONS_RUNNER_HOOK_JOB_COMPLETED",
                "job-completed",
            ),
        ] {
            let Some(file) = file else { continue };
            match read(file) {
                Ok((extension, content)) => {
                    let path = format!("/opt/edgerunner/{name}.{extension}");
                    scripts.push(JobScript { variable, path, content });
                }
                Err(problem) => self.error(&format!("{pool}/{field}"), problem),
            }
        }
        scripts
    }
}

/// The extension, by which the runner chooses the shell, and the content.
fn read(file: &Path) -> Result<(&str, Vec<u8>), String> {
    let extension = file
        .extension()
        .and_then(|extension| extension.to_str())
        .filter(|extension| matches!(*extension, "sh" | "ps1"))
        .ok_or("write the path of a .sh or .ps1 script")?;
    let content = read_file(file, BYTES_MAX + 1)
        .map_err(|error| format!("cannot read that file: {error}"))?;
    if content.len() as u64 > BYTES_MAX {
        return Err("that file is larger than 1 MiB: use a smaller script".to_owned());
    }
    Ok((extension, content))
}
