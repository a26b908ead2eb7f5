//! Requests of sidecars that do not plan to the one that does.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;
use tokio_postgres::types::Json;

use super::{
    cluster::{Cluster, Topic, notify},
    reader::read_error,
};
use crate::store::error::Error;

/// How often a reply is looked for without a notification.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Older ones have nobody who waits for them.
const ANSWERED_WITHIN: &str = "5 s";

impl Cluster {
    /// Returns the reply of the sidecar that plans; `None` without one within `limit`.
    pub(crate) async fn ask<T: DeserializeOwned + Send>(
        &self,
        request: &(impl Serialize + Sync + std::fmt::Debug),
        limit: Duration,
    ) -> Result<Option<T>, Error> {
        let deadline = Instant::now() + limit;
        let mut replies = self.notifications(Topic::Replies);
        let id: i64 = self
            .requests()
            .run(async |client| {
                let query = "INSERT INTO requests (request) VALUES ($1) RETURNING id";
                let row = client.query_one(query, &[&Json(request)]).await?;
                notify(client, Topic::Requests).await?;
                Ok(row.get("id"))
            })
            .await?;
        loop {
            let found = self.requests().run(async |client| {
                let query = "DELETE FROM requests WHERE id = $1 AND reply IS NOT NULL
                    RETURNING reply";
                client.query_opt(query, &[&id]).await
            });
            if let Some(row) = found.await? {
                let reply = row.try_get::<_, Json<T>>("reply");
                return match reply {
                    Ok(Json(reply)) => Ok(Some(reply)),
                    Err(error) => Err(read_error(error)),
                };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            replies.next_within(left.min(LOOK_EVERY)).await;
        }
    }

    /// Requests without a reply, oldest first. Those that nobody waits for are deleted.
    pub(crate) async fn open_requests<T: DeserializeOwned>(
        &self,
    ) -> Result<Vec<(i64, Result<T, String>)>, Error> {
        let rows = self.requests().run(async |client| {
            let query = format!(
                "DELETE FROM requests WHERE made < clock_timestamp() - interval '{ANSWERED_WITHIN}'"
            );
            client.execute(&query, &[]).await?;
            let query = "SELECT id, request FROM requests WHERE reply IS NULL ORDER BY id";
            client.query(query, &[]).await
        });
        let request = |row: &tokio_postgres::Row| {
            let request = row.try_get::<_, Json<T>>("request");
            request.map(|Json(request)| request).map_err(|error| error.to_string())
        };
        Ok(rows.await?.iter().map(|row| (row.get("id"), request(row))).collect())
    }

    pub(crate) async fn reply(
        &self,
        request: i64,
        reply: &(impl Serialize + Sync + std::fmt::Debug),
    ) -> Result<(), Error> {
        self.requests()
            .run(async |client| {
                let query = "UPDATE requests SET reply = $2 WHERE id = $1";
                client.execute(query, &[&request, &Json(reply)]).await?;
                notify(client, Topic::Replies).await
            })
            .await
    }
}
