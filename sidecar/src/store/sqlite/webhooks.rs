//! Webhooks that deliveries came from: the table `hooks`.

use rusqlite::{Connection, named_params};

use super::{jobs, reader::Reader};
use crate::store::{error::Error, records::WebhookRecord};

pub(super) fn save(connection: &Connection, webhook: &WebhookRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO hooks (host, hook, app_id, seen_ms, settled_ms)
             VALUES (:host, :hook, :app_id, :seen_ms, :settled_ms)
             ON CONFLICT (host, hook, app_id) DO UPDATE SET
                 seen_ms = max(seen_ms, excluded.seen_ms),
                 settled_ms = max(settled_ms, excluded.settled_ms)",
        )?
        .execute(named_params! {
            ":host": webhook.host.as_str(),
            ":hook": webhook.path,
            ":app_id": webhook.app_id,
            ":seen_ms": webhook.seen_at,
            ":settled_ms": webhook.settled_until,
        })?;
    Ok(())
}

impl Reader {
    pub(in crate::store) async fn webhooks(&self) -> Result<Vec<WebhookRecord>, Error> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT host, hook, app_id, seen_ms, settled_ms FROM hooks")?;
            let webhooks = statement.query_map([], |row| {
                Ok(WebhookRecord {
                    host: jobs::host(row)?,
                    path: row.get("hook")?,
                    app_id: row.get("app_id")?,
                    seen_at: row.get("seen_ms")?,
                    settled_until: row.get("settled_ms")?,
                })
            })?;
            webhooks.collect()
        })
        .await
    }
}
