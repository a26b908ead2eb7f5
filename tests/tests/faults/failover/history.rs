//! What happened to jobs, runners and the lease, in the order in which Postgres committed it and
//! in which GitHub saw it, and the rules that it has to keep.
//!
//! No checker for linearizability is used: Stateright's `LinearizabilityTester`, Porcupine and Elle
//! search for an order of operations that would explain what concurrent clients saw. Here the order
//! is known, since Postgres orders the writes of each row and triggers note them in that order.
//! What is left is one pass over each row's changes.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context as _, Result, ensure};
use edgerunner_sandbox::Sandbox;
use edgerunner_tests::{Postgres, Sidecar};
use jiff::Timestamp;
use serde_json::Value;

/// Each sidecar has a role of its own, so that its writes are known by `session_user`.
const TABLES: &str = "
CREATE SCHEMA history;

CREATE TABLE history.leases (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sidecar text NOT NULL DEFAULT session_user,
    term bigint NOT NULL,
    until timestamptz NOT NULL,
    term_before bigint NOT NULL,
    until_before timestamptz NOT NULL
);
CREATE INDEX ON history.leases (term);

CREATE TABLE history.jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sidecar text NOT NULL DEFAULT session_user,
    term bigint NOT NULL,
    job bigint NOT NULL,
    state smallint NOT NULL,
    runner text NOT NULL
);

CREATE TABLE history.runners (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sidecar text NOT NULL DEFAULT session_user,
    term bigint NOT NULL,
    -- Of the sidecar that holds the lease.
    holder text,
    runner text NOT NULL,
    is_new boolean NOT NULL,
    is_gone boolean NOT NULL
);

CREATE FUNCTION history.note_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO history.leases (term, until, term_before, until_before)
    VALUES (NEW.term, NEW.until, OLD.term, OLD.until);
    RETURN NULL;
END $$;
CREATE TRIGGER history AFTER UPDATE ON edgerunner.lease
    FOR EACH ROW EXECUTE FUNCTION history.note_lease();

CREATE FUNCTION history.note_job() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO history.jobs (term, job, state, runner)
    SELECT term, NEW.id, NEW.state, NEW.runner_name FROM edgerunner.lease;
    RETURN NULL;
END $$;
CREATE TRIGGER history_new AFTER INSERT ON edgerunner.jobs
    FOR EACH ROW EXECUTE FUNCTION history.note_job();
CREATE TRIGGER history AFTER UPDATE ON edgerunner.jobs FOR EACH ROW
    WHEN ((OLD.state, OLD.runner_name) IS DISTINCT FROM (NEW.state, NEW.runner_name))
    EXECUTE FUNCTION history.note_job();

CREATE FUNCTION history.note_runner() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO history.runners (term, holder, runner, is_new, is_gone)
    SELECT term, (SELECT sidecar FROM history.leases WHERE leases.term = lease.term LIMIT 1),
        NEW.name, TG_OP = 'INSERT', NEW.gone_ms IS NOT NULL
    FROM edgerunner.lease;
    RETURN NULL;
END $$;
CREATE TRIGGER history AFTER INSERT OR UPDATE ON edgerunner.runners
    FOR EACH ROW EXECUTE FUNCTION history.note_runner();
";

/// Who holds the lease now: the role, and the term.
const HOLDER: &str = "
SELECT sidecar, term FROM history.leases
WHERE id = (SELECT max(id) FROM history.leases) AND until > clock_timestamp()";

