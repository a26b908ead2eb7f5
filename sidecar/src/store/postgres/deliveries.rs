//! Deliveries: each is stored once and moves its job forward.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use tokio_postgres::{Error as ClientError, Row, types::Type};

use super::{
    jobs,
    reader::{Parameters, Reader},
    row::{get_key, get_number, get_state, number, state as rank, text, time},
    session::{Batch, Statements},
};
use crate::store::{
    error::Error,
    job_queries::FOUND_MAX,
    records::{Delivery, DeliveryRecord, JobDelivery, StoreOutcome},
};
use edgerunner_scheduler::model::{JobKey, UnixMs};

pub(super) const STORE: &str = "
INSERT INTO deliveries (id, received_ms, hook, hook_id, hook_target_type, hook_target_id, state,
    job_id, run_attempt, host)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::bigint[],
    $7::smallint[], $8::bigint[], $9::bigint[], $10::text[])
ON CONFLICT DO NOTHING
RETURNING id, state, job_id, run_attempt";

/// The primary key.
type Key<'a> = (i64, i64, i16, Cow<'a, str>);

fn key(Delivery { job, state, .. }: &Delivery) -> Key<'_> {
    (number(job.key.id), number(job.key.run_attempt), rank(*state), text(&job.delivery))
}

/// The deliveries of a group of writes, in statements that store any number of them.
pub(super) struct Group<'a> {
    deliveries: Vec<&'a Delivery>,
    /// For each delivery, which of those about its job it is. A statement cannot change a row
    /// twice, so each round is a statement of its own.
    rounds: Vec<usize>,
    round_count: usize,
}

impl<'a> Group<'a> {
    pub(super) fn new(deliveries: impl Iterator<Item = &'a Delivery>) -> Self {
        let deliveries: Vec<_> = deliveries.collect();
        let mut counts: HashMap<JobKey, usize> = HashMap::new();
        let mut round = |delivery: &&Delivery| {
            let count = counts.entry(delivery.job.key).or_default();
            *count += 1;
            *count - 1
        };
        let rounds: Vec<usize> = deliveries.iter().map(&mut round).collect();
        let round_count = rounds.iter().max().map_or(0, |last| last + 1);
        Self { deliveries, rounds, round_count }
    }

    /// Sends the statements. All groups lock their rows in the same order: deliveries first, then
    /// jobs, each sorted by its key, so that two sidecars with the same deliveries only wait for
    /// each other. Whether a delivery is new does not matter for its job, which has reached its
    /// state if it is not.
    pub(super) fn send(&self, batch: &mut Batch<'_>, statements: &Statements) {
        if self.deliveries.is_empty() {
            return;
        }
        let mut sorted = self.deliveries.clone();
        sorted.sort_by_key(|delivery| key(delivery));
        let texts = |of: &dyn for<'d> Fn(&'d Delivery) -> &'d str| -> Vec<String> {
            sorted.iter().map(|delivery| text(of(delivery)).into_owned()).collect()
        };
        let numbers = |of: &dyn Fn(&Delivery) -> i64| -> Vec<i64> {
            sorted.iter().map(|delivery| of(delivery)).collect()
        };
        let states: Vec<i16> = sorted.iter().map(|delivery| rank(delivery.state)).collect();
        batch.send(
            &statements.store_deliveries,
            vec![
                Box::new(texts(&|it| &it.job.delivery)),
                Box::new(numbers(&|it| time(it.received_at))),
                Box::new(texts(&|it| &it.hook)),
                Box::new(numbers(&|it| number(it.hook_id))),
                Box::new(texts(&|it| &it.hook_target_type)),
                Box::new(numbers(&|it| number(it.hook_target_id))),
                Box::new(states),
                Box::new(numbers(&|it| number(it.job.key.id))),
                Box::new(numbers(&|it| number(it.job.key.run_attempt))),
                Box::new(texts(&|it| it.job.key.host.as_str())),
            ],
        );
        for round in 0..self.round_count {
            let in_round = self.deliveries.iter().zip(&self.rounds);
            let mut in_round: Vec<&Delivery> =
                in_round.filter(|(_, its)| **its == round).map(|(delivery, _)| *delivery).collect();
            in_round.sort_by_key(|delivery| {
                let JobKey { id, run_attempt, host } = delivery.job.key;
                (number(id), run_attempt, host)
            });
            jobs::deliver(batch, statements, &in_round);
        }
    }

    /// The outcome of each delivery, in order, from the answers to `send`.
    pub(super) fn outcomes(
        &self,
        answers: &mut impl Iterator<Item = Vec<Row>>,
    ) -> Result<Vec<StoreOutcome>, ClientError> {
        if self.deliveries.is_empty() {
            return Ok(Vec::new());
        }
        let mut new: HashSet<Key<'_>> = HashSet::new();
        for row in answers.next().unwrap_or_default() {
            let id: String = row.try_get("id")?;
            let attempt = row.try_get("run_attempt")?;
            new.insert((row.try_get("job_id")?, attempt, row.try_get("state")?, id.into()));
        }
        let advanced: Vec<HashSet<JobKey>> = answers
            .take(self.round_count)
            .map(|rows| jobs::advanced(&rows))
            .collect::<Result<_, _>>()?;
        let mut outcomes = Vec::with_capacity(self.deliveries.len());
        for (delivery, round) in self.deliveries.iter().copied().zip(&self.rounds) {
            // The first of several in one group is the new one.
            let is_new = new.remove(&key(delivery));
            let has_advanced =
                advanced.get(*round).is_some_and(|keys| keys.contains(&delivery.job.key));
            outcomes.push(match (is_new, has_advanced) {
                (false, _) => StoreOutcome::Duplicate,
                (true, true) => StoreOutcome::Advanced,
                (true, false) => StoreOutcome::Stale,
            });
        }
        Ok(outcomes)
    }
}

