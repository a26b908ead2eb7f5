//! Queued jobs of repositories: listing the runs that are not over, and then their jobs.

use std::{collections::VecDeque, time::Duration};

use super::{
    Backoff, Denied, ErrorKind, Request, RequestError, Response, RunStatus, Settings, State,
    first_due,
};
use crate::model::{Instant, Moment, UnixMs};

const REPOSITORIES_MAX: usize = 1_000;
/// A repository without events for this long is polled less often, by `QUIET_FACTOR`.
const QUIET_AFTER: Duration = Duration::from_secs(24 * 3_600);
const QUIET_FACTOR: u32 = 10;
/// A repository without events for this long is no longer polled.
const FORGET_AFTER: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A repository whose queued jobs are listed.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) account: String,
    /// `Instant::MAX`: it never counts as quiet.
    last_event: Instant,
    due: Instant,
    began: Instant,
    backoff: Backoff,
    requests: VecDeque<Request>,
}

impl Queue {
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        self.last_event + FORGET_AFTER <= now
    }

    fn interval(&self, settings: &Settings, now: Instant) -> Duration {
        let quiet = self.last_event + QUIET_AFTER < now;
        settings.interval * if quiet { QUIET_FACTOR } else { 1 }
    }
}

impl State {
    /// Watches a repository whose latest event arrived at `last_event`. `None`: a pool names it,
    /// so it never counts as quiet.
    pub fn watch_repository(
        &mut self,
        repository: &str,
        account: &str,
        last_event: Option<UnixMs>,
        now: Moment,
    ) {
        let last_event = last_event.map_or(Instant::MAX, |at| now.instant_of(at));
        let now = now.instant;
        if let Some(queue) = self.repositories.get_mut(repository) {
            queue.last_event = queue.last_event.max(last_event);
            if queue.backoff.failures == 0 {
                // It may have been quiet.
                queue.due = queue.due.min(now + self.settings.interval);
            }
            return;
        }
        if self.repositories.len() >= REPOSITORIES_MAX {
            return;
        }
        self.open_budget(account, now);
        let queue = Queue {
            account: account.to_owned(),
            last_event,
            due: now,
            began: now,
            backoff: Backoff::default(),
            requests: VecDeque::new(),
        };
        self.repositories.insert(repository.to_owned(), queue);
    }

    pub(super) fn due_job_listing(&mut self, now: Instant, wake: &mut Instant) -> Option<Request> {
        let due = self.repositories.iter().map(|(name, it)| (it.due, it.account.as_str(), name));
        let name = first_due(&mut self.budgets, &mut self.notes, due, now, wake)?.clone();
        let queue = self.repositories.get_mut(&name)?;
        if queue.requests.is_empty() {
            queue.began = now;
            queue.requests.extend(
                [RunStatus::Queued, RunStatus::InProgress].map(|status| Request::Runs {
                    repository: name.clone(),
                    status,
                    page: None,
                }),
            );
        }
        queue.requests.front().cloned()
    }

    pub(super) fn jobs_listed(
        &mut self,
        repository: &str,
        outcome: Result<Response, RequestError>,
        now: Instant,
    ) {
        let Some(queue) = self.repositories.get_mut(repository) else { return };
        let repository = repository.to_owned();
        match outcome {
            Ok(response) => {
                queue.backoff = Backoff::default();
                let request = queue.requests.pop_front();
                match (request, response) {
                    (Some(Request::Runs { status, .. }), Response::Runs(page)) => {
                        let jobs = page.items.into_iter().map(|run| Request::Jobs {
                            repository: repository.clone(),
                            run,
                            page: None,
                        });
                        queue.requests.extend(jobs);
                        if page.next.is_some() {
                            let page = page.next;
                            queue.requests.push_front(Request::Runs { repository, status, page });
                        }
                    }
                    (Some(Request::Jobs { run, .. }), Response::Jobs(page))
                        if page.next.is_some() =>
                    {
                        let page = page.next;
                        queue.requests.push_front(Request::Jobs { repository, run, page });
                    }
                    _ => {}
                }
            }
            // This run was deleted; the others can still be listed.
            Err(RequestError { kind: ErrorKind::NotFound, .. })
                if matches!(queue.requests.front(), Some(Request::Jobs { .. })) =>
            {
                queue.requests.pop_front();
            }
            Err(error) => {
                let what = || Denied::Jobs(repository.clone());
                queue.due = now + queue.backoff.wait(&error, &self.settings, &mut self.notes, what);
                queue.requests.clear();
                return;
            }
        }
        if queue.requests.is_empty() {
            queue.due = queue.began + queue.interval(&self.settings, now);
        }
    }
}
