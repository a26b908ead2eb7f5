//! Pools that are being drained.

use rusqlite::Connection;

use super::reader::Reader;
use crate::store::error::Error;

pub(super) fn save(
    connection: &Connection,
    pool: Option<&str>,
    draining: bool,
) -> rusqlite::Result<()> {
    match pool {
        None if !draining => connection.execute("DELETE FROM draining", [])?,
        _ if draining => connection.execute(
            "INSERT INTO draining (pool) VALUES (?1) ON CONFLICT DO NOTHING",
            [pool.unwrap_or_default()],
        )?,
        _ => connection.execute("DELETE FROM draining WHERE pool = ?1", [pool])?,
    };
    Ok(())
}

impl Reader {
    pub(in crate::store) async fn draining(&self) -> Result<Vec<Option<String>>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT pool FROM draining")?;
            let pools = statement.query_map([], |row| row.get(0))?;
            pools
                .map(|pool| pool.map(|pool: String| Some(pool).filter(|it| !it.is_empty())))
                .collect()
        })
        .await
    }
}
