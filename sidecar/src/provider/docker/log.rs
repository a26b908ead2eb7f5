//! The end of a container's log.

use bollard::container::LogOutput;
use bollard::query_parameters::{InspectContainerOptions, LogsOptions};
use futures_util::StreamExt as _;

use super::{Docker, Error, short};

const LOG_BYTES_MAX: usize = 64 << 10;
/// What is shorter is no secret, and would make gaps all over a log.
const MASKED_BYTES_MIN: usize = 6;

impl Docker {
    /// The end of what the container wrote, at most `lines` and 64 KiB.
    pub(crate) async fn last_log_lines(&self, id: &str, lines: usize) -> Result<String, Error> {
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            tail: lines.to_string(),
            ..Default::default()
        };
        let mut output = std::pin::pin!(self.bollard.logs(id, Some(options)));
        let mut end = Vec::new();
        while let Some(chunk) = output.next().await {
            let chunk: LogOutput = chunk.map_err(|error| {
                Error::from_bollard(&format!("read the log of container {}", short(id)), &error)
            })?;
            end.extend_from_slice(&chunk.into_bytes());
            end.drain(..end.len().saturating_sub(LOG_BYTES_MAX));
        }
        if end.len() == LOG_BYTES_MAX {
            // Half a line may hold half a secret, which nobody would recognize.
            let line = end.iter().position(|byte| *byte == b'\n').map_or(end.len(), |at| at + 1);
            end.drain(..line);
        }
        Ok(String::from_utf8_lossy(&end).into_owned())
    }

    /// The same without the values of these variables of the container's environment, as
    /// an image that traces its script prints them.
    pub(crate) async fn last_log_lines_without(
        &self,
        id: &str,
        lines: usize,
        secret: impl Fn(&str) -> bool,
    ) -> Result<String, Error> {
        let call = format!("look at container {}", short(id));
        let options = None::<InspectContainerOptions>;
        let found = self.bollard.inspect_container(id, options).await;
        let found = found.map_err(|error| Error::from_bollard(&call, &error))?;
        let environment = found.config.and_then(|config| config.env).unwrap_or_default();
        let values = environment
            .iter()
            .filter_map(|variable| variable.split_once('='))
            .filter(|(name, _)| secret(name))
            .map(|(_, value)| value);
        Ok(masked(self.last_log_lines(id, lines).await?, values))
    }
}

fn masked<'a>(mut log: String, values: impl Iterator<Item = &'a str>) -> String {
    // Line by line: a log begins anywhere within a value of several.
    let mut lines: Vec<&str> = values.flat_map(str::lines).map(str::trim).collect();
    lines.retain(|line| line.len() >= MASKED_BYTES_MIN);
    // One may be part of another.
    lines.sort_by_key(|line| std::cmp::Reverse(line.len()));
    for line in lines {
        if log.contains(line) {
            log = log.replace(line, "***");
        }
    }
    log
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn secrets_are_masked_line_by_line_and_the_longest_first() {
        let values = ["sesame-1", "sesame-1-and-more", "-----BEGIN\n  MIIEpAIB\n", "1", ""];
        let log = "+ config.sh --token sesame-1-and-more sesame-1\nMIIEpAIB\nexit 1\n";
        let expected = "+ config.sh --token *** ***\n***\nexit 1\n";
        assert_eq!(masked(log.into(), values.into_iter()), expected);
    }
}
