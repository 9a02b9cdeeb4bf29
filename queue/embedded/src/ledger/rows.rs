//! Reads rows of the table `jobs`, with their inputs and outputs.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::store::{corrupt, read_body, read_origin, sqlite};
use queue::driver::input_digest;
use queue::ledger::{JobRecord, JobState};
use queue::{Body, Class, Input, Job, JobError, JobId, Output, Result, WorkerId};

/// The code of a state in the file: its index in [`JobState::ALL`].
pub(super) fn code(state: JobState) -> i64 {
    state as i64
}

pub(super) fn state(code: i64) -> Result<JobState> {
    let state = usize::try_from(code).ok().and_then(|code| JobState::ALL.get(code));
    state.copied().ok_or_else(|| corrupt("a state", code))
}

fn class(code: i64) -> Result<Class> {
    let class = usize::try_from(code).ok().and_then(|code| Class::ALL.get(code));
    class.copied().ok_or_else(|| corrupt("a class", code))
}

pub(super) fn time(milliseconds: i64) -> Result<Timestamp> {
    Timestamp::from_millisecond(milliseconds).map_err(|_| corrupt("a time", milliseconds))
}

fn id(text: &str) -> Result<JobId> {
    text.parse().map_err(|_| corrupt("a job id", text))
}

/// The record of a job with its output, without its history.
pub(super) fn record(file: &Connection, id: &JobId) -> Result<Option<JobRecord>> {
    let reading = sqlite("read a job");
    let mut select = file
        .prepare_cached(
            "SELECT jobs.id, pool, class, state, attempts, max_attempts, created_at, deadline_at, started_at, \
             finished_at, worker, error_type, error_message, media_type, body, blob \
             FROM jobs LEFT JOIN outputs USING (job) WHERE jobs.id = ?1",
        )
        .map_err(&reading)?;
    let mut rows = select.query([id.as_str()]).map_err(&reading)?;
    rows.next().map_err(&reading)?.map(record_of).transpose()
}

pub(super) fn record_of(row: &Row<'_>) -> Result<JobRecord> {
    let reading = sqlite("read a job");
    let moment = |column: usize| row.get::<_, Option<i64>>(column).map_err(&reading)?.map(time).transpose();
    let error = match (row.get(11).map_err(&reading)?, row.get(12).map_err(&reading)?) {
        (Some(kind), Some(message)) => Some(JobError { kind, message }),
        _ => None,
    };
    let output = match row.get::<_, Option<String>>(13).map_err(&reading)? {
        Some(media_type) => Some(Output { media_type, body: read_body(row, 14)? }),
        None => None,
    };
    let pool: String = row.get(1).map_err(&reading)?;
    Ok(JobRecord {
        id: id(&row.get::<_, String>(0).map_err(&reading)?)?,
        pool: pool.parse().map_err(|_| corrupt("a pool", &pool))?,
        class: class(row.get(2).map_err(&reading)?)?,
        state: state(row.get(3).map_err(&reading)?)?,
        attempts: row.get(4).map_err(&reading)?,
        max_attempts: row.get(5).map_err(&reading)?,
        created_at: time(row.get(6).map_err(&reading)?)?,
        deadline_at: moment(7)?,
        started_at: moment(8)?,
        finished_at: moment(9)?,
        worker: row.get::<_, Option<String>>(10).map_err(&reading)?.map(WorkerId::new),
        error,
        output,
        history: Vec::new(),
    })
}

/// The job of a row, with its input, as it was submitted.
pub(super) fn job(file: &Connection, row_id: i64) -> Result<Job> {
    let reading = sqlite("read a job");
    let mut select = file
        .prepare_cached(
            "SELECT id, pool, class, created_at, deadline_at, max_attempts, retention, trace_parent, media_type, body, \
             blob, origin FROM jobs JOIN inputs USING (job) WHERE job = ?1",
        )
        .map_err(&reading)?;
    let mut rows = select.query([row_id]).map_err(&reading)?;
    let Some(row) = rows.next().map_err(&reading)? else {
        return Err(corrupt("a job without an input", row_id));
    };
    let pool: String = row.get(1).map_err(&reading)?;
    Ok(Job {
        id: id(&row.get::<_, String>(0).map_err(&reading)?)?,
        pool: pool.parse().map_err(|_| corrupt("a pool", &pool))?,
        class: class(row.get(2).map_err(&reading)?)?,
        created_at: time(row.get(3).map_err(&reading)?)?,
        deadline_at: row.get::<_, Option<i64>>(4).map_err(&reading)?.map(time).transpose()?,
        max_attempts: row.get(5).map_err(&reading)?,
        retention: Duration::from_millis(row.get(6).map_err(&reading)?),
        trace_parent: row.get(7).map_err(&reading)?,
        input: Input { media_type: row.get(8).map_err(&reading)?, body: read_body(row, 9)? },
        origin: read_origin(row, 11)?,
    })
}

/// The input of a job. A job that succeeded has none, even if the reference to its blob is still there.
pub(super) fn input(file: &Connection, id: &JobId) -> Result<Option<Input>> {
    let reading = sqlite("read an input");
    let mut select = file.prepare_cached("SELECT job FROM jobs WHERE id = ?1 AND state <> ?2").map_err(&reading)?;
    let found = select.query_row(params![id.as_str(), code(JobState::Succeeded)], |row| row.get(0)).optional();
    found.map_err(&reading)?.map_or(Ok(None), |row_id| input_of_row(file, row_id))
}

/// The input of a row, if it is still there.
pub(super) fn input_of_row(file: &Connection, row_id: i64) -> Result<Option<Input>> {
    let reading = sqlite("read an input");
    let mut select =
        file.prepare_cached("SELECT media_type, body, blob FROM inputs WHERE job = ?1").map_err(&reading)?;
    let mut rows = select.query([row_id]).map_err(&reading)?;
    let Some(row) = rows.next().map_err(&reading)? else { return Ok(None) };
    Ok(Some(Input { media_type: row.get(0).map_err(&reading)?, body: read_body(row, 1)? }))
}

/// Whether the input of a row equals `input`. References are compared by the digest of their blobs, because each
/// submission has its own blob. An input that was deleted is compared by its own digest.
pub(super) fn has_input(file: &Connection, row_id: i64, input: &Input) -> Result<bool> {
    let Some(stored) = input_of_row(file, row_id)? else {
        let reading = sqlite("read the digest of an input");
        let mut select = file.prepare_cached("SELECT digest FROM jobs WHERE job = ?1").map_err(&reading)?;
        let digest: Option<Vec<u8>> = select.query_row([row_id], |row| row.get(0)).map_err(&reading)?;
        return Ok(digest.is_some_and(|digest| digest == input_digest(input)));
    };
    let same_bytes = match (&stored.body, &input.body) {
        (Body::Inline(ours), Body::Inline(theirs)) => ours == theirs,
        (Body::Reference(ours), Body::Reference(theirs)) => ours.identity() == theirs.identity(),
        _ => false,
    };
    Ok(same_bytes && stored.media_type == input.media_type)
}
