//! What the managers list of launchers and nodes, polled for everyone who needs it. Docker reports
//! no event about tasks.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::json;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    error::{error, no_answer},
    managers::Managers,
    node::ListedNode,
    task::{ListedTask, Task},
};
use crate::{
    provider::{
        error::{Error, ErrorKind},
        labels,
    },
    telemetry::metrics,
};

/// Between two polls.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two polls that somebody waits for.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The managers are busy with polls for at most one part in this many.
const SHARE: u32 = 10;
/// The longest pause: a poll may have waited for a manager that is gone.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// For a survey that is new enough.
const FRESH_LIMIT: Duration = Duration::from_secs(60);
/// Longer lists are read off the thread that everything else runs on.
const READ_HERE_BYTES_MAX: usize = 64 << 10;

/// Everything at one moment.
#[derive(Debug)]
pub(super) struct Survey {
    /// By runner; never empty, the first one comes first.
    pub tasks: HashMap<String, Vec<Task>>,
    /// By ID.
    pub nodes: HashMap<String, ListedNode>,
}

/// A survey, or why there is none.
#[derive(Clone, Debug)]
pub(super) struct Polled {
    /// When it was requested.
    pub requested_at: Instant,
    pub survey: Result<Arc<Survey>, Error>,
}

/// The surveys of a background task, which ends with it.
pub(super) struct Surveys {
    latest: watch::Receiver<Option<Polled>>,
    wanted: Arc<Notify>,
    poller: tokio::task::JoinHandle<()>,
}

impl Drop for Surveys {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

impl Surveys {
    /// `owner`: the label of the launchers; `instance`: that of their services.
    pub(super) fn start(managers: Arc<Managers>, instance: String, owner: String) -> Self {
        let (sender, latest) = watch::channel(None);
        let wanted = Arc::new(Notify::new());
        let notified = Arc::clone(&wanted);
        let poller = tokio::spawn(async move {
            loop {
                let requested_at = Instant::now();
                let survey = take(&managers, &instance, &owner).await.map(Arc::new);
                let spent = requested_at.elapsed();
                if survey.is_ok() {
                    metrics::swarm_poll(spent);
                }
                sender.send_replace(Some(Polled { requested_at, survey }));
                let pause = pause_after(spent);
                sleep(pause).await;
                let _ = timeout(INTERVAL.saturating_sub(pause), notified.notified()).await;
            }
        });
        Self { latest, wanted, poller }
    }

    /// The next poll begins as soon as it may.
    pub(super) fn hasten(&self) {
        self.wanted.notify_one();
    }

    /// For every later survey.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Polled>> {
        let mut latest = self.latest.clone();
        latest.mark_changed();
        latest
    }

    /// One that was requested after this call.
    pub(super) async fn fresh(&self) -> Result<Arc<Survey>, Error> {
        let called_at = Instant::now();
        let mut latest = self.latest.clone();
        self.hasten();
        let is_new = |polled: &Option<Polled>| {
            polled.as_ref().is_some_and(|polled| polled.requested_at >= called_at)
        };
        match timeout(FRESH_LIMIT, latest.wait_for(is_new)).await {
            Ok(Ok(polled)) => match &*polled {
                Some(polled) => polled.survey.clone(),
                None => Err(no_answer(TASKS)),
            },
            Ok(Err(_)) | Err(_) => Err(no_answer(TASKS)),
        }
    }

    /// The last one, or the first.
    pub(super) async fn recent(&self) -> Result<Arc<Survey>, Error> {
        match self.latest() {
            Some(survey) => survey,
            None => self.fresh().await,
        }
    }

    /// The last one that succeeded or failed, if there was any.
    pub(super) fn latest(&self) -> Option<Result<Arc<Survey>, Error>> {
        self.latest.borrow().as_ref().map(|polled| polled.survey.clone())
    }
}

const TASKS: &str = "list tasks";

/// How long the managers are left alone after a poll that took so long.
fn pause_after(spent: Duration) -> Duration {
    (spent * (SHARE - 1)).clamp(INTERVAL_MIN, PAUSE_MAX)
}

async fn take(managers: &Managers, instance: &str, owner: &str) -> Result<Survey, Error> {
    let filters = json!({ "label": [format!("{}={instance}", labels::INSTANCE)] }).to_string();
    let (tasks, nodes) = tokio::try_join!(
        list::<ListedTask>(managers, TASKS, "/tasks", Some(&filters)),
        list::<ListedNode>(managers, "list nodes", "/nodes", None),
    )?;
    let nodes = nodes.into_iter().map(|node| (node.id.clone(), node)).collect();
    Ok(Survey { tasks: Task::by_runner(tasks, owner), nodes })
}

/// One that is unusual does not hide the others.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item<T> {
    Readable(T),
    Odd(IgnoredAny),
}

/// Reads no more of each item than it needs.
async fn list<T: DeserializeOwned + Send + 'static>(
    managers: &Managers,
    call: &str,
    path: &'static str,
    filters: Option<&str>,
) -> Result<Vec<T>, Error> {
    let body = managers.call(call, |connection| {
        let filters = filters.map(str::to_owned);
        async move {
            let query = filters.as_deref().map(|filters| ("filters", filters));
            connection.get_bytes(path, query.as_slice()).await
        }
    });
    let body = body.await?;
    let is_long = body.len() > READ_HERE_BYTES_MAX;
    let read = move || -> Result<Vec<T>, String> {
        let items: Vec<Item<T>> = serde_json::from_slice(&body).map_err(|it| it.to_string())?;
        let readable = items.into_iter().filter_map(|item| match item {
            Item::Readable(item) => Some(item),
            Item::Odd(_) => None,
        });
        Ok(readable.collect())
    };
    let read = match is_long {
        false => read(),
        true => tokio::task::spawn_blocking(read).await.unwrap_or_else(|it| Err(it.to_string())),
    };
    read.map_err(|cause| error(ErrorKind::Refused, call, cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_take_a_tenth_of_the_time_but_a_manager_that_hangs_delays_the_next_by_seconds() {
        let pause = |ms: u64| pause_after(Duration::from_millis(ms)).as_millis();
        assert_eq!((pause(1), pause(50), pause(500)), (100, 450, 4_500));
        assert_eq!(pause(15_000), 5_000);
    }
}
