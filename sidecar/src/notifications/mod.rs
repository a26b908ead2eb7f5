//! Notifications: messages to a receiver about what someone should look at.
//!
//! Whoever notices something calls [`Notifier::notify`], which never waits. One task sends the
//! messages, one after the other, so a receiver that does not answer holds up nothing but these.

mod limit;
mod request;

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use tokio::{sync::mpsc, time::Instant};
use tracing::{info, warn};
use uuid::Uuid;

use self::{limit::Limit, request::Message};
use crate::{
    config::NotificationsConfig,
    http_client::{HttpClient, HttpError},
    telemetry::metrics,
};
use edgerunner_scheduler::model::UnixMs;

/// Messages that may wait for the receiver. More are dropped.
const WAITING_MAX: usize = 100;
/// For one attempt.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
const RETRIES: usize = 5;
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// What a message is about. Names are stable: receivers depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A runner ended while it ran a job.
    RunnerDied,
    /// Launches fail again and again.
    PoolFailing,
    /// GitHub will stop accepting the version of a pool's runners.
    VersionEnds,
    /// Of the sidecars that share a store, none plans.
    NoPlanner,
    /// Jobs wait that no pool serves.
    JobsUnmatched,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::RunnerDied,
        Self::PoolFailing,
        Self::VersionEnds,
        Self::NoPlanner,
        Self::JobsUnmatched,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::RunnerDied => "runner_died",
            Self::PoolFailing => "pool_failing",
            Self::VersionEnds => "version_ends",
            Self::NoPlanner => "no_planner",
            Self::JobsUnmatched => "jobs_unmatched",
        }
    }

    /// Whether it goes on, and is noticed again and again, until someone does something.
    fn lasts(self) -> bool {
        match self {
            Self::RunnerDied => false,
            Self::PoolFailing | Self::VersionEnds | Self::NoPlanner | Self::JobsUnmatched => true,
        }
    }
}

/// Something that was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub kind: Kind,
    /// With the kind, the cause: for each there is at most one message an hour.
    pub subject: String,
    /// For people: what happened, where, and what to do about it.
    pub message: String,
    pub at: UnixMs,
}

/// Where notices go. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Notifier(Option<mpsc::Sender<Notice>>);

impl Notifier {
    /// Of an installation without a receiver.
    pub(crate) fn off() -> Self {
        Self(None)
    }

    /// Whether there is a receiver.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Sends a message about this, unless there was one about the same cause. Never waits.
    pub(crate) fn notify(&self, notice: Notice) {
        if let Some(notices) = &self.0
            && let Err(mpsc::error::TrySendError::Full(notice)) = notices.try_send(notice)
        {
            // There may be many more of them: the task has logged that the receiver fails.
            metrics::notification(notice.kind.as_str(), "dropped");
        }
    }
}

/// Where messages go.
pub(crate) struct Receiver(HttpClient);

impl Receiver {
    /// Fails if TLS cannot be set up.
    pub(crate) fn new(url: &Uri) -> Result<Self, String> {
        HttpClient::new(url, &Vec::new(), None, ATTEMPT_LIMIT).map(Self)
    }

    /// Bounded in time.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, HttpError> {
        self.0.send_within(ATTEMPT_LIMIT, request, RESPONSE_BYTES_MAX).await
    }
}

/// Sends the messages of a [`Notifier`].
pub(crate) struct Sender {
    receiver: Receiver,
    config: NotificationsConfig,
    instance: String,
    notices: mpsc::Receiver<Notice>,
    limit: Limit,
    retries: ExponentialBuilder,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the receiver responded with {0}")]
    Status(StatusCode),
    #[error("no response from the receiver: {0}")]
    NoResponse(#[from] HttpError),
    #[error("the message cannot be sent: {0}")]
    Request(#[from] http::Error),
}

impl Failure {
    fn may_pass(&self) -> bool {
        match self {
            Self::Status(status) => {
                status.is_server_error()
                    || matches!(
                        *status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                    )
            }
            Self::NoResponse(_) => true,
            Self::Request(_) => false,
        }
    }
}

/// `instance`: name of the installation. Fails if TLS cannot be set up.
pub(crate) fn open(
    config: NotificationsConfig,
    instance: &str,
) -> Result<(Notifier, Sender), String> {
    let receiver = Receiver::new(&config.url)?;
    let (sender, notices) = mpsc::channel(WAITING_MAX);
    let retries = ExponentialBuilder::default()
        .with_min_delay(RETRY_AFTER)
        .with_max_delay(RETRY_AFTER_MAX)
        .with_max_times(RETRIES)
        .with_jitter();
    for kind in Kind::ALL {
        metrics::notifications_from_zero(kind.as_str());
    }
    let instance = instance.to_owned();
    let sender_task =
        Sender { receiver, config, instance, notices, limit: Limit::default(), retries };
    Ok((Notifier(Some(sender)), sender_task))
}

impl Sender {
    /// Runs as long as the process.
    pub(crate) async fn run(mut self) {
        while let Some(notice) = self.notices.recv().await {
            let Some(suppressed) = self.limit.admit(&notice, Instant::now()) else { continue };
            self.send(notice, suppressed).await;
        }
        // Every notifier is gone, which is so at the end of the process alone.
        std::future::pending::<()>().await;
    }

    async fn send(&self, notice: Notice, suppressed: u64) {
        let message =
            Message { id: Uuid::new_v4(), notice: &notice, instance: &self.instance, suppressed };
        let kind = notice.kind.as_str();
        let attempt = || async { self.attempt(&message).await };
        match attempt.retry(self.retries).when(Failure::may_pass).await {
            Ok(()) => {
                metrics::notification(kind, "sent");
                info!(kind, subject = notice.subject, "notification sent");
            }
            // The message itself is in the log, where it is not lost.
            Err(error) => {
                metrics::notification(kind, "failed");
                let Notice { subject, message, .. } = &notice;
                warn!(kind, subject, text = message, %error, "a notification was not delivered");
            }
        }
    }

    async fn attempt(&self, message: &Message<'_>) -> Result<(), Failure> {
        let request = message.request(&self.config)?;
        let sent = self.receiver.send(request).await?;
        match sent.status() {
            status if status.is_success() => Ok(()),
            status => Err(Failure::Status(status)),
        }
    }
}

#[cfg(test)]
mod tests;
