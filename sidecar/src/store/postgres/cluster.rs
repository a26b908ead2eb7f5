//! The sidecars that share a database: connections and notifications for what they tell each other.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};
use tokio_postgres::Client;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::{
    connect::{Connector, describe},
    reader::read_error,
};
use crate::store::error::Error;

/// For a statement, and for the connection that it needs.
const LIMIT: Duration = Duration::from_secs(2);
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Inner>);

struct Inner {
    /// Of this sidecar, new at each start.
    id: String,
    /// A connection of its own: nothing may delay the lease.
    lease: Link,
    feed: Link,
    requests: Link,
    topics: [watch::Sender<()>; Topic::ALL.len()],
    /// Ends the session that listens.
    _listening: DropGuard,
}

/// What sidecars notify each other of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// Deliveries were stored that the planner does not know yet.
    Deliveries,
    /// The lease is free.
    Lease,
    Requests,
    Replies,
    /// The configuration is to be read again.
    Reload,
}

impl Topic {
    const ALL: [Self; 5] =
        [Self::Deliveries, Self::Lease, Self::Requests, Self::Replies, Self::Reload];

    /// The payload of the notification.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Deliveries => "deliveries",
            Self::Lease => "lease",
            Self::Requests => "requests",
            Self::Replies => "replies",
            Self::Reload => "reload",
        }
    }
}

/// Notifications of one topic. One may come for a change that was seen before, and the connection
/// may have been lost when one was due: whoever waits also looks by the clock.
pub(crate) struct Notifications(watch::Receiver<()>);

impl Notifications {
    /// Resolves at the next one. Those that come before the next call count as one.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            pending::<()>().await;
        }
    }

    /// Resolves at the next one, or after `limit`.
    pub(crate) async fn next_within(&mut self, limit: Duration) {
        let _ = timeout(limit, self.next()).await;
    }
}

impl Cluster {
    /// Connects when it is first used. Listens for as long as a clone exists.
    pub(super) fn new(connector: &Connector) -> Self {
        let link =
            |purpose| Link { connector: connector.clone(), purpose, client: Mutex::default() };
        let listening = CancellationToken::new();
        let inner = Arc::new(Inner {
            id: Uuid::new_v4().simple().to_string(),
            lease: link("lease"),
            feed: link("deliveries"),
            requests: link("requests"),
            topics: Topic::ALL.map(|_| watch::channel(()).0),
            _listening: listening.clone().drop_guard(),
        });
        let (connector, weak) = (connector.clone(), Arc::downgrade(&inner));
        tokio::spawn(listening.run_until_cancelled_owned(async move {
            loop {
                // Nobody waits for an error: the looks by the clock go on, and tell it.
                if let Ok((_client, mut received)) = connector.listen().await {
                    while let Some(payload) = received.recv().await {
                        let Some(inner) = weak.upgrade() else { return };
                        for topic in Topic::ALL.into_iter().filter(|it| it.as_str() == payload) {
                            inner.topics[topic as usize].send_replace(());
                        }
                    }
                }
                sleep(LISTEN_AGAIN_AFTER).await;
            }
        }));
        Self(inner)
    }

    pub(crate) fn id(&self) -> &str {
        &self.0.id
    }

    pub(crate) fn notifications(&self, topic: Topic) -> Notifications {
        Notifications(self.0.topics[topic as usize].subscribe())
    }

    /// All sidecars read their configuration again, this one too.
    pub(crate) async fn announce_reload(&self) -> Result<(), Error> {
        self.requests().run(async |client| notify(client, Topic::Reload).await).await
    }

    pub(super) fn lease(&self) -> &Link {
        &self.0.lease
    }

    pub(super) fn feed(&self) -> &Link {
        &self.0.feed
    }

    pub(super) fn requests(&self) -> &Link {
        &self.0.requests
    }
}

pub(super) async fn notify(client: &Client, topic: Topic) -> Result<(), tokio_postgres::Error> {
    client.execute("SELECT pg_notify('edgerunner', $1)", &[&topic.as_str()]).await?;
    Ok(())
}

/// A connection that is made when it is needed.
pub(super) struct Link {
    connector: Connector,
    purpose: &'static str,
    client: Mutex<Option<Arc<Client>>>,
}

impl Link {
    /// Within 2 s.
    pub(super) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Error> {
        let done = async {
            let client = self.client().await?;
            work(&client).await.map_err(|error| read_error(describe(&error)))
        };
        match timeout(LIMIT, done).await {
            Ok(done) => done,
            Err(_) => {
                // Whatever hangs, the next call does not wait for it.
                *self.client.lock().await = None;
                Err(read_error(format!("no answer within {LIMIT:?}")))
            }
        }
    }

    async fn client(&self) -> Result<Arc<Client>, Error> {
        let mut current = self.client.lock().await;
        if let Some(client) = current.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let connected = self.connector.connect(self.purpose).await;
        let client = Arc::new(connected.map_err(read_error)?);
        *current = Some(Arc::clone(&client));
        Ok(client)
    }
}
