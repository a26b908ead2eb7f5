//! Webhooks that deliveries came from: the table `hooks`.

use super::{
    reader::Reader,
    row::{get_host, get_number, number, text, time},
    session::{Batch, Statements},
};
use crate::store::{error::Error, records::WebhookRecord};

pub(super) const SAVE: &str = "
INSERT INTO hooks (host, hook, app_id, seen_ms, settled_ms) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (host, hook, app_id) DO UPDATE SET
    seen_ms = greatest(hooks.seen_ms, excluded.seen_ms),
    settled_ms = greatest(hooks.settled_ms, excluded.settled_ms)";

pub(super) fn save<'a>(batch: &mut Batch<'a>, statements: &Statements, webhook: &'a WebhookRecord) {
    batch.send(
        &statements.save_webhook,
        vec![
            Box::new(text(webhook.host.as_str())),
            Box::new(text(&webhook.path)),
            Box::new(number(webhook.app_id)),
            Box::new(time(webhook.seen_at)),
            Box::new(time(webhook.settled_until)),
        ],
    );
}

impl Reader {
    pub(in crate::store) async fn webhooks(&self) -> Result<Vec<WebhookRecord>, Error> {
        let query = "SELECT host, hook, app_id, seen_ms, settled_ms FROM hooks
                     ORDER BY host, hook, app_id";
        self.read(query, &[], |row| {
            Ok(WebhookRecord {
                host: get_host(row)?,
                path: row.try_get("hook")?,
                app_id: get_number(row, "app_id")?,
                seen_at: get_number(row, "seen_ms")?,
                settled_until: get_number(row, "settled_ms")?,
            })
        })
        .await
    }
}
