//! Changes that people made: the table `audit`.

use tokio_postgres::types::Type;

use super::{
    reader::Reader,
    row::{get_number, text, time},
    session::{Batch, Statements},
};
use crate::store::{error::Error, records::AuditRecord};

pub(super) const SAVE: &str = "
INSERT INTO audit (at_ms, who, address, action, target, outcome) VALUES ($1, $2, $3, $4, $5, $6)";

pub(super) fn save<'a>(batch: &mut Batch<'a>, statements: &Statements, change: &'a AuditRecord) {
    batch.send(
        &statements.save_audit,
        vec![
            Box::new(time(change.at)),
            Box::new(text(&change.who)),
            Box::new(text(&change.address)),
            Box::new(text(&change.action)),
            Box::new(text(&change.target)),
            Box::new(text(&change.outcome)),
        ],
    );
}

impl Reader {
    pub(in crate::store) async fn audit(&self, limit: u32) -> Result<Vec<AuditRecord>, Error> {
        let query = "
            SELECT at_ms, who, address, action, target, outcome FROM audit
            ORDER BY at_ms DESC, id DESC LIMIT $1";
        self.read(query, &[(&i64::from(limit), Type::INT8)], |row| {
            Ok(AuditRecord {
                at: get_number(row, "at_ms")?,
                who: row.try_get("who")?,
                address: row.try_get("address")?,
                action: row.try_get("action")?,
                target: row.try_get("target")?,
                outcome: row.try_get("outcome")?,
            })
        })
        .await
    }
}
