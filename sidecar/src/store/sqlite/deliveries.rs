//! Deliveries: each is stored once and moves its job forward.

use rusqlite::{Connection, named_params};

use super::{jobs, reader::Reader};
use crate::store::{
    error::Error,
    job_queries::FOUND_MAX,
    records::{Delivery, DeliveryRecord, JobDelivery, StoreOutcome},
};
use edgerunner_scheduler::model::{JobKey, UnixMs};

pub(super) fn store(
    connection: &Connection,
    delivery: &Delivery,
) -> rusqlite::Result<StoreOutcome> {
    let Delivery { job, .. } = delivery;
    let new = connection
        .prepare_cached(
            "INSERT INTO deliveries (id, received_ms, hook, hook_id, hook_target_type,
                 hook_target_id, state, job_id, run_attempt, host)
             VALUES (:id, :received_ms, :hook, :hook_id, :hook_target_type, :hook_target_id,
                 :state, :job_id, :run_attempt, :host)
             ON CONFLICT DO NOTHING",
        )?
        .execute(named_params! {
            ":id": job.delivery,
            ":received_ms": delivery.received_at,
            ":hook": delivery.hook,
            ":hook_id": delivery.hook_id,
            ":hook_target_type": delivery.hook_target_type,
            ":hook_target_id": delivery.hook_target_id,
            ":state": delivery.state as i64,
            ":job_id": job.key.id,
            ":run_attempt": job.key.run_attempt,
            ":host": job.key.host.as_str(),
        })?;
    if new == 0 {
        return Ok(StoreOutcome::Duplicate);
    }
    let advanced = jobs::deliver(connection, delivery)?;
    Ok(if advanced { StoreOutcome::Advanced } else { StoreOutcome::Stale })
}

impl Reader {
    pub(in crate::store) async fn has_delivery(
        &self,
        id: String,
        since: UnixMs,
    ) -> Result<bool, Error> {
        self.scan(move |connection| {
            connection
                .prepare_cached("SELECT 1 FROM deliveries WHERE received_ms >= ?1 AND id = ?2")?
                .exists((since, id))
        })
        .await
    }

    pub(in crate::store) async fn recent_deliveries(
        &self,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT recent.id, recent.received_ms, recent.hook, recent.state, recent.job_id,
                     recent.run_attempt, recent.host, jobs.repository, jobs.name,
                     EXISTS (SELECT 1 FROM deliveries AS other
                         WHERE other.job_id = recent.job_id
                             AND other.run_attempt = recent.run_attempt
                             AND other.host = recent.host
                             AND other.state >= recent.state
                             AND other.received_ms < recent.received_ms) AS stale
                 FROM (SELECT * FROM deliveries ORDER BY received_ms DESC LIMIT ?1) AS recent
                 JOIN jobs ON jobs.id = recent.job_id AND jobs.run_attempt = recent.run_attempt
                     AND jobs.host = recent.host
                 ORDER BY recent.received_ms DESC, recent.id",
            )?;
            let deliveries = statement.query_map([limit], |row| {
                Ok(DeliveryRecord {
                    id: row.get("id")?,
                    received_at: row.get("received_ms")?,
                    hook: row.get("hook")?,
                    state: jobs::state(row)?,
                    key: JobKey {
                        id: row.get("job_id")?,
                        run_attempt: row.get("run_attempt")?,
                        host: jobs::host(row)?,
                    },
                    repository: row.get("repository")?,
                    job_name: row.get("name")?,
                    stale: row.get("stale")?,
                })
            })?;
            deliveries.collect()
        })
        .await
    }

    pub(in crate::store) async fn deliveries_of(
        &self,
        key: JobKey,
    ) -> Result<Vec<JobDelivery>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, received_ms, hook, state FROM deliveries
                 WHERE job_id = ?1 AND run_attempt = ?2 AND host = ?3
                 ORDER BY received_ms, state, id LIMIT ?4",
            )?;
            let parameters = (key.id, key.run_attempt, key.host.as_str(), FOUND_MAX);
            let deliveries = statement.query_map(parameters, |row| {
                Ok(JobDelivery {
                    id: row.get("id")?,
                    received_at: row.get("received_ms")?,
                    hook: row.get("hook")?,
                    state: jobs::state(row)?,
                })
            })?;
            deliveries.collect()
        })
        .await
    }
}
