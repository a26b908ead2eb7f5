//! Deliveries of webhooks: listing them, and requesting the failed ones again.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use super::{
    Backoff, DeliveryAttempt, Denied, ErrorKind, Note, Page, Request, RequestError, State,
    WebhookId, first_due,
};
use crate::model::{Instant, Moment, UnixMs};

/// Webhooks to watch: each has its own list to read.
const WEBHOOKS_MAX: usize = 1_000;
/// Pages of deliveries read in one go: 10,000 deliveries.
const PAGES_MAX: usize = 100;
/// GitHub lists a delivery only after it has ended, up to half a minute after its timestamp.
const OVERLAP_MS: u64 = 120_000;
/// Failed deliveries to keep track of. The jobs of any others are found in the lists of queued
/// jobs.
const FAILED_MAX: usize = 10_000;
/// Redeliveries to request for one event.
const TRIES_MAX: u32 = 6;

/// A webhook whose deliveries are listed.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) account: String,
    due: Instant,
    backoff: Backoff,
    /// Deliveries up to this time were read.
    read_until: UnixMs,
    /// The last read went on to its end, so a first page that has not changed since means that
    /// there is nothing new.
    complete: bool,
    reading: Option<Reading>,
}

/// A read of a list in progress, from its newest page on.
#[derive(Debug)]
struct Reading {
    began: Instant,
    page: Option<String>,
    pages: usize,
    newest: UnixMs,
    arrived: HashSet<String>,
}

/// An event whose delivery failed.
#[derive(Debug)]
pub(super) struct FailedDelivery {
    webhook: WebhookId,
    /// Id of the latest attempt.
    delivery: u64,
    /// When the first known attempt was made.
    at: UnixMs,
    tries: u32,
    /// `None`: given up.
    due: Option<Instant>,
    pub(super) forget_at: Instant,
}

impl State {
    /// Watches a webhook that sent an event or is configured. Deliveries before `read_until` are
    /// known to have arrived.
    pub fn watch_webhook(
        &mut self,
        webhook: WebhookId,
        account: &str,
        read_until: UnixMs,
        now: Instant,
    ) {
        if self.webhooks.contains_key(&webhook) || self.webhooks.len() >= WEBHOOKS_MAX {
            return;
        }
        self.open_budget(account, now);
        let listing = Listing {
            account: account.to_owned(),
            due: now,
            backoff: Backoff::default(),
            read_until,
            complete: false,
            reading: None,
        };
        self.webhooks.insert(webhook, listing);
    }

    /// Every delivery of the webhook before this time arrived or was given up.
    pub fn settled_until(&self, webhook: &WebhookId) -> UnixMs {
        let open = self.failed.values().filter(|it| it.webhook == *webhook && it.due.is_some());
        let read_until = self.webhooks.get(webhook).map_or(0, |listing| listing.read_until);
        open.map(|failed| failed.at.saturating_sub(1)).fold(read_until, UnixMs::min)
    }

    pub(super) fn due_listing(&mut self, now: Instant, wake: &mut Instant) -> Option<Request> {
        let due = self.webhooks.iter().map(|(webhook, it)| (it.due, it.account.as_str(), webhook));
        let webhook = first_due(&mut self.budgets, &mut self.notes, due, now, wake)?.clone();
        let listing = self.webhooks.get_mut(&webhook)?;
        let reading = listing.reading.get_or_insert_with(|| Reading {
            began: now,
            page: None,
            pages: 0,
            newest: 0,
            arrived: HashSet::new(),
        });
        let page = reading.page.clone();
        Some(Request::Deliveries { webhook, page })
    }

    pub(super) fn due_redelivery(&mut self, now: Instant, wake: &mut Instant) -> Option<Request> {
        let webhooks = &self.webhooks;
        let due = self.failed.iter().filter_map(|(guid, failed)| {
            let listing =
                webhooks.get(&failed.webhook).filter(|listing| !listing.backoff.denied)?;
            // All that are due rank alike, and the newest goes first: if a job's `completed`
            // arrives before its `queued`, no runner is launched for it.
            let due = failed.due?.max(now);
            Some((due, listing.account.as_str(), (Reverse(failed.at), guid)))
        });
        let (_, guid) = first_due(&mut self.budgets, &mut self.notes, due, now, wake)?;
        let guid = guid.clone();
        let failed = self.failed.get_mut(&guid)?;
        if failed.tries >= TRIES_MAX {
            failed.due = None;
            self.notes.push(Note::GaveUp { webhook: failed.webhook.clone(), guid });
            *wake = now;
            return None;
        }
        let FailedDelivery { webhook, delivery, at, .. } = failed;
        Some(Request::Redeliver { webhook: webhook.clone(), delivery: *delivery, at: *at, guid })
    }