/// What breaks a rule.
const RULES: [(&str, &str); 7] = [
    (
        "a term begins after the one before has ended, and has the next number",
        "SELECT * FROM history.leases
        WHERE term <> term_before AND (term <> term_before + 1 OR at < until_before)",
    ),
    (
        "a sidecar renews only what it holds",
        "SELECT renewed.* FROM history.leases AS renewed
        JOIN history.leases AS taken ON taken.term = renewed.term AND taken.term_before < taken.term
        WHERE renewed.sidecar <> taken.sidecar",
    ),
    (
        "only the sidecar that holds the lease writes about runners",
        "SELECT * FROM history.runners WHERE sidecar IS DISTINCT FROM holder",
    ),
    (
        "the name of a runner has the term in which it was launched",
        r"SELECT * FROM history.runners WHERE is_new AND term <>
        ('x' || lpad(substring(runner from '-([0-9a-f]+)[0-9a-f]{8}$'), 16, '0'))::bit(64)::bigint",
    ),
    (
        "a runner that is gone stays gone",
        "SELECT * FROM (
            SELECT *, lag(is_gone) OVER (PARTITION BY runner ORDER BY id) AS was_gone
            FROM history.runners
        ) AS changes WHERE was_gone AND NOT is_gone",
    ),
    (
        "the state of a job moves forward",
        "SELECT * FROM (
            SELECT *, lag(state) OVER (PARTITION BY job ORDER BY id) AS state_before
            FROM history.jobs
        ) AS changes WHERE state < state_before",
    ),
    (
        "a job has one runner",
        "SELECT job, array_agg(DISTINCT runner) FROM history.jobs
        WHERE runner <> '' GROUP BY job HAVING count(DISTINCT runner) > 1",
    ),
];

/// Jobs and runners that have not ended.
const OPEN: &str = "
SELECT 'job ' || id FROM edgerunner.jobs WHERE state < 2
UNION ALL SELECT 'runner ' || name || ', last written by ' || (
    SELECT format('%s in term %s at %s', sidecar, term, at) FROM history.runners
    WHERE runner = name ORDER BY id DESC LIMIT 1
) FROM edgerunner.runners WHERE gone_ms IS NULL";

pub(crate) struct History<'a> {
    pub(crate) postgres: &'a Postgres,
    pub(crate) database: &'a str,
}

/// The one that plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) role: String,
    pub(crate) term: u64,
}

/// Times are in milliseconds by this machine's clock, which Postgres has too.
type UnixMs = i64;

