//! One look a second for all pages that are open, and none while there are none.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::response::sse::Event;
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::warn;

use super::{
    dashboard::Dashboard,
    merge_patch::diff,
    queue_times::{self, Waits},
};
use crate::{
    control::clock,
    control::command::Command,
    store::{self, Store},
};
use edgerunner_scheduler::model::UnixMs;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// They take longer the more jobs there were.
const QUEUE_TIMES_EVERY: Duration = Duration::from_secs(15);
pub(super) const BEAT_EVERY: Duration = Duration::from_secs(10);
const PAGES_MAX: usize = 64;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Live {
    seen: watch::Sender<Option<Arc<Seen>>>,
    /// A page was opened.
    opened: Arc<Notify>,
    pages: Arc<Semaphore>,
}

/// What a look has shown.
struct Seen {
    number: u64,
    board: Value,
    /// From the look before it.
    change: Option<Event>,
}

/// So that a page knows that it is not forgotten.
pub(super) fn beat() -> Event {
    Event::default().event("beat").data("")
}

impl Live {
    /// Looks for as long as the runtime lives.
    pub(super) fn new(store: Store, driver: mpsc::Sender<Command>) -> Self {
        let opened = Arc::new(Notify::new());
        let (seen, _) = watch::channel(None);
        let watcher = Watcher { store, driver, queue_times: BTreeMap::new(), counted: None };
        tokio::spawn(watcher.run(seen.clone(), Arc::clone(&opened)));
        Self { seen, opened, pages: Arc::new(Semaphore::new(PAGES_MAX)) }
    }

    /// Everything at once, and then what changes; `None` if too many pages look already.
    pub(super) fn watch(&self) -> Option<impl Stream<Item = Result<Event, Infallible>> + use<>> {
        let permit = Arc::clone(&self.pages).try_acquire_owned().ok()?;
        let mut seen = self.seen.subscribe();
        // What was seen before must be sent as well.
        seen.mark_changed();
        self.opened.notify_one();
        let page = OpenPage { seen, number: None, _permit: permit };
        Some(stream::unfold(page, |mut page| async move {
            let event = page.next().await?;
            Some((Ok(event), page))
        }))
    }
}

struct OpenPage {
    seen: watch::Receiver<Option<Arc<Seen>>>,
    /// Of the look that it has.
    number: Option<u64>,
    _permit: OwnedSemaphorePermit,
}

impl OpenPage {
    async fn next(&mut self) -> Option<Event> {
        loop {
            self.seen.changed().await.ok()?;
            let Some(seen) = self.seen.borrow_and_update().clone() else { continue };
            let had = self.number.replace(seen.number);
            // One that was too slow for a change begins anew.
            if had.is_some_and(|number| number + 1 == seen.number) {
                if let Some(change) = &seen.change {
                    return Some(change.clone());
                }
            } else if had != Some(seen.number) {
                return Some(event("board", &seen.board));
            }
        }
    }
}

fn event(name: &str, content: &Value) -> Event {
    let data = json!({ "now_ms": clock::now(), "board": content });
    Event::default().event(name).data(data.to_string())
}

struct Watcher {
    store: Store,
    driver: mpsc::Sender<Command>,
    queue_times: BTreeMap<UnixMs, Waits>,
    counted: Option<Instant>,
}

impl Watcher {
    async fn run(mut self, seen: watch::Sender<Option<Arc<Seen>>>, opened: Arc<Notify>) {
        let mut every = interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0;
        loop {
            if seen.receiver_count() == 0 {
                // Nobody may be shown what will be old by then.
                seen.send_replace(None);
                number += 1;
                opened.notified().await;
            }
            every.tick().await;
            match self.look().await {
                Ok(Some(board)) => {
                    number += 1;
                    let before = seen.borrow().clone();
                    let change = before
                        .and_then(|before| diff(&before.board, &board))
                        .map(|change| event("change", &change));
                    seen.send_replace(Some(Arc::new(Seen { number, board, change })));
                }
                // The process ends.
                Ok(None) => return,
                Err(error) => warn!(%error, "the status page is not up to date"),
            }
        }
    }

    /// `None`: nobody drives any more.
    async fn look(&mut self) -> Result<Option<Value>, store::Error> {
        let (reply, answer) = oneshot::channel();
        let asked = self.driver.send(Command::GetSnapshot(reply)).await;
        let (Ok(()), Ok(snapshot)) = (asked, answer.await) else { return Ok(None) };
        if self.counted.is_none_or(|counted| counted.elapsed() >= QUEUE_TIMES_EVERY) {
            let since = queue_times::since(clock::now());
            self.queue_times = queue_times::by_step(&self.store.waits(since).await?);
            self.counted = Some(Instant::now());
        }
        Dashboard::look(snapshot, &self.store, self.queue_times.clone()).await.map(Some)
    }
}