impl Reader {
    pub(in crate::store) async fn has_delivery(
        &self,
        id: String,
        since: UnixMs,
    ) -> Result<bool, Error> {
        let query = "SELECT FROM deliveries WHERE received_ms >= $1 AND id = $2 LIMIT 1";
        let (since, id) = (time(since), text(&id));
        let found =
            self.scan(query, &[(&since, Type::INT8), (&id, Type::TEXT)], |_| Ok(())).await?;
        Ok(!found.is_empty())
    }

    pub(in crate::store) async fn recent_deliveries(
        &self,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, Error> {
        let query = "
            SELECT recent.id, recent.received_ms, recent.hook, recent.state, recent.job_id,
                recent.run_attempt, recent.host, jobs.repository, jobs.name,
                EXISTS (SELECT FROM deliveries AS other
                    WHERE other.job_id = recent.job_id
                        AND other.run_attempt = recent.run_attempt
                        AND other.host = recent.host
                        AND other.state >= recent.state
                        AND other.received_ms < recent.received_ms) AS stale
            FROM (SELECT * FROM deliveries ORDER BY received_ms DESC LIMIT $1) AS recent
            JOIN jobs ON jobs.id = recent.job_id AND jobs.run_attempt = recent.run_attempt
                AND jobs.host = recent.host
            ORDER BY recent.received_ms DESC, recent.id COLLATE \"C\"";
        self.read(query, &[(&i64::from(limit), Type::INT8)], |row| {
            Ok(DeliveryRecord {
                id: row.try_get("id")?,
                received_at: get_number(row, "received_ms")?,
                hook: row.try_get("hook")?,
                state: get_state(row, "state")?,
                key: get_key(row, "job_id")?,
                repository: row.try_get("repository")?,
                job_name: row.try_get("name")?,
                stale: row.try_get("stale")?,
            })
        })
        .await
    }

    pub(in crate::store) async fn deliveries_of(
        &self,
        key: JobKey,
    ) -> Result<Vec<JobDelivery>, Error> {
        let query = "
            SELECT id, received_ms, hook, state FROM deliveries
            WHERE job_id = $1 AND run_attempt = $2 AND host = $3
            ORDER BY received_ms, state, id COLLATE \"C\" LIMIT $4";
        let (id, attempt) = (number(key.id), number(key.run_attempt));
        let (host, limit) = (key.host.as_str(), i64::from(FOUND_MAX));
        let parameters: Parameters<'_> =
            &[(&id, Type::INT8), (&attempt, Type::INT8), (&host, Type::TEXT), (&limit, Type::INT8)];
        self.read(query, parameters, |row| {
            Ok(JobDelivery {
                id: row.try_get("id")?,
                received_at: get_number(row, "received_ms")?,
                hook: row.try_get("hook")?,
                state: get_state(row, "state")?,
            })
        })
        .await
    }
}
