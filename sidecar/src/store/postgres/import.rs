//! Writes the rows of another database into one without records.

use std::pin::pin;

use tokio::sync::mpsc;
use tokio_postgres::{
    Client, Error, Transaction,
    binary_copy::BinaryCopyInWriter,
    types::{ToSql, Type},
};

use super::{
    connect::{ConnectError, Connector, describe},
    row::text,
    schema,
};
use crate::{
    config::Database,
    store::{
        copy::{Kind, TABLES, Table, Value},
        error::OpenError,
    },
};

/// A transaction that has all tables to itself.
pub(in crate::store) struct Import<'a>(Transaction<'a>);

fn failure(error: &Error) -> ConnectError {
    ConnectError::lasting(format!("{}; nothing was changed", describe(error)))
}

impl<'a> Import<'a> {
    pub(in crate::store) async fn connect(database: &Database) -> Result<Client, OpenError> {
        let url = &database.url;
        let connector = Connector::new(database).map_err(|it| OpenError::new(url, it))?;
        let connected = async {
            let mut client = connector.connect("migrate").await?;
            schema::set_up(&mut client).await?;
            Ok(client)
        };
        connected.await.map_err(|error: ConnectError| error.about(url))
    }

    /// Fails if there are records, or a sidecar uses the database.
    pub(in crate::store) async fn begin(client: &'a mut Client) -> Result<Self, ConnectError> {
        let names: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        // Reading the other database may take any time.
        let prepare = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";
        client.batch_execute(prepare).await.map_err(|error| failure(&error))?;
        let transaction = client.transaction().await.map_err(|error| failure(&error))?;
        let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.join(", "));
        transaction.batch_execute(&lock).await.map_err(|error| {
            let why = describe(&error);
            ConnectError::lasting(format!("{why}: stop everything that uses this database"))
        })?;
        let any = names.iter().map(|name| format!("EXISTS (SELECT FROM {name})"));
        let query = format!(
            "SELECT {}, EXISTS (SELECT FROM sidecars WHERE seen > clock_timestamp() - interval '10 s')",
            any.collect::<Vec<_>>().join(" OR ")
        );
        let found = transaction.query_one(&query, &[]).await.map_err(|error| failure(&error))?;
        if found.get(1) {
            let message = "a sidecar uses this database: stop it; nothing was changed";
            return Err(ConnectError::lasting(message));
        }
        if found.get(0) {
            return Err(ConnectError::lasting(
                "there are records in this database; nothing was changed. Name one without \
                 records, or remove them with DROP SCHEMA edgerunner CASCADE",
            ));
        }
        Ok(Self(transaction))
    }

    /// Writes rows until there are no more, and returns how many the table has then.
    pub(in crate::store) async fn copy(
        &self,
        table: &Table,
        mut rows: mpsc::Receiver<Vec<Value>>,
    ) -> Result<u64, ConnectError> {
        let copy = async {
            let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
            let types: Vec<Type> = table.columns.iter().map(|(_, kind)| type_of(*kind)).collect();
            let statement = format!("COPY {} ({}) FROM STDIN BINARY", table.name, names.join(", "));
            let sink = self.0.copy_in(&statement).await?;
            let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
            while let Some(row) = rows.recv().await {
                let kinds = table.columns.iter().map(|(_, kind)| *kind);
                let values = row.into_iter().zip(kinds).map(|(value, kind)| column(value, kind));
                writer.as_mut().write_raw(values.collect::<Vec<_>>()).await?;
            }
            writer.finish().await?;
            let count = format!("SELECT count(*) FROM {}", table.name);
            self.0.query_one(&count, &[]).await
        };
        let row = copy.await.map_err(|error| failure(&error))?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or_default())
    }

    /// With statistics, which reads of many records need at once.
    pub(in crate::store) async fn commit(self) -> Result<(), ConnectError> {
        let commit = async {
            self.0.batch_execute("ANALYZE deliveries, jobs, runners, runner_logs, hooks").await?;
            self.0.commit().await
        };
        commit.await.map_err(|error| failure(&error))
    }
}

fn type_of(kind: Kind) -> Type {
    match kind {
        Kind::Number => Type::INT8,
        Kind::State => Type::INT2,
        Kind::Flag => Type::BOOL,
        Kind::Text => Type::TEXT,
    }
}

fn column(value: Value, kind: Kind) -> Box<dyn ToSql + Sync + Send> {
    let number = match &value {
        Value::Number(number) => Some(*number),
        _ => None,
    };
    match kind {
        Kind::Number => Box::new(number),
        Kind::State => Box::new(number.and_then(|number| i16::try_from(number).ok())),
        Kind::Flag => Box::new(number.map(|number| number != 0)),
        Kind::Text => Box::new(match value {
            Value::Text(written) => Some(text(&written).into_owned()),
            _ => None,
        }),
    }
}
