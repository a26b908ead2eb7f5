//! Lost jobs: those that ended because their runner did.

use rusqlite::{Connection, Row};

use super::{
    jobs,
    reader::{Reader, numbered},
};
use crate::store::{
    error::Error,
    lost::{self, LostJob, Rerun},
};
use edgerunner_scheduler::model::{JobKey, UnixMs};

fn lost_job(row: &Row<'_>) -> rusqlite::Result<LostJob> {
    let (id, run_attempt, host) = (row.get("id")?, row.get("run_attempt")?, jobs::host(row)?);
    Ok(LostJob {
        key: JobKey { id, run_attempt, host },
        run_id: row.get("run_id")?,
        repository: row.get("repository")?,
        pool: row.get("pool")?,
        target: row.get("target")?,
        delivery: row.get("delivery")?,
    })
}

pub(super) fn save(connection: &Connection, rerun: &Rerun) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE jobs SET rerun_ms = ?4 WHERE id = ?1 AND run_attempt = ?2 AND host = ?3",
    )?;
    for JobKey { id, run_attempt, host } in &rerun.jobs {
        statement.execute((id, run_attempt, host.as_str(), rerun.at))?;
    }
    Ok(())
}

impl Reader {
    pub(in crate::store) async fn lost_jobs(&self, since: UnixMs) -> Result<Vec<LostJob>, Error> {
        self.compute(move |connection| {
            let mut statement = connection.prepare_cached(&numbered(&lost::query()))?;
            statement.query_map([since], lost_job)?.collect()
        })
        .await
    }
}