impl History<'_> {
    /// The schema exists, and nothing was launched.
    pub(crate) fn begin(&self) -> Result<()> {
        self.sql(TABLES).map(drop)
    }

    fn sql(&self, sql: &str) -> Result<String> {
        self.postgres.sql(self.database, sql)
    }

    /// `None` while nobody holds the lease.
    pub(crate) fn holder(&self) -> Result<Option<Holder>> {
        let found = self.sql(HOLDER)?;
        let Some((role, term)) = found.split_once('|') else { return Ok(None) };
        Ok(Some(Holder { role: role.to_owned(), term: term.parse()? }))
    }

    /// The first launch after this time, `None` without one.
    pub(crate) fn launched_after(&self, time: UnixMs) -> Result<Option<UnixMs>> {
        let query = format!(
            "SELECT (extract(epoch FROM min(at)) * 1000)::bigint FROM history.runners
            WHERE is_new AND at > to_timestamp({time} / 1000.0)"
        );
        let found = self.sql(&query)?;
        Ok(if found.is_empty() { None } else { Some(found.parse()?) })
    }

    /// The jobs and runners that have not ended, a line each.
    pub(crate) fn open(&self) -> Result<String> {
        self.sql(OPEN)
    }

    /// When each term began.
    fn begun(&self) -> Result<BTreeMap<u64, UnixMs>> {
        let query = "SELECT term, (extract(epoch FROM at) * 1000)::bigint FROM history.leases
            WHERE term <> term_before";
        let found = self.sql(query)?;
        let row = |line: &str| {
            let (term, at) = line.split_once('|').context("no column")?;
            Ok((term.parse()?, at.parse()?))
        };
        found.lines().map(row).collect()
    }

    /// All rules, once everything has ended. Returns the number of terms.
    pub(crate) fn check<'a>(
        &self,
        sandbox: &Sandbox,
        sidecars: impl Iterator<Item = &'a Sidecar>,
        stops: &[Stop],
    ) -> Result<usize> {
        for (rule, query) in RULES {
            let found = self.sql(query)?;
            let rows = found.lines().count();
            let first: Vec<&str> = found.lines().take(5).collect();
            ensure!(rows == 0, "{rule}: {rows} rows break this: {first:#?}");
        }
        let begun = self.begun()?;
        self.check_github(sandbox, &begun)?;
        for (position, sidecar) in sidecars.enumerate() {
            check_ends(&sidecar.log()?, position, &begun, stops)?;
        }
        Ok(begun.len())
    }

    /// What GitHub saw: each job is queued, started and completed once, all by one runner, which
    /// was registered once, by the one that planned at that time.
    fn check_github(&self, sandbox: &Sandbox, begun: &BTreeMap<u64, UnixMs>) -> Result<()> {
        let found = self.sql("SELECT id, runner_name FROM edgerunner.jobs")?;
        let stored: HashMap<&str, &str> =
            found.lines().filter_map(|line| line.split_once('|')).collect();
        let mut events: HashMap<(u64, String), HashSet<(String, String)>> = HashMap::new();
        for delivery in sandbox.deliveries() {
            let payload: Value = serde_json::from_slice(delivery.payload())?;
            let runner = payload["workflow_job"]["runner_name"].as_str().unwrap_or_default();
            let (Some(job), Some(action)) = (delivery.job_id, delivery.action) else { continue };
            events.entry((job, action)).or_default().insert((delivery.guid, runner.to_owned()));
        }
        for ((job, action), events) in &events {
            ensure!(events.len() == 1, "job {job} was {action} more than once: {events:?}");
        }
        for job in sandbox.jobs() {
            let runner = job.runner.map(|it| it.runner_name).unwrap_or_default();
            for action in ["in_progress", "completed"] {
                let seen = events.get(&(job.id, action.to_owned())).into_iter().flatten();
                let seen: Vec<_> = seen.map(|(_, runner)| runner.clone()).collect();
                ensure!(
                    seen == [runner.clone()],
                    "job {} on {runner}: {action} on {seen:?}",
                    job.id
                );
            }
            let stored = stored.get(&*job.id.to_string()).copied();
            ensure!(stored == Some(&*runner), "job {} on {runner}: stored on {stored:?}", job.id);
        }
        let mut registered = HashSet::new();
        for call in sandbox.calls() {
            if !call.path.ends_with("/generate-jitconfig") {
                continue;
            }
            let body: Value = serde_json::from_str(&call.body)?;
            let name = body["name"].as_str().context("no name")?.to_owned();
            let term = term_of(&name)?;
            let next = begun.get(&(term + 1)).copied().unwrap_or(UnixMs::MAX);
            let at = call.at.as_millisecond();
            ensure!(at <= next, "{name} was registered {} ms after its term's end", at - next);
            ensure!(call.status != Some(201) || registered.insert(name), "{} twice", call.body);
        }
        Ok(())
    }
}

/// A sidecar that was stopped: it cannot log its end in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) sidecar: usize,
    pub(crate) from: UnixMs,
    pub(crate) to: UnixMs,
}

/// A sidecar logs that it plans no more before another one begins.
fn check_ends(
    log: &str,
    position: usize,
    begun: &BTreeMap<u64, UnixMs>,
    stops: &[Stop],
) -> Result<()> {
    for line in log.lines().filter(|line| line.contains("this sidecar plans no more")) {
        let line: Value = serde_json::from_str(line)?;
        let term = line["term"].as_u64().context("no term")?;
        let at: Timestamp = line["timestamp"].as_str().context("no timestamp")?.parse()?;
        let Some(&next) = begun.get(&(term + 1)) else { continue };
        let was_stopped =
            stops.iter().any(|it| it.sidecar == position && (it.from..=it.to).contains(&next));
        let late = at.as_millisecond() - next;
        ensure!(
            late <= 0 || was_stopped,
            "sidecar {position} planned in term {term} for {late} ms after the next had begun"
        );
    }
    Ok(())
}

/// The term in the name of a runner: hexadecimal, before the last eight digits.
fn term_of(runner: &str) -> Result<u64> {
    let (_, number) = runner.rsplit_once('-').context("a name without a hyphen")?;
    let digits = number.len().checked_sub(8).and_then(|length| number.get(..length));
    let digits = digits.with_context(|| format!("{runner} has no term"))?;
    u64::from_str_radix(digits, 16).with_context(|| format!("{runner} has no term"))
}
