//! Live updates: one refresh a second for all open pages, and none while no page is open.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use axum::response::sse::Event;
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch},
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    dashboard::{Dashboard, Outdated},
    merge_patch::diff,
    queue_times::{self, QueueTimes},
};
use crate::{
    control::{
        clock,
        command::{Command, CommandError, CommandSender},
        sidecars::{Overview, Sidecars},
        snapshot::Snapshot,
    },
    store::{self, Store},
    telemetry::outage::Outage,
};
use edgerunner_scheduler::model::UnixMs;

const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// Reading them takes longer the more jobs there were, so they are read less often.
const QUEUE_TIMES_EVERY: Duration = Duration::from_secs(15);
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
const PAGES_MAX: usize = 64;
/// How long the first answer to a page waits for the state.
const FIRST_WITHIN: Duration = Duration::from_millis(500);
/// How long a page that had its first answer may take to subscribe to the changes after it.
const SUBSCRIBES_WITHIN: Duration = Duration::from_secs(4);
/// Changes that are kept for such pages, and for those that missed one.
const CHANGES_KEPT: usize = 6;
/// How long the sidecar that plans may take before the page says that it does not answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
const STORE_AWAY: &str = "The store does not answer";

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
    /// The last ones, the difference from the previous update at the end.
    changes: VecDeque<Change>,
}

/// The difference from one update to the next; `None` if there was none.
type Change = Option<Arc<Event>>;

impl Update {
    fn new(number: u64, dashboard: Value, previous: Option<&Self>) -> Self {
        let mut changes = VecDeque::new();
        if let Some(previous) = previous {
            let change = diff(&previous.dashboard, &dashboard);
            changes.extend(previous.changes.iter().cloned());
            changes.push_back(change.map(|it| Arc::new(event("change", number, &it))));
            changes.drain(..changes.len().saturating_sub(CHANGES_KEPT));
        }
        Self { number, dashboard, changes }
    }

    /// The changes since then; `None` if they are not kept.
    fn since(&self, number: u64) -> Option<impl Iterator<Item = Arc<Event>>> {
        let missed = usize::try_from(self.number.checked_sub(number)?).ok()?;
        let kept = self.changes.len().checked_sub(missed)?;
        Some(self.changes.iter().skip(kept).flatten().cloned())
    }
}

/// Shows an idle page that it is still connected. Browsers drop an event without data, and for an
/// empty text none would be written.
pub(super) fn heartbeat() -> Event {
    Event::default().event("beat").data("0")
}

impl Live {
    /// Starts the refresher, which runs as long as the runtime.
    pub(super) fn new(store: Store, driver: CommandSender, sidecars: Sidecars) -> Self {
        let page_opened = Arc::new(Notify::new());
        let (updates, _) = watch::channel(None);
        let refresher = Refresher {
            store,
            driver,
            sidecars,
            asked: None,
            queue_times: BTreeMap::new(),
            queue_times_read: None,
            current_at: None,
            outage: Outage::new("the status page is out of date"),
        };
        tokio::spawn(refresher.run(updates.clone(), Arc::clone(&page_opened)));
        Self { updates, page_opened, pages: Arc::new(Semaphore::new(PAGES_MAX)) }
    }

    /// The first answer to a page, as JSON; `None` if the state is not known soon enough, or too many
    /// pages are open.
    pub(super) async fn first(&self) -> Option<String> {
        let permit = Arc::clone(&self.pages).try_acquire_owned().ok()?;
        let mut updates = self.updates.subscribe();
        self.page_opened.notify_one();
        let known = timeout(FIRST_WITHIN, updates.wait_for(Option::is_some)).await;
        let update = known.ok()?.ok()?.clone()?;
        // Changes are kept while somebody waits for them.
        tokio::spawn(async move {
            sleep(SUBSCRIBES_WITHIN).await;
            drop((updates, permit));
        });
        Some(content(update.number, &update.dashboard))
    }

    /// The whole dashboard at first, and then its changes; only these if the page has the update
    /// `after`. `None` if too many pages are open.
    pub(super) fn subscribe(
        &self,
        after: Option<u64>,
    ) -> Option<impl Stream<Item = Result<Event, Infallible>> + use<>> {
        let permit = Arc::clone(&self.pages).try_acquire_owned().ok()?;
        let mut updates = self.updates.subscribe();
        // The current update must be sent too.
        updates.mark_changed();
        self.page_opened.notify_one();
        let page = OpenPage { updates, number: after, changes: VecDeque::new(), _permit: permit };
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
    /// To be sent next.
    changes: VecDeque<Arc<Event>>,
    _permit: OwnedSemaphorePermit,
}

impl OpenPage {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Some(Event::clone(&change));
            }
            self.updates.changed().await.ok()?;
            let Some(update) = self.updates.borrow_and_update().clone() else { continue };
            let previous = self.number.replace(update.number);
            // A page that missed too many changes gets the whole dashboard again.
            match previous.and_then(|number| update.since(number)) {
                Some(changes) => self.changes.extend(changes),
                None => return Some(event("dashboard", update.number, &update.dashboard)),
            }
        }
    }
}

