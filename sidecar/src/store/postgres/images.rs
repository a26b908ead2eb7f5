//! Images that installations pulled: the table `images`.

use super::{
    reader::Reader,
    row::{get_number, text, time},
    session::{Batch, Statements},
};
use crate::store::{error::Error, records::ImageRecord};

pub(super) const SAVE: &str = "
INSERT INTO images (engine, id, name, pulled_ms) VALUES ($1, $2, $3, $4)
ON CONFLICT (engine, id) DO UPDATE SET
    name = excluded.name,
    pulled_ms = excluded.pulled_ms";
pub(super) const FORGET: &str = "DELETE FROM images WHERE engine = $1 AND id = $2";

pub(super) fn save<'a>(batch: &mut Batch<'a>, statements: &Statements, image: &'a ImageRecord) {
    batch.send(
        &statements.save_image,
        vec![
            Box::new(text(&image.engine)),
            Box::new(text(&image.id)),
            Box::new(text(&image.name)),
            Box::new(time(image.pulled_at)),
        ],
    );
}

pub(super) fn forget<'a>(
    batch: &mut Batch<'a>,
    statements: &Statements,
    engine: &'a str,
    id: &'a str,
) {
    batch.send(&statements.forget_image, vec![Box::new(text(engine)), Box::new(text(id))]);
}

impl Reader {
    pub(in crate::store) async fn images(&self) -> Result<Vec<ImageRecord>, Error> {
        let query = "SELECT engine, id, name, pulled_ms FROM images ORDER BY pulled_ms, id";
        self.read(query, &[], |row| {
            Ok(ImageRecord {
                engine: row.try_get("engine")?,
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                pulled_at: get_number(row, "pulled_ms")?,
            })
        })
        .await
    }
}
