//! The Postgres backend: one thread with the connection that writes, three connections that read.

mod audit;
mod cluster;
mod connect;
mod deliveries;
mod draining;
mod feed;
mod images;
mod import;
mod inspect;
mod jobs;
mod lease;
mod lost;
mod members;
mod migrations;
mod prune;
mod reader;
mod report;
mod requests;
mod row;
mod runners;
mod schema;
mod session;
#[cfg(test)]
mod tests;
mod tls;
mod webhooks;
mod writer;

use std::{thread, time::Duration};

use tokio::{
    runtime,
    sync::{mpsc, oneshot},
};

use super::{error::OpenError, queue::Queued};
use crate::config::Database;
pub(super) use connect::ConnectError;
use connect::Connector;
pub(super) use import::Import;
pub(super) use reader::Reader;
pub(crate) use {
    cluster::{Cluster, Topic},
    feed::FeedPosition,
    inspect::{CONNECTIONS, Inspection, inspect},
    lease::LeaseRecord,
    members::{Behind, Member, MemberFigures, SILENT_AFTER_MS},
};

/// Connects to the database and starts its writer. The receiver resolves once the writer has
/// closed its connection.
pub(super) async fn open(
    database: &Database,
    writes: mpsc::Receiver<Queued>,
    on_commit: impl Fn(Duration) + Send + 'static,
) -> Result<(Reader, Cluster, oneshot::Receiver<()>), OpenError> {
    let url = &database.url;
    let failed = |message| OpenError::new(url, message);
    let connector = Connector::new(database).map_err(failed)?;
    let mut client = connector.connect("schema").await.map_err(|error| error.about(url))?;
    schema::set_up(&mut client).await.map_err(|error| error.about(url))?;
    let (reader, cluster) = (Reader::new(&connector), Cluster::new(&connector));
    // Its own, so that the load of the main one does not delay commits.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    let (closed, wait) = oneshot::channel();
    thread::Builder::new()
        .name("store".into())
        .spawn(move || {
            writer::run(&runtime, connector, writes, on_commit);
            let _ = closed.send(());
        })
        .map_err(|error| failed(error.to_string()))?;
    Ok((reader, cluster, wait))
}
