//! Live updates: one refresh a second for all open pages, and none while no page is open.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use anyhow::Result;
use axum::response::sse::Event;
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::warn;

use super::{
    dashboard::Dashboard,
    merge_patch::diff,
    queue_times::{self, QueueTimes},
};
use crate::{
    control::{
        clock,
        command::{Command, CommandSender},
    },
    store::Store,
};
use edgerunner_scheduler::model::UnixMs;

const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// Reading them takes longer the more jobs there were, so they are read less often.
const QUEUE_TIMES_EVERY: Duration = Duration::from_secs(15);
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
const PAGES_MAX: usize = 64;

/// The updates that pages subscribe to. Cheap to clone.
#[derive(Clone)]
pub(super) struct Live {
    updates: watch::Sender<Option<Arc<Update>>>,
    page_opened: Arc<Notify>,
    pages: Arc<Semaphore>,
}

/// The result of one refresh.
struct Update {
    number: u64,
    dashboard: Value,
    /// The difference from the previous update.
    change: Option<Event>,
}

/// Shows an idle page that it is still connected.
pub(super) fn heartbeat() -> Event {
    Event::default().event("beat").data("")
}

impl Live {
    /// Starts the refresher, which runs as long as the runtime.
    pub(super) fn new(store: Store, driver: CommandSender) -> Self {
        let page_opened = Arc::new(Notify::new());
        let (updates, _) = watch::channel(None);
        let refresher =
            Refresher { store, driver, queue_times: BTreeMap::new(), queue_times_read: None };
        tokio::spawn(refresher.run(updates.clone(), Arc::clone(&page_opened)));
        Self { updates, page_opened, pages: Arc::new(Semaphore::new(PAGES_MAX)) }
    }

    /// The whole dashboard at first, and then its changes; `None` if too many pages are open.
    pub(super) fn subscribe(
        &self,
    ) -> Option<impl Stream<Item = Result<Event, Infallible>> + use<>> {
        let permit = Arc::clone(&self.pages).try_acquire_owned().ok()?;
        let mut updates = self.updates.subscribe();
        // The current update must be sent too.
        updates.mark_changed();
        self.page_opened.notify_one();
        let page = OpenPage { updates, number: None, _permit: permit };
        Some(stream::unfold(page, |mut page| async move {
            let event = page.next().await?;
            Some((Ok(event), page))
        }))
    }
}

struct OpenPage {
    updates: watch::Receiver<Option<Arc<Update>>>,
    /// Number of the update that it was last sent.
    number: Option<u64>,
    _permit: OwnedSemaphorePermit,
}

impl OpenPage {
    async fn next(&mut self) -> Option<Event> {
        loop {
            self.updates.changed().await.ok()?;
            let Some(update) = self.updates.borrow_and_update().clone() else { continue };
            let previous = self.number.replace(update.number);
            // A page that missed a change gets the whole dashboard again.
            if previous.is_some_and(|number| number + 1 == update.number) {
                if let Some(change) = &update.change {
                    return Some(change.clone());
                }
            } else if previous != Some(update.number) {
                return Some(event("dashboard", &update.dashboard));
            }
        }
    }
}

fn event(name: &str, content: &Value) -> Event {
    let data = json!({ "now_ms": clock::now().wall, "dashboard": content });
    Event::default().event(name).data(data.to_string())
}

struct Refresher {
    store: Store,
    driver: CommandSender,
    queue_times: BTreeMap<UnixMs, QueueTimes>,
    queue_times_read: Option<Instant>,
}

impl Refresher {
    async fn run(mut self, updates: watch::Sender<Option<Arc<Update>>>, page_opened: Arc<Notify>) {
        let mut ticks = interval(REFRESH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0;
        loop {
            if updates.receiver_count() == 0 {
                // The next page must not be shown what is outdated by then.
                updates.send_replace(None);
                number += 1;
                page_opened.notified().await;
            }
            ticks.tick().await;
            match self.refresh().await {
                Ok(Some(dashboard)) => {
                    number += 1;
                    let previous = updates.borrow().clone();
                    let change = previous
                        .and_then(|previous| diff(&previous.dashboard, &dashboard))
                        .map(|change| event("change", &change));
                    updates.send_replace(Some(Arc::new(Update { number, dashboard, change })));
                }
                // The process is ending.
                Ok(None) => return,
                Err(error) => warn!(%error, "the status page is out of date"),
            }
        }
    }

    /// `None`: the driver is gone.
    async fn refresh(&mut self) -> Result<Option<Value>> {
        let (reply, response) = oneshot::channel();
        let sent = self.driver.send(Command::GetSnapshot(reply)).await;
        let (Ok(()), Ok(snapshot)) = (sent, response.await) else { return Ok(None) };
        let snapshot = snapshot?;
        if self.queue_times_read.is_none_or(|read| read.elapsed() >= QUEUE_TIMES_EVERY) {
            let since = queue_times::since(clock::now().wall);
            self.queue_times = queue_times::by_step(&self.store.queue_times(since).await?);
            self.queue_times_read = Some(Instant::now());
        }
        Ok(Some(Dashboard::load(snapshot, &self.store, self.queue_times.clone()).await?))
    }
}
