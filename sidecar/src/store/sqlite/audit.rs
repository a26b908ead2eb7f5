//! Changes that people made: the table `audit`.

use rusqlite::{Connection, named_params};

use super::reader::Reader;
use crate::store::{error::Error, records::AuditRecord};

pub(super) fn save(connection: &Connection, change: &AuditRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO audit (at_ms, who, address, action, target, outcome)
             VALUES (:at_ms, :who, :address, :action, :target, :outcome)",
        )?
        .execute(named_params! {
            ":at_ms": change.at,
            ":who": change.who,
            ":address": change.address,
            ":action": change.action,
            ":target": change.target,
            ":outcome": change.outcome,
        })?;
    Ok(())
}

impl Reader {
    pub(in crate::store) async fn audit(&self, limit: u32) -> Result<Vec<AuditRecord>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT at_ms, who, address, action, target, outcome FROM audit
                 ORDER BY at_ms DESC, id DESC LIMIT ?1",
            )?;
            let changes = statement.query_map([limit], |row| {
                Ok(AuditRecord {
                    at: row.get("at_ms")?,
                    who: row.get("who")?,
                    address: row.get("address")?,
                    action: row.get("action")?,
                    target: row.get("target")?,
                    outcome: row.get("outcome")?,
                })
            })?;
            changes.collect()
        })
        .await
    }
}
