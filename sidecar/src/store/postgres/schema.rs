//! The schema: checks that it can be used, and creates or upgrades it.

use tokio_postgres::{Client, Error, GenericClient, Transaction, error::SqlState};

use super::{
    connect::{ConnectError, SCHEMA, describe, is_passing},
    migrations::MIGRATIONS,
};

const VERSION: i32 = MIGRATIONS.len() as i32;
/// Any number; it must differ from those of other programs in the same database.
const LOCK: i64 = 0x6564_6765_7275_6e6e;

/// A server that a backup was restored to counts transactions by itself. A delivery of a transaction
/// that is still to come would be new again and again: it becomes one of the first transaction.
const FORGET_FOREIGN_TRANSACTIONS: &str = "
UPDATE deliveries SET xid = '3' WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())";

/// `client` is the only user of its session. Several sidecars may start at the same time.
pub(super) async fn set_up(client: &mut Client) -> Result<(), ConnectError> {
    create(client).await?;
    client.batch_execute(FORGET_FOREIGN_TRANSACTIONS).await.map_err(failure(""))
}

async fn create(client: &mut Client) -> Result<(), ConnectError> {
    let mut failed = failure("");
    // The usual start takes no lock that another sidecar could hold.
    if version(client).await.map_err(&mut failed)? == Some(VERSION) {
        return Ok(());
    }
    // An upgrade may write whole tables, or wait for another sidecar that does.
    let unlimited = "SET statement_timeout = 0; SET lock_timeout = 0";
    client.batch_execute(unlimited).await.map_err(&mut failed)?;
    let transaction = client.transaction().await.map_err(&mut failed)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await.map_err(&mut failed)?;
    upgrade(&transaction).await?;
    transaction.commit().await.map_err(failed)
}

/// An error, with what may help if the user lacks a privilege.
fn failure(advice: &'static str) -> impl FnMut(Error) -> ConnectError {
    move |error| match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            ConnectError::lasting(format!("{}{advice}", describe(&error)))
        }
        _ if is_passing(&error) => ConnectError::passing(describe(&error)),
        _ => ConnectError::lasting(describe(&error)),
    }
}

async fn upgrade(transaction: &Transaction<'_>) -> Result<(), ConnectError> {
    let mut failed = failure(
        ": let the user own the schema, with CREATE SCHEMA edgerunner AUTHORIZATION its name, or \
         grant it CREATE on the database",
    );
    let found = transaction
        .query_one(
            "SELECT to_regnamespace($1) IS NOT NULL,
                 EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace($1))",
            &[&SCHEMA],
        )
        .await
        .map_err(&mut failed)?;
    let (exists, has_tables): (bool, bool) = (found.get(0), found.get(1));
    if !exists {
        let create = format!("CREATE SCHEMA {SCHEMA}");
        transaction.batch_execute(&create).await.map_err(&mut failed)?;
    }
    let version = match has_tables {
        true => version(transaction).await.map_err(&mut failed)?,
        false => {
            let create = "CREATE TABLE schema_version (version integer NOT NULL);
                          INSERT INTO schema_version VALUES (0)";
            transaction.batch_execute(create).await.map_err(&mut failed)?;
            Some(0)
        }
    };
    let Some(version) = version else {
        return Err(ConnectError::lasting(format!(
            "the schema {SCHEMA} belongs to another program; nothing was changed. Set store.url to \
             a database whose schema {SCHEMA} only edgerunner uses"
        )));
    };
    if version > VERSION {
        return Err(ConnectError::lasting(format!(
            "written by a newer edgerunner (schema {version}, this version supports {VERSION}); \
             nothing was changed. Run that version or a later one"
        )));
    }
    for migration in &MIGRATIONS[usize::try_from(version).unwrap_or(0)..] {
        transaction.batch_execute(migration).await.map_err(&mut failed)?;
    }
    transaction
        .execute("UPDATE schema_version SET version = $1", &[&VERSION])
        .await
        .map_err(&mut failed)?;
    Ok(())
}

/// `None` if there is no schema of this program.
async fn version(client: &impl GenericClient) -> Result<Option<i32>, Error> {
    let exists = "SELECT to_regclass('edgerunner.schema_version') IS NOT NULL";
    if !client.query_one(exists, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let version = client.query_opt("SELECT version FROM edgerunner.schema_version", &[]).await?;
    Ok(version.map(|row| row.get(0)))
}
