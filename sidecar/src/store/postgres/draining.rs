//! Pools that are being drained.

use super::{
    reader::Reader,
    row::text,
    session::{Batch, Statements},
};
use crate::store::error::Error;

pub(super) const SAVE: &str = "INSERT INTO draining (pool) VALUES ($1) ON CONFLICT DO NOTHING";
pub(super) const DELETE: &str = "DELETE FROM draining WHERE pool = $1";
pub(super) const DELETE_ALL: &str = "DELETE FROM draining";

pub(super) fn save(
    batch: &mut Batch<'_>,
    statements: &Statements,
    pool: Option<&str>,
    draining: bool,
) {
    match pool {
        None if !draining => batch.send(&statements.delete_all_draining, Vec::new()),
        _ if draining => {
            let pool = text(pool.unwrap_or_default()).into_owned();
            batch.send(&statements.save_draining, vec![Box::new(pool)]);
        }
        _ => {
            let pool = text(pool.unwrap_or_default()).into_owned();
            batch.send(&statements.delete_draining, vec![Box::new(pool)]);
        }
    }
}

impl Reader {
    pub(in crate::store) async fn draining(&self) -> Result<Vec<Option<String>>, Error> {
        self.read("SELECT pool FROM draining ORDER BY pool", &[], |row| {
            let pool: String = row.try_get("pool")?;
            Ok(Some(pool).filter(|pool| !pool.is_empty()))
        })
        .await
    }
}
