//! Files on disks and servers that may hang: reads end in time, and do not pile up.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    sync::Mutex,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

/// A pipe gets its text from another program, which may need a while.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// Reads a file while nothing else has to go on: at the start, and on a thread of its own.
/// Stops after `bytes_max`. A read that hangs is left behind.
pub(crate) fn read_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let (sender, receiver) = channel();
    let path = path.to_owned();
    thread::spawn(move || {
        let mut content = Vec::new();
        let read = File::open(path).and_then(|it| it.take(bytes_max).read_to_end(&mut content));
        // Nobody waits any more.
        let _ = sender.send(read.map(|_| content));
    });
    receiver.recv_timeout(READ_LIMIT).unwrap_or_else(|_| Err(late(READ_LIMIT)))
}

/// As `read_file`, as text.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read_file(path, bytes_max)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

pub(crate) fn late(limit: Duration) -> io::Error {
    let text = format!(
        "it was not read within {} s: check its disk or server, or the program that writes to it \
         if it is a pipe",
        limit.as_secs()
    );
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// Blocking work of one kind, away from the runtime's thread, and on one thread at a time: work
/// that hangs must not take all threads.
pub(crate) struct OneAtATime<T> {
    running: Mutex<Option<JoinHandle<T>>>,
    is_late: AtomicBool,
}

impl<T> Default for OneAtATime<T> {
    fn default() -> Self {
        Self { running: Mutex::default(), is_late: AtomicBool::new(false) }
    }
}

impl<T: Send + 'static> OneAtATime<T> {
    /// `None` if there is no result within `limit`. Until that work has ended, there is none at
    /// all, and nobody waits.
    pub(crate) async fn run(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let result = async {
            let mut running = self.running.lock().await;
            let result = running.get_or_insert_with(|| spawn_blocking(work)).await;
            *running = None;
            result.ok()
        };
        let result = match self.is_late.load(Ordering::Relaxed) {
            true => result.now_or_never(),
            false => timeout(limit, result).await.ok(),
        };
        self.is_late.store(result.is_none(), Ordering::Relaxed);
        result.flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_hangs_is_waited_for_once_and_takes_one_thread() {
        let work = OneAtATime::default();
        let started = Arc::new(());
        let (release, hangs) = channel();
        let held = Arc::clone(&started);
        let limit = Duration::from_secs(2);
        let hang = move || {
            let _held = held;
            hangs.recv().unwrap()
        };
        let (result, ()) = tokio::join!(work.run(limit, hang), tokio::time::advance(limit));
        assert_eq!(result, None);
        // Time stands still while work runs: none of them waits.
        for _ in 0..1000 {
            assert_eq!(work.run(limit, || 7).await, None);
        }
        assert_eq!(Arc::strong_count(&started), 2);

        release.send(5).unwrap();
        // It was late, and is a result all the same.
        let late = loop {
            if let Some(result) = work.run(limit, || 7).await {
                break result;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(late, 5);
        assert_eq!(tokio::join!(work.run(limit, || 7), work.run(limit, || 8)), (Some(7), Some(8)));
    }
}