    pub(super) fn listed(&mut self, webhook: &WebhookId, page: Page<DeliveryAttempt>, now: Moment) {
        let Some(listing) = self.webhooks.get_mut(webhook) else { return };
        listing.backoff = Backoff::default();
        let Some(reading) = &mut listing.reading else { return };
        let look_back = self.settings.look_back;
        let oldest = listing
            .read_until
            .saturating_sub(OVERLAP_MS)
            .max(now.wall.saturating_sub(millis(look_back)));
        reading.pages += 1;
        let mut reached = false;
        for attempt in page.items {
            reading.newest = reading.newest.max(attempt.at);
            reached = attempt.at < oldest;
            if reached {
                break;
            }
            if (200..300).contains(&attempt.status) {
                self.failed.remove(&attempt.guid);
                reading.arrived.insert(attempt.guid);
            } else if is_relevant(&attempt) && !reading.arrived.contains(&attempt.guid) {
                add_failed(&mut self.failed, webhook, attempt, look_back, now);
            }
        }
        reading.page = page.next;
        let unchanged = page.unchanged && reading.pages == 1 && listing.complete;
        if reached || unchanged || reading.page.is_none() || reading.pages >= PAGES_MAX {
            listing.due = reading.began + self.settings.interval;
            listing.read_until = listing.read_until.max(reading.newest);
            listing.complete = true;
            listing.reading = None;
        }
    }

    pub(super) fn listing_failed(
        &mut self,
        webhook: &WebhookId,
        error: &RequestError,
        now: Instant,
    ) {
        let Some(listing) = self.webhooks.get_mut(webhook) else { return };
        let what = || Denied::Deliveries(webhook.clone());
        if error.kind == ErrorKind::Invalid {
            // The cursor may have expired.
            listing.complete &= listing.reading.take().is_none();
        }
        listing.due = now + listing.backoff.wait(error, &self.settings, &mut self.notes, what);
    }

    pub(super) fn redelivery_requested(
        &mut self,
        webhook: &WebhookId,
        guid: &str,
        error: Option<RequestError>,
        now: Instant,
    ) {
        let Some(failed) = self.failed.get_mut(guid) else { return };
        failed.tries += 1;
        // At least twice the interval: the next listing has to show the outcome first.
        failed.due = Some(now + self.settings.interval.saturating_mul(1 << failed.tries));
        let Some(error) = error else { return };
        match error.kind {
            // It is too old, or GitHub no longer has it.
            ErrorKind::NotFound | ErrorKind::Invalid => {
                failed.due = None;
                self.notes.push(Note::GaveUp { webhook: webhook.clone(), guid: guid.to_owned() });
            }
            ErrorKind::Forbidden => {
                let Some(listing) = self.webhooks.get_mut(webhook) else { return };
                let what = || Denied::Redeliveries(webhook.clone());
                // Nothing is requested until the deliveries are listed again.
                listing.due =
                    now + listing.backoff.wait(&error, &self.settings, &mut self.notes, what);
            }
            _ => {}
        }
    }
}

fn add_failed(
    all: &mut BTreeMap<String, FailedDelivery>,
    webhook: &WebhookId,
    attempt: DeliveryAttempt,
    look_back: Duration,
    now: Moment,
) {
    let forget_at = now.instant_of(attempt.at) + look_back;
    let full = all.len() >= FAILED_MAX;
    match all.get_mut(&attempt.guid) {
        Some(known) => {
            known.delivery = known.delivery.max(attempt.id);
            known.at = known.at.min(attempt.at);
            known.forget_at = known.forget_at.min(forget_at);
        }
        None if full => {}
        None => {
            let failed = FailedDelivery {
                webhook: webhook.clone(),
                delivery: attempt.id,
                at: attempt.at,
                tries: 0,
                due: Some(now.instant),
                forget_at,
            };
            all.insert(attempt.guid, failed);
        }
    }
}

/// Whether the sidecar needs the event and the filter would accept it: what it rejected on
/// purpose, it would reject again.
fn is_relevant(attempt: &DeliveryAttempt) -> bool {
    attempt.event == "workflow_job"
        && matches!(attempt.action.as_str(), "queued" | "in_progress" | "completed")
        && !matches!(attempt.status, 400 | 403 | 405 | 413 | 415)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
