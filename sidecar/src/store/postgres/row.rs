//! Values, between records and columns.

use std::borrow::Cow;

use tokio_postgres::{Error, Row};

use edgerunner_scheduler::model::{Host, JobKey, JobState, UnixMs};

/// A text without NUL characters, which Postgres cannot store and nobody can see.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => text.replace('\0', "").into(),
        false => text.into(),
    }
}

pub(super) fn optional_text(text_or_none: Option<&str>) -> Option<Cow<'_, str>> {
    text_or_none.map(text)
}

/// The signed number of the same bits.
pub(super) fn number(number: impl Into<u64>) -> i64 {
    number.into().cast_signed()
}

/// A time, which must keep its order.
pub(super) fn time(at: UnixMs) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

pub(super) fn state(state: JobState) -> i16 {
    state as i16
}

/// A number as `number` wrote it.
pub(super) fn get_number(row: &Row, column: &str) -> Result<u64, Error> {
    row.try_get(column).map(i64::cast_unsigned)
}

/// A number as `number` wrote it, or a time.
pub(super) fn get_optional(row: &Row, column: &str) -> Result<Option<u64>, Error> {
    Ok(row.try_get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
}

pub(super) fn get_attempt(row: &Row, column: &str) -> Result<u32, Error> {
    Ok(u32::try_from(row.try_get::<_, i64>(column)?).unwrap_or(u32::MAX))
}

pub(super) fn get_state(row: &Row, column: &str) -> Result<JobState, Error> {
    let rank: i16 = row.try_get(column)?;
    Ok(JobState::from_rank(rank.into()).unwrap_or(JobState::Completed))
}

pub(super) fn get_host(row: &Row) -> Result<Host, Error> {
    Ok(Host::new(row.try_get("host")?))
}

/// A job's key, whose id is in this column.
pub(super) fn get_key(row: &Row, id: &str) -> Result<JobKey, Error> {
    Ok(JobKey {
        id: get_number(row, id)?,
        run_attempt: get_attempt(row, "run_attempt")?,
        host: get_host(row)?,
    })
}