fn event(name: &str, number: u64, dashboard: &Value) -> Event {
    Event::default().event(name).data(content(number, dashboard))
}

fn content(number: u64, dashboard: &Value) -> String {
    json!({ "number": number, "now_ms": clock::now().wall, "dashboard": dashboard }).to_string()
}

struct Refresher {
    store: Store,
    driver: CommandSender,
    sidecars: Sidecars,
    /// A request that has no answer yet.
    asked: Option<Reply>,
    queue_times: BTreeMap<UnixMs, QueueTimes>,
    queue_times_read: Option<Instant>,
    /// When the dashboard was last that of the moment.
    current_at: Option<UnixMs>,
    outage: Outage,
}

type Reply = oneshot::Receiver<Result<Snapshot, CommandError>>;

/// Why there is no snapshot or no dashboard.
enum Missing {
    /// None of the sidecars plans, or the one that does has not answered yet.
    Planner,
    Error(String),
    /// The process is ending.
    Driver,
}

impl From<store::Error> for Missing {
    fn from(error: store::Error) -> Self {
        Self::Error(error.to_string())
    }
}

impl Refresher {
    async fn run(mut self, updates: watch::Sender<Option<Arc<Update>>>, page_opened: Arc<Notify>) {
        let mut ticks = interval(REFRESH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Those of another process differ: a page may connect to that next.
        let mut number = clock::now().wall;
        loop {
            if updates.receiver_count() == 0 {
                // The next page must not be shown what is outdated by then.
                updates.send_replace(None);
                self.current_at = None;
                number += 1;
                page_opened.notified().await;
            }
            ticks.tick().await;
            let previous = updates.borrow().clone();
            let Some(dashboard) = self.refresh(previous.as_deref()).await else { return };
            number += 1;
            let compare = move || Update::new(number, dashboard, previous.as_deref());
            let Ok(update) = spawn_blocking(compare).await else { return };
            updates.send_replace(Some(Arc::new(update)));
        }
    }

    /// `None`: the driver is gone.
    async fn refresh(&mut self, previous: Option<&Update>) -> Option<Value> {
        let looked = self.sidecars.look().await;
        let now = clock::now().wall;
        let loaded = match looked.as_ref().is_ok_and(|it| it.nobody_plans) {
            true => Err(Missing::Planner),
            false => self.load(looked.as_ref().ok()).await,
        };
        let (title, message) = match (loaded, &looked) {
            (Ok(dashboard), _) => {
                self.outage.observe(&Ok::<_, String>(()));
                self.current_at = Some(now);
                return Some(dashboard);
            }
            (Err(Missing::Driver), _) => return None,
            (Err(Missing::Planner), Ok(overview)) => overview.why_nothing_is_planned(now),
            // The store is how the one that plans would be asked.
            (Err(_), Err(error)) => {
                let text = format!("{error}. Webhooks are answered with 503 until it does.");
                (STORE_AWAY.to_owned(), text)
            }
            (Err(Missing::Error(error)), Ok(_)) => (STORE_AWAY.to_owned(), error),
        };
        self.outage.observe(&Err::<(), _>(&title));
        let before = previous.map_or_else(Dashboard::unknown, |it| it.dashboard.clone());
        let sidecars = looked.unwrap_or_else(|_| self.sidecars.last()).sidecars;
        let outdated = Outdated { since_ms: self.current_at, title, message };
        Some(Dashboard::outdated(before, &outdated, &sidecars))
    }

    async fn load(&mut self, overview: Option<&Overview>) -> Result<Value, Missing> {
        let snapshot = self.snapshot().await?;
        let snapshot = match overview {
            Some(overview) => Snapshot { sidecars: overview.sidecars.clone(), ..snapshot },
            None => Snapshot { sidecars: self.sidecars.last().sidecars, ..snapshot },
        };
        if self.queue_times_read.is_none_or(|read| read.elapsed() >= QUEUE_TIMES_EVERY) {
            let since = queue_times::since(clock::now().wall);
            self.queue_times = queue_times::by_step(&self.store.queue_times(since).await?);
            self.queue_times_read = Some(Instant::now());
        }
        Ok(Dashboard::load(snapshot, &self.store, self.queue_times.clone()).await?)
    }

    /// That of the sidecar that plans. If it takes long, the same request is waited for again.
    async fn snapshot(&mut self) -> Result<Snapshot, Missing> {
        let mut response = match self.asked.take() {
            Some(response) => response,
            None => {
                let (reply, response) = oneshot::channel();
                let sent = self.driver.send(Command::GetSnapshot(reply)).await;
                sent.map_err(|_| Missing::Driver)?;
                response
            }
        };
        let response = match self.sidecars.are_shared() {
            false => response.await,
            true => match timeout(ANSWER_WITHIN, &mut response).await {
                Ok(response) => response,
                Err(_) => {
                    self.asked = Some(response);
                    return Err(Missing::Planner);
                }
            },
        };
        match response {
            Ok(Ok(snapshot)) => Ok(snapshot),
            Ok(Err(CommandError::NoPlanner)) => Err(Missing::Planner),
            Ok(Err(error)) => Err(Missing::Error(error.to_string())),
            Err(_) => Err(Missing::Driver),
        }
    }
}
