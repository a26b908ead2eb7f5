//! Images that this installation pulled: the table `images`.

use rusqlite::{Connection, named_params};

use super::reader::Reader;
use crate::store::{error::Error, records::ImageRecord};

pub(super) fn save(connection: &Connection, image: &ImageRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO images (engine, id, name, pulled_ms)
             VALUES (:engine, :id, :name, :pulled_ms)
             ON CONFLICT (engine, id) DO UPDATE SET
                 name = excluded.name,
                 pulled_ms = excluded.pulled_ms",
        )?
        .execute(named_params! {
            ":engine": image.engine,
            ":id": image.id,
            ":name": image.name,
            ":pulled_ms": image.pulled_at,
        })?;
    Ok(())
}

pub(super) fn forget(connection: &Connection, engine: &str, id: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM images WHERE engine = ?1 AND id = ?2")?
        .execute([engine, id])?;
    Ok(())
}

impl Reader {
    pub(in crate::store) async fn images(&self) -> Result<Vec<ImageRecord>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT engine, id, name, pulled_ms FROM images ORDER BY pulled_ms, id",
            )?;
            let images = statement.query_map([], |row| {
                Ok(ImageRecord {
                    engine: row.get("engine")?,
                    id: row.get("id")?,
                    name: row.get("name")?,
                    pulled_at: row.get("pulled_ms")?,
                })
            })?;
            images.collect()
        })
        .await
    }
}
