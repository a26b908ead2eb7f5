//! The sidecars themselves: each reports every other second that it lives.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, types::Json};

use super::cluster::Cluster;
use crate::store::error::Error;
use edgerunner_scheduler::model::UnixMs;

/// After so long without a report, a sidecar counts as silent.
pub(crate) const SILENT_AFTER_MS: u64 = 10_000;

/// A sidecar that shares the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: String,
    /// Name of its host.
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) started: UnixMs,
    /// How long ago it reported, by Postgres' clock, in milliseconds.
    pub(crate) seen_ms_ago: u64,
    pub(crate) figures: MemberFigures,
    /// Deliveries that are stored and that it has not planned for yet; `None` unless it plans, and
    /// if it is silent.
    pub(crate) behind: Option<Behind>,
}

/// What a sidecar reports of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MemberFigures {
    /// Writes that wait for a commit.
    pub(crate) queued_writes: usize,
    /// Up to where it has read the deliveries of all sidecars, if it plans.
    pub(crate) position: Option<String>,
    /// A hash of each section of its configuration, to find out whether they differ.
    pub(crate) configuration: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behind {
    pub(crate) deliveries: u64,
    /// When the oldest of them was received.
    pub(crate) oldest: Option<UnixMs>,
}

impl Cluster {
    /// Reports to the others that this sidecar is alive.
    pub(crate) async fn report(
        &self,
        name: &str,
        started: UnixMs,
        figures: &MemberFigures,
    ) -> Result<(), Error> {
        self.requests()
            .run(async |client| {
                let query = "INSERT INTO sidecars (id, name, version, started, seen, figures)
                    VALUES ($1, $2, $3, to_timestamp($4::float8 / 1000), clock_timestamp(), $5)
                    ON CONFLICT (id) DO UPDATE
                        SET seen = excluded.seen, figures = excluded.figures";
                let version = env!("CARGO_PKG_VERSION");
                let started = started as f64;
                client
                    .execute(query, &[&self.id(), &name, &version, &started, &Json(figures)])
                    .await?;
                // What others left that were killed.
                let query = "DELETE FROM sidecars WHERE seen < clock_timestamp() - interval '1 h'";
                client.execute(query, &[]).await?;
                Ok(())
            })
            .await
    }

    /// This sidecar ends.
    pub(crate) async fn leave(&self) -> Result<(), Error> {
        self.requests()
            .run(async |client| {
                client.execute("DELETE FROM sidecars WHERE id = $1", &[&self.id()]).await?;
                Ok(())
            })
            .await
    }

    /// Those that reported within the last hour, by name and start.
    pub(crate) async fn members(&self) -> Result<Vec<Member>, Error> {
        self.requests().run(async |client| read(client).await).await
    }
}

pub(super) async fn read(client: &Client) -> Result<Vec<Member>, tokio_postgres::Error> {
    let query = "SELECT id, name, version, figures,
            (extract(epoch FROM started) * 1000)::bigint AS started_ms,
            (extract(epoch FROM clock_timestamp() - seen) * 1000)::bigint AS seen_ms_ago
        FROM sidecars WHERE seen > clock_timestamp() - interval '1 h' ORDER BY name, started, id";
    let mut members = Vec::new();
    for row in client.query(query, &[]).await? {
        let Json(figures) = row.get::<_, Json<MemberFigures>>("figures");
        let seen_ms_ago = row.get::<_, i64>("seen_ms_ago").max(0).cast_unsigned();
        let behind = match &figures.position {
            // One that planned and was killed falls further and further behind: to count that for
            // each would take longer and longer.
            Some(position) if seen_ms_ago < SILENT_AFTER_MS => {
                Some(behind(client, position).await?)
            }
            _ => None,
        };
        members.push(Member {
            id: row.get("id"),
            name: row.get("name"),
            version: row.get("version"),
            started: row.get::<_, i64>("started_ms").cast_unsigned(),
            seen_ms_ago,
            figures,
            behind,
        });
    }
    Ok(members)
}

async fn behind(client: &Client, position: &str) -> Result<Behind, tokio_postgres::Error> {
    let query = "SELECT count(*) AS deliveries, min(received_ms) AS oldest_ms FROM deliveries
        WHERE xid >= pg_snapshot_xmin($1::text::pg_snapshot)
            AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)";
    let row = client.query_one(query, &[&position]).await?;
    Ok(Behind {
        deliveries: row.get::<_, i64>("deliveries").cast_unsigned(),
        oldest: row.get::<_, Option<i64>>("oldest_ms").map(i64::cast_unsigned),
    })
}
