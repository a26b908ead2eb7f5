//! Lost jobs: those that ended because their runner did.

use tokio_postgres::{Row, types::Type};

use super::{
    reader::Reader,
    row::{get_key, get_number, number, time},
    session::{Batch, Statements},
};
use crate::store::{
    error::Error,
    lost::{self, LostJob, Rerun},
};
use edgerunner_scheduler::model::UnixMs;

pub(super) const SAVE: &str = "
UPDATE jobs SET rerun_ms = $4
FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS lost (id, run_attempt, host)
WHERE jobs.id = lost.id AND jobs.run_attempt = lost.run_attempt AND jobs.host = lost.host";

fn lost_job(row: &Row) -> Result<LostJob, tokio_postgres::Error> {
    Ok(LostJob {
        key: get_key(row, "id")?,
        run_id: get_number(row, "run_id")?,
        repository: row.try_get("repository")?,
        pool: row.try_get("pool")?,
        target: row.try_get("target")?,
        delivery: row.try_get("delivery")?,
    })
}

pub(super) fn save(batch: &mut Batch<'_>, statements: &Statements, rerun: &Rerun) {
    let ids: Vec<i64> = rerun.jobs.iter().map(|key| number(key.id)).collect();
    let attempts: Vec<i64> = rerun.jobs.iter().map(|key| number(key.run_attempt)).collect();
    let hosts: Vec<&str> = rerun.jobs.iter().map(|key| key.host.as_str()).collect();
    batch.send(
        &statements.save_rerun,
        vec![Box::new(ids), Box::new(attempts), Box::new(hosts), Box::new(time(rerun.at))],
    );
}

impl Reader {
    pub(in crate::store) async fn lost_jobs(&self, since: UnixMs) -> Result<Vec<LostJob>, Error> {
        self.compute(&lost::query(), &[(&time(since), Type::INT8)], lost_job).await
    }
}
