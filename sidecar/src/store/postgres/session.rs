//! The writer's session: its prepared statements, and how a group of writes becomes a transaction
//! in as few round trips as possible.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, MaybeDone, maybe_done},
};
use tokio::time::timeout;
use tokio_postgres::{
    Client, Error, Row, Statement,
    error::{Severity, SqlState},
    types::ToSql,
};

use super::{
    audit,
    connect::{describe, is_passing},
    deliveries, draining, images, jobs, lost, prune, runners, webhooks,
};
use crate::store::{
    queue::{Outcomes, Queued, Write},
    records::{Delivery, StoreOutcome, Term},
};

/// For one group: GitHub waits for its answer, and the next group for this one. The filter, which
/// waits for 5 s, needs some of them to try another sidecar.
const LIMIT: Duration = Duration::from_secs(3);
/// The row of this term cannot change before the end of the transaction.
const FENCE: &str = "SELECT 1 FROM lease WHERE term = $1 FOR SHARE";

pub(super) struct Session {
    client: Client,
    statements: Statements,
}

/// The statements of a session, by name.
macro_rules! statements {
    ($($name:ident: $query:expr),+ $(,)?) => {
        pub(super) struct Statements {
            $(pub(super) $name: Statement,)+
        }

        impl Statements {
            async fn prepare(client: &Client) -> Result<Self, Error> {
                let ($($name,)+) = tokio::try_join!($(client.prepare($query)),+)?;
                Ok(Self { $($name),+ })
            }
        }
    };
}

statements! {
    fence: FENCE,
    store_deliveries: deliveries::STORE,
    deliver_jobs: jobs::DELIVER,
    advance_job: jobs::ADVANCE,
    save_waiting: jobs::SAVE_WAITING,
    save_origins: jobs::SAVE_ORIGINS,
    save_rerun: lost::SAVE,
    save_runner: runners::SAVE,
    save_runner_log: runners::SAVE_LOG,
    save_draining: draining::SAVE,
    delete_draining: draining::DELETE,
    delete_all_draining: draining::DELETE_ALL,
    save_image: images::SAVE,
    forget_image: images::FORGET,
    save_webhook: webhooks::SAVE,
    save_audit: audit::SAVE,
    prune_deliveries: prune::DELIVERIES,
    prune_jobs: prune::JOBS,
    prune_runners: prune::RUNNERS,
    prune_webhooks: prune::WEBHOOKS,
    prune_audit: prune::AUDIT,
    prune_audit_surplus: prune::AUDIT_SURPLUS,
}

/// A group of writes after its transaction.
pub(super) struct Stored {
    /// Those whose term has ended: they were not carried out.
    pub(super) fenced: Vec<Queued>,
    /// The others.
    pub(super) group: Vec<Queued>,
    pub(super) committed: Result<Outcomes, Failure>,
}

/// Why a group was not committed, as far as is known.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    /// The session cannot be used any more.
    pub(super) is_lost: bool,
    /// The server has not answered in time.
    pub(super) is_late: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let severity = error.as_db_error().and_then(|said| said.parsed_severity());
        let is_lost = is_passing(&error)
            || matches!(severity, Some(Severity::Fatal | Severity::Panic))
            // The server is no longer the primary.
            || error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION);
        Self { message: describe(&error), is_lost, is_late: false }
    }
}

impl Failure {
    fn late() -> Self {
        let message = format!("the server did not answer within {LIMIT:?}");
        Self { message, is_lost: true, is_late: true }
    }
}

impl Outcomes {
    /// Whether a job was announced or has moved forward.
    pub(super) fn has_news(&self) -> bool {
        self.deliveries.contains(&StoreOutcome::Advanced)
    }
}

impl Session {
    pub(super) async fn new(client: Client) -> Result<Self, Error> {
        let statements = Box::pin(Statements::prepare(&client)).await?;
        Ok(Self { client, statements })
    }

    /// Carries out a group of writes in one transaction, within 3 seconds.
    pub(super) async fn store(&self, mut group: Vec<Queued>) -> Stored {
        let mut fenced = Vec::new();
        let committed = timeout(LIMIT, async {
            match self.try_to_store(&mut group, &mut fenced).await {
                // It was rolled back for the sake of another sidecar's.
                Err(error) if is_conflict(&error) => {
                    self.client.batch_execute("ROLLBACK").await?;
                    self.try_to_store(&mut group, &mut fenced).await
                }
                stored => stored,
            }
        })
        .await;
        let committed = match committed {
            Ok(Ok(outcomes)) => Ok(outcomes),
            Ok(Err(error)) => Err(self.roll_back(error.into()).await),
            Err(_) => Err(Failure::late()),
        };
        Stored { fenced, group, committed }
    }

    /// Moves the writes whose term has ended from the group to `fenced`.
    async fn try_to_store(
        &self,
        group: &mut Vec<Queued>,
        fenced: &mut Vec<Queued>,
    ) -> Result<Outcomes, Error> {
        let mut batch = Batch::new(&self.client);
        batch.command("BEGIN");
        let ended = self.ended_terms(group, &mut batch).await?;
        if !ended.is_empty() {
            let has_ended = |queued: &mut Queued| queued.term.is_some_and(|it| ended.contains(&it));
            fenced.extend(group.extract_if(.., has_ended));
        }
        let deliveries = deliveries::Group::new(group.iter().flat_map(deliveries_of));
        deliveries.send(&mut batch, &self.statements);
        for Queued { write, .. } in &*group {
            self.send(&mut batch, write);
        }
        batch.command("COMMIT");
        let mut answers = batch.answers().await?.into_iter();
        let mut outcomes = Outcomes::default();
        outcomes.deliveries = deliveries.outcomes(&mut answers)?;
        for Queued { write, .. } in &*group {
            match write {
                Write::Deliveries(..) => {}
                Write::Prune(..) => {
                    let deleted = answers.by_ref().take(prune::ANSWERS);
                    outcomes.more_to_prune |= deleted.filter(|rows| !rows.is_empty()).count() > 0;
                }
                _ => drop(answers.next()),
            }
        }
        Ok(outcomes)
    }

