//! The connections for reads. Each table's file adds its queries.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use super::connect::{Connector, describe, is_passing};
use crate::store::error::{DatabaseError, Error};

const QUICK_LIMIT: Duration = Duration::from_secs(5);
const SLOW_LIMIT: Duration = Duration::from_secs(30);
/// After a failure to connect, other reads fail with the same error for this time, instead of each
/// waiting for one more attempt.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The parameters of a query, with their types: so that it takes one round trip.
pub(super) type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// Cheap to clone. It connects when there is something to read.
#[derive(Clone)]
pub(in crate::store) struct Reader {
    quick: Arc<Session>,
    slow: Arc<Session>,
    reports: Arc<Session>,
}

struct Session {
    connector: Connector,
    purpose: &'static str,
    /// What this session changes of the usual one.
    settings: &'static str,
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    client: Option<Arc<Client>>,
    failed: Option<(Instant, Error)>,
}

impl Reader {
    pub(super) fn new(connector: &Connector) -> Self {
        let session = |purpose, settings, limit| {
            let (connector, state) = (connector.clone(), Mutex::default());
            Arc::new(Session { connector, purpose, settings, limit, state })
        };
        Self {
            quick: session("reader", "", QUICK_LIMIT),
            slow: session("slow reader", "SET statement_timeout = '30s'", SLOW_LIMIT),
            reports: session("reports", "SET statement_timeout = '30s'", SLOW_LIMIT),
        }
    }

    /// For queries that read little.
    pub(super) async fn read<T>(
        &self,
        query: &str,
        parameters: Parameters<'_>,
        record: fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Vec<T>, Error> {
        self.quick.query(query, parameters, record).await
    }

    /// For queries that take longer the more is stored: the others do not wait for them.
    pub(super) async fn scan<T>(
        &self,
        query: &str,
        parameters: Parameters<'_>,
        record: fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Vec<T>, Error> {
        self.slow.query(query, parameters, record).await
    }

    /// For reports, which read everything that is stored: nothing else waits for them.
    pub(super) async fn compute<T>(
        &self,
        query: &str,
        parameters: Parameters<'_>,
        record: fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Vec<T>, Error> {
        self.reports.query(query, parameters, record).await
    }
}

impl Session {
    async fn query<T>(
        &self,
        query: &str,
        parameters: Parameters<'_>,
        record: fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Vec<T>, Error> {
        let client = self.client().await?;
        let read = match self.run(&client, query, parameters).await {
            // The server was restarted since the last read.
            Err(Some(error)) if is_passing(&error) => {
                let client = self.client().await?;
                self.run(&client, query, parameters).await
            }
            read => read,
        };
        let rows = read.map_err(|error| match error {
            Some(error) => read_error(describe(&error)),
            None => read_error(format!("no answer within {:?}", self.limit)),
        })?;
        let records: Result<Vec<T>, _> = rows.iter().map(record).collect();
        records.map_err(|error| read_error(describe(&error)))
    }

    /// The error is `None` if there is no answer in time.
    async fn run(
        &self,
        client: &Arc<Client>,
        query: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Option<tokio_postgres::Error>> {
        let answer = timeout(self.limit, client.query_typed(query, parameters)).await;
        let is_lost = match &answer {
            Ok(Ok(_)) => false,
            Ok(Err(error)) => is_passing(error),
            Err(_) => true,
        };
        if is_lost {
            let mut state = self.state.lock().await;
            state.client.take_if(|current| Arc::ptr_eq(current, client));
        }
        answer.map_err(|_| None)?.map_err(Some)
    }

    async fn client(&self) -> Result<Arc<Client>, Error> {
        let mut state = self.state.lock().await;
        if let Some(client) = state.client.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        if let Some((at, error)) = &state.failed
            && at.elapsed() < RETRY_AFTER
        {
            return Err(error.clone());
        }
        let client = async {
            let client = self.connector.connect(self.purpose).await.map_err(read_error)?;
            let set = client.batch_execute(self.settings).await;
            set.map_err(|error| read_error(describe(&error)))?;
            Ok(Arc::new(client))
        }
        .await;
        state.failed = client.as_ref().err().map(|error: &Error| (Instant::now(), error.clone()));
        state.client = client.as_ref().ok().cloned();
        client
    }
}

pub(super) fn read_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Read(DatabaseError::from(error.into()))
}
