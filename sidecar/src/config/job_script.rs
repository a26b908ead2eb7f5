use std::{fs::File, io::Read, path::Path};

use super::{Container, document::Document};

const BYTES_MAX: u64 = 1 << 20;

/// A script that the runner runs before or after each job.
#[derive(Clone, Debug)]
pub(crate) struct JobScript {
    /// By which the runner knows it.
    pub variable: &'static str,
    /// Inside the container, outside of the runner's own directory, as GitHub asks.
    pub path: String,
    pub content: Vec<u8>,
}

impl Document {
    pub(super) fn read_hooks(&mut self, pool: &str, container: &Container) -> Vec<JobScript> {
        let mut hooks = Vec::new();
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
                    hooks.push(JobScript { variable, path, content });
                }
                Err(problem) => self.mistake(&format!("{pool}/{field}"), problem),
            }
        }
        hooks
    }
}

/// Its extension, by which the runner chooses the shell, and what it says.
fn read(file: &Path) -> Result<(&str, Vec<u8>), String> {
    let extension = file
        .extension()
        .and_then(|extension| extension.to_str())
        .filter(|extension| matches!(*extension, "sh" | "ps1"))
        .ok_or("write the path of a script whose name ends in .sh or .ps1")?;
    let mut content = Vec::new();
    File::open(file)
        .and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut content))
        .map_err(|error| format!("cannot read that file: {error}"))?;
    if content.len() as u64 > BYTES_MAX {
        return Err("that file is larger than 1 MiB: write a shorter script".to_owned());
    }
    Ok((extension, content))
}
