//! What `doctor` asks a database: it changes nothing there.

use std::time::Instant;

use super::{
    connect::{ConnectError, Connector, describe},
    lease::{self, LeaseRecord},
    members::{self, Member},
};
use crate::{config::Database, store::error::OpenError};

/// Connections of one sidecar: it writes, reads (twice), computes reports, holds the lease, follows deliveries, asks
/// and listens.
pub(crate) const CONNECTIONS: i64 = 8;

/// A database that can be written to.
pub(crate) struct Inspection {
    /// Postgres' version.
    pub(crate) version: String,
    /// How many more connections the server accepts from users.
    pub(crate) connections_left: i64,
    pub(crate) connections_max: i64,
    /// By how much Postgres' clock is ahead of this machine's, in milliseconds, give or take half of
    /// `round_trip_ms`.
    pub(crate) ahead_ms: i64,
    pub(crate) round_trip_ms: u64,
    /// `None` if no sidecar has used the database yet.
    pub(crate) sidecars: Option<(Vec<Member>, LeaseRecord)>,
}

/// `now`: milliseconds since the Unix epoch by this machine's clock.
pub(crate) async fn inspect(
    database: &Database,
    now: impl Fn() -> u64,
) -> Result<Inspection, OpenError> {
    let url = &database.url;
    let connector = Connector::new(database).map_err(|error| OpenError::new(url, error))?;
    let client = connector.connect("doctor").await.map_err(|error| error.about(url))?;
    let failed = |error| ConnectError::lasting(describe(&error)).about(url);
    let query = "SELECT current_setting('server_version') AS version,
            (current_setting('max_connections')::bigint
                - current_setting('superuser_reserved_connections')::bigint) AS most,
            (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
            to_regclass('edgerunner.sidecars') IS NOT NULL AS has_sidecars";
    let row = client.query_one(query, &[]).await.map_err(failed)?;
    let (most, used): (i64, i64) = (row.get("most"), row.get("used"));
    let clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let statement = client.prepare(clock).await.map_err(failed)?;
    let (asked_at, begun) = (now(), Instant::now());
    let clock = client.query_one(&statement, &[]).await.map_err(failed)?;
    let round_trip_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let here = asked_at.saturating_add(round_trip_ms / 2).cast_signed();
    let sidecars = match row.get("has_sidecars") {
        true => Some((
            members::read(&client).await.map_err(failed)?,
            lease::read(&client).await.map_err(failed)?,
        )),
        false => None,
    };
    Ok(Inspection {
        version: row.get("version"),
        // The one of `doctor` is free again afterwards.
        connections_left: most - used + 1,
        connections_max: most,
        ahead_ms: clock.get::<_, i64>(0).saturating_sub(here),
        round_trip_ms,
        sidecars,
    })
}
