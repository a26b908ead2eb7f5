//! What is shown, fetched every two seconds by a thread of its own.

use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use anyhow::Result;

use super::Event;
use crate::{
    api::{status::StatusView, views::JobHistoryView},
    cli::{client::Client, output::parse},
};

const REFRESH_EVERY: Duration = Duration::from_secs(2);
/// Rows of each list of jobs.
const JOBS_MAX: usize = 500;

/// All that the sidecar was asked for at one moment.
pub(super) struct Data {
    pub(super) status: StatusView,
    pub(super) waiting: Vec<JobHistoryView>,
    pub(super) running: Vec<JobHistoryView>,
}

/// That, or why it could not be fetched.
pub(super) type Fetched = Result<Data, String>;

/// Sends what is fetched until nobody receives it. What is returned asks for it at once.
pub(super) fn start(client: Client, events: Sender<Event>) -> Sender<()> {
    let (refresh, asked) = mpsc::channel();
    thread::spawn(move || {
        loop {
            let fetched = fetch(&client).map_err(|error| format!("{error:#}"));
            if events.send(Event::Fetched(Box::new(fetched))).is_err() {
                return;
            }
            if asked.recv_timeout(REFRESH_EVERY) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            // One answer is enough for all who asked.
            asked.try_iter().for_each(drop);
        }
    });
    refresh
}

fn fetch(client: &Client) -> Result<Data> {
    let jobs = |state: &str| -> Result<Vec<JobHistoryView>> {
        parse(client.get(&format!("/api/v1/jobs?state={state}&limit={JOBS_MAX}"))?)
    };
    Ok(Data {
        status: parse(client.get("/api/v1/status")?)?,
        waiting: jobs("queued")?,
        running: jobs("in_progress")?,
    })
}
