//! The lease: the sidecar that holds it plans. Its time is Postgres' own.

use std::time::Duration;

use tokio_postgres::Client;

use super::cluster::{Cluster, Topic, notify};
use crate::store::{error::Error, records::Term};
use edgerunner_scheduler::model::UnixMs;

/// How long it is valid after it was taken or renewed.
const VALID: Duration = Duration::from_secs(6);

/// Who plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaseRecord {
    /// ID of the sidecar that holds the lease; `None` while it is free.
    pub(crate) holder: Option<String>,
    pub(crate) term: Term,
    /// When it was taken.
    pub(crate) since: UnixMs,
    /// When it ends or ended, unless it is renewed; `None` if it was never taken.
    pub(crate) until: Option<UnixMs>,
}

impl Cluster {
    /// Returns the new term; `None` if another sidecar holds the lease.
    pub(crate) async fn take_lease(&self) -> Result<Option<Term>, Error> {
        let taken = self.lease().run(async |client| {
            let query = "UPDATE lease
                SET holder = $1, term = term + 1, since = clock_timestamp(),
                    until = clock_timestamp() + $2::float8 * interval '1 s'
                WHERE until <= clock_timestamp()
                RETURNING term";
            client.query_opt(query, &[&self.id(), &VALID.as_secs_f64()]).await
        });
        Ok(taken.await?.map(|row| Term(row.get("term"))))
    }

    /// Returns whether the term goes on. A lease that has run out is not renewed.
    pub(crate) async fn renew_lease(&self, term: Term) -> Result<bool, Error> {
        let renewed = self.lease().run(async |client| {
            let query = "UPDATE lease SET until = clock_timestamp() + $3::float8 * interval '1 s'
                WHERE holder = $1 AND term = $2 AND until > clock_timestamp()";
            client.execute(query, &[&self.id(), &term.0, &VALID.as_secs_f64()]).await
        });
        Ok(renewed.await? > 0)
    }

    /// Lets another sidecar take the lease at once.
    pub(crate) async fn release_lease(&self, term: Term) -> Result<(), Error> {
        self.lease()
            .run(async |client| {
                let query = "UPDATE lease SET until = clock_timestamp()
                    WHERE holder = $1 AND term = $2 AND until > clock_timestamp()";
                client.execute(query, &[&self.id(), &term.0]).await?;
                notify(client, Topic::Lease).await
            })
            .await
    }

    pub(crate) async fn lease_record(&self) -> Result<LeaseRecord, Error> {
        self.requests().run(async |client| read(client).await).await
    }
}

pub(super) async fn read(client: &Client) -> Result<LeaseRecord, tokio_postgres::Error> {
    let query = "SELECT CASE WHEN until > clock_timestamp() THEN holder END AS holder, term,
            (extract(epoch FROM since) * 1000)::bigint AS since_ms,
            CASE WHEN isfinite(until) THEN (extract(epoch FROM until) * 1000)::bigint END
                AS until_ms
        FROM lease";
    let row = client.query_one(query, &[]).await?;
    Ok(LeaseRecord {
        holder: row.get("holder"),
        term: Term(row.get("term")),
        since: row.get::<_, i64>("since_ms").cast_unsigned(),
        until: row.get::<_, Option<i64>>("until_ms").map(i64::cast_unsigned),
    })
}
