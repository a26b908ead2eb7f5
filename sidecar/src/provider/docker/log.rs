//! The end of a container's log, without its secrets.

use std::time::Duration;

use bollard::{container::LogOutput, models::ContainerConfig, query_parameters::LogsOptions};
use futures_util::StreamExt as _;

use super::{Docker, error, from_bollard, launch::labels_of, short, within};
use crate::provider::{
    error::{Error, ErrorKind},
    labels::Labels,
    masked::masked,
    registration,
};

const LOG_BYTES_MAX: usize = 64 << 10;
/// A log driver may keep the stream open without sending anything.
const LOG_LIMIT: Duration = Duration::from_secs(30);

impl Docker {
    pub(crate) async fn log(&self, runner: &str, lines: usize) -> Result<String, Error> {
        let found = self.inspect(runner).await?;
        let refused = |kind, what: &str| error(kind, &format!("read the log of {runner}"), what);
        if Labels::from_map(labels_of(&found), &self.instance).is_none() {
            return Err(refused(ErrorKind::Gone, "the container is another installation's"));
        }
        // What this container was created with: its pool may have changed since, or be gone.
        let Some(ContainerConfig { env: Some(mut environment), .. }) = found.config else {
            let what = "Docker does not say what must not be shown of it";
            return Err(refused(ErrorKind::Refused, what));
        };
        let of_image = match &found.image {
            Some(image) => self.bollard.inspect_image(image).await.ok(),
            None => None,
        };
        let of_image = of_image.and_then(|image| image.config?.env).unwrap_or_default();
        environment.retain(|variable| !of_image.contains(variable));
        let log = self.last_log_lines(runner, lines).await?;
        Ok(masked(log, registration::secrets(&environment)))
    }

    pub(super) async fn last_log_lines(
        &self,
        container: &str,
        lines: usize,
    ) -> Result<String, Error> {
        let call = format!("read the log of container {}", short(container));
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            tail: lines.to_string(),
            ..Default::default()
        };
        let mut end = Vec::new();
        within(LOG_LIMIT, &call, async {
            let mut output = std::pin::pin!(self.bollard.logs(container, Some(options)));
            while let Some(chunk) = output.next().await {
                let chunk: LogOutput = chunk.map_err(|error| from_bollard(&call, &error))?;
                end.extend_from_slice(&chunk.into_bytes());
                end.drain(..end.len().saturating_sub(LOG_BYTES_MAX));
            }
            Ok(())
        })
        .await?;
        if end.len() == LOG_BYTES_MAX {
            // Half a line may hold half a secret, which would not be recognized.
            let line = end.iter().position(|byte| *byte == b'\n').map_or(end.len(), |at| at + 1);
            end.drain(..line);
        }
        Ok(String::from_utf8_lossy(&end).into_owned())
    }
}
