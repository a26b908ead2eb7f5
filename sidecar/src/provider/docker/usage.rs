//! What a runner's containers use, from the Engine's statistics.

use std::time::Duration;

use serde_json::Value;

use super::{DIND_SUFFIX, Docker, error, from_bollard, short, within};
use crate::provider::{
    error::{Error, ErrorKind},
    usage::Usage,
};

/// Samples are taken again and again: a late one is worth nothing.
const LIMIT: Duration = Duration::from_secs(5);

impl Docker {
    /// `has_engine`: the runner has an inner Engine, whose containers count as well.
    pub(crate) async fn usage(&self, runner: &str, has_engine: bool) -> Result<Usage, Error> {
        let mut usage = self.container_usage(runner).await?;
        if has_engine {
            let inner = self.container_usage(&format!("{runner}{DIND_SUFFIX}")).await?;
            usage.memory_bytes += inner.memory_bytes;
            usage.cpu_ns += inner.cpu_ns;
        }
        Ok(usage)
    }

    async fn container_usage(&self, container: &str) -> Result<Usage, Error> {
        let call = format!("read the statistics of container {}", short(container));
        let path = format!("/containers/{container}/stats");
        // Without a second sample, for which the Engine would wait a second.
        let once = [("stream", "false"), ("one-shot", "true")];
        let statistics = within(LIMIT, &call, async {
            let statistics = self.connection.get(&path, &once).await;
            statistics.map_err(|error| from_bollard(&call, &error))
        });
        let statistics = statistics.await?;
        // A container that has ended has statistics without numbers.
        read(&statistics).ok_or_else(|| error(ErrorKind::Gone, &call, "it does not run"))
    }
}

fn read(statistics: &Value) -> Option<Usage> {
    let memory = &statistics["memory_stats"];
    // With version 2 of control groups, and with version 1.
    let cached = ["inactive_file", "total_inactive_file"];
    let cached = cached.iter().find_map(|name| memory["stats"][name].as_u64());
    Some(Usage {
        memory_bytes: memory["usage"].as_u64()?.saturating_sub(cached.unwrap_or_default()),
        cpu_ns: statistics["cpu_stats"]["cpu_usage"]["total_usage"].as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use axum::{Json, response::IntoResponse as _};
    use serde_json::json;

    use super::*;
    use crate::provider::docker::fake_engine::{Engine, refused};

    fn statistics(usage: u64, cached: &str, cpu_ns: u64) -> Value {
        json!({
            "memory_stats": { "usage": usage, "stats": { cached: 100 } },
            "cpu_stats": { "cpu_usage": { "total_usage": cpu_ns } },
        })
    }

    #[tokio::test]
    async fn a_runner_uses_what_its_containers_use_without_cached_files() {
        let engine = Engine::start(|call| match call {
            "GET /containers/edge-1/stats" => {
                Json(statistics(1_100, "inactive_file", 7)).into_response()
            }
            "GET /containers/edge-1-dind/stats" => {
                Json(statistics(2_100, "total_inactive_file", 8)).into_response()
            }
            _ => refused(404, "no such container"),
        })
        .await;
        let alone = engine.docker.usage("edge-1", false).await;
        assert_eq!(alone.unwrap(), Usage { memory_bytes: 1_000, cpu_ns: 7 });
        let with_engine = engine.docker.usage("edge-1", true).await;
        assert_eq!(with_engine.unwrap(), Usage { memory_bytes: 3_000, cpu_ns: 15 });
        assert_eq!(engine.docker.usage("edge-2", true).await.unwrap_err().kind, ErrorKind::Gone);
    }

    #[test]
    fn a_container_that_has_ended_uses_nothing_that_counts() {
        let ended = json!({
            "memory_stats": {}, "cpu_stats": { "cpu_usage": { "total_usage": 0 } },
        });
        assert_eq!(read(&ended), None);
        assert_eq!(read(&Value::Null), None);
    }
}