    /// The terms of this group's writes that have ended. The others cannot end before the
    /// transaction does.
    async fn ended_terms(
        &self,
        group: &[Queued],
        batch: &mut Batch<'_>,
    ) -> Result<Vec<Term>, Error> {
        let mut terms: Vec<Term> = Vec::new();
        for term in group.iter().filter_map(|queued| queued.term) {
            if !terms.contains(&term) {
                terms.push(term);
            }
        }
        if terms.is_empty() {
            return Ok(terms);
        }
        for term in &terms {
            batch.send(&self.statements.fence, vec![Box::new(term.0)]);
        }
        let found = batch.answers().await?;
        let ended = terms.into_iter().zip(found).filter(|(_, rows)| rows.is_empty());
        Ok(ended.map(|(term, _)| term).collect())
    }

    fn send<'a>(&'a self, batch: &mut Batch<'a>, write: &'a Write) {
        let statements = &self.statements;
        match write {
            Write::Deliveries(..) => {}
            Write::Job(update, _) => jobs::advance(batch, statements, update),
            Write::Waiting(reasons, _) => jobs::save_waiting(batch, statements, reasons),
            Write::Origins(origins, _) => jobs::save_origins(batch, statements, origins),
            Write::Rerun(rerun, _) => lost::save(batch, statements, rerun),
            Write::Runner(runner, _) => runners::save(batch, statements, runner),
            Write::RunnerLog { runner, log, .. } => {
                runners::save_log(batch, statements, runner, log);
            }
            Write::Draining { pool, draining, .. } => {
                draining::save(batch, statements, pool.as_deref(), *draining);
            }
            Write::Image(image, _) => images::save(batch, statements, image),
            Write::ImageGone { engine, id, .. } => images::forget(batch, statements, engine, id),
            Write::Webhook(webhook, _) => webhooks::save(batch, statements, webhook),
            Write::Audit(change, _) => audit::save(batch, statements, change),
            Write::Prune(now, _) => prune::send(batch, statements, *now),
        }
    }

    /// Ends a transaction that failed, so that the next one can begin.
    async fn roll_back(&self, failure: Failure) -> Failure {
        if failure.is_lost {
            return failure;
        }
        let rolled_back = timeout(LIMIT / 4, self.client.batch_execute("ROLLBACK")).await;
        let is_lost = !matches!(rolled_back, Ok(Ok(())));
        Failure { is_lost, ..failure }
    }

    /// Wakes whoever waits for deliveries, without waiting for the server. Not in the transaction:
    /// commits with notifications take turns, and would share no flush to disk.
    pub(super) fn notify(&self) {
        Batch::new(&self.client).command("NOTIFY edgerunner, 'deliveries'");
    }
}

fn deliveries_of(queued: &Queued) -> &[Delivery] {
    match &queued.write {
        Write::Deliveries(deliveries, _) => deliveries,
        _ => &[],
    }
}

fn is_conflict(error: &Error) -> bool {
    let conflicts = [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE];
    error.code().is_some_and(|code| conflicts.contains(code))
}

/// Values of a statement's parameters.
pub(super) type Values<'a> = Vec<Box<dyn ToSql + Sync + Send + 'a>>;

/// Nothing for a command.
type Answer = Result<Option<Vec<Row>>, Error>;

/// Statements that are sent without waiting for the answers to those before.
pub(super) struct Batch<'a> {
    client: &'a Client,
    sent: Vec<MaybeDone<BoxFuture<'a, Answer>>>,
}

impl<'a> Batch<'a> {
    fn new(client: &'a Client) -> Self {
        Self { client, sent: Vec::new() }
    }

    pub(super) fn send(&mut self, statement: &Statement, values: Values<'a>) {
        let (client, statement) = (self.client, statement.clone());
        self.push(async move {
            let values: Vec<&(dyn ToSql + Sync)> =
                values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
            client.query(&statement, &values).await.map(Some)
        });
    }

    fn command(&mut self, command: &'static str) {
        let client = self.client;
        self.push(async move { client.batch_execute(command).await.map(|()| None) });
    }

    /// A query is sent when it is polled first.
    fn push(&mut self, query: impl Future<Output = Answer> + Send + 'a) {
        let mut answer = maybe_done(query.boxed());
        let _ = Pin::new(&mut answer).poll(&mut Context::from_waker(Waker::noop()));
        self.sent.push(answer);
    }

    /// The rows of each statement sent since the last call, or the first error.
    async fn answers(&mut self) -> Result<Vec<Vec<Row>>, Error> {
        let mut answers = Vec::with_capacity(self.sent.len());
        for mut answer in self.sent.drain(..) {
            (&mut answer).await;
            answers.extend(Pin::new(&mut answer).take_output().transpose()?.flatten());
        }
        Ok(answers)
    }
}
