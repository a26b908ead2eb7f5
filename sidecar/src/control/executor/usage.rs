//! The most that each runner has used, from samples of what it uses.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;
use tracing::debug;

use super::Executor;
use crate::{config::DockerAccess, provider::Usage, store::Peak};

/// Runners that are sampled at a time: the Engine has other work.
const AT_ONCE: usize = 8;

/// By runner.
#[derive(Default)]
pub(super) struct Usages(Mutex<HashMap<String, Sampled>>);

struct Sampled {
    last: (Instant, Usage),
    peak: Peak,
}

/// A runner whose container runs.
pub(crate) struct Sampling {
    pub runner: String,
    pub pool: String,
    /// Index of its provider.
    pub provider: usize,
}

impl Usages {
    fn add(&self, runner: String, usage: Usage, now: Instant) {
        let mut usages = self.locked();
        let sampled = usages
            .entry(runner)
            .or_insert_with(|| Sampled { last: (now, usage), peak: Peak::default() });
        let (before, used) = sampled.last;
        sampled.last = (now, usage);
        let peak = &mut sampled.peak;
        peak.memory_bytes = peak.memory_bytes.max(Some(usage.memory_bytes));
        let elapsed_ns = now.duration_since(before).as_nanos();
        // Less than before is of a container that was started again.
        if let (1.., Some(spent)) = (elapsed_ns, usage.cpu_ns.checked_sub(used.cpu_ns)) {
            let millis = u128::from(spent) * 1_000 / elapsed_ns;
            peak.cpu_millis = peak.cpu_millis.max(u64::try_from(millis).ok());
        }
    }

    fn peak(&self, runner: &str) -> Peak {
        self.locked().get(runner).map(|sampled| sampled.peak).unwrap_or_default()
    }

    pub(super) fn forget(&self, runner: &str) {
        self.locked().remove(runner);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Sampled>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Executor {
    /// The most that a runner has used, as far as this process has sampled it.
    pub(crate) fn peak(&self, runner: &str) -> Peak {
        self.shared.usages.peak(runner)
    }

    /// Samples what runners use. Nothing waits for it.
    pub(crate) async fn sample_usages(self, runners: Vec<Sampling>) {
        let samples = stream::iter(runners).map(|sampling| self.sample(sampling));
        samples.buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    async fn sample(&self, Sampling { runner, pool, provider }: Sampling) {
        let pool = self.pool(&pool);
        let has_engine = pool.is_some_and(|pool| pool.container.docker == DockerAccess::Dind);
        let provider = &self.shared.places[provider].provider;
        match provider.usage(&runner, has_engine).await {
            Ok(Some(usage)) => self.shared.usages.add(runner, usage, Instant::now()),
            Ok(None) => {}
            // Usually it has ended in the meantime. An Engine that is away is reported elsewhere.
            Err(error) => debug!(runner, %error, "what a runner uses was not measured"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_peak_is_of_all_samples_and_a_rate_takes_two() {
        let usages = Usages::default();
        let begun = Instant::now();
        let sample = |seconds, memory_bytes, cpu_ms: u64| {
            let usage = Usage { memory_bytes, cpu_ns: cpu_ms * 1_000_000 };
            usages.add("edge-1".into(), usage, begun + Duration::from_secs(seconds));
            usages.peak("edge-1")
        };
        assert_eq!(sample(0, 10, 5_000), Peak { memory_bytes: Some(10), cpu_millis: None });
        assert_eq!(
            sample(10, 30, 20_000),
            Peak { memory_bytes: Some(30), cpu_millis: Some(1_500) }
        );
        assert_eq!(
            sample(20, 20, 21_000),
            Peak { memory_bytes: Some(30), cpu_millis: Some(1_500) }
        );
        // Its container was started again.
        assert_eq!(sample(30, 20, 100), Peak { memory_bytes: Some(30), cpu_millis: Some(1_500) });
        assert_eq!(usages.peak("edge-2"), Peak::default());
        usages.forget("edge-1");
        assert_eq!(usages.peak("edge-1"), Peak::default());
    }
}
