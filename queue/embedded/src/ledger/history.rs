//! The failed attempts at jobs.

use rusqlite::{Connection, params};

use super::rows;
use crate::store::{Write, sqlite};
use queue::ledger::{Attempt, JobRecord};
use queue::{JobError, JobErrorKind, Result, WorkerId};

/// The error of an attempt whose worker disappeared.
pub(super) fn worker_disappeared() -> JobError {
    JobErrorKind::WorkerVanished.error("the worker disappeared while the job ran")
}

/// Records that the current attempt of this row has failed. Must come before the row itself is changed.
pub(super) fn record_failed_attempt(write: &mut Write<'_>, row_id: i64, error: &JobError) -> Result<()> {
    let recording = sqlite("record an attempt");
    let mut insert = write.prepare(
        "INSERT INTO attempts (job, sequence, number, worker, started_at, ended_at, error_type, error_message) \
         SELECT job, 1 + coalesce((SELECT max(sequence) FROM attempts WHERE job = ?1), 0), attempts, worker, \
         started_at, ?2, ?3, ?4 FROM jobs WHERE job = ?1",
    )?;
    insert.execute(params![row_id, write.now_milliseconds(), error.kind, error.message]).map_err(&recording)?;
    let mut trim = write.prepare(
        "DELETE FROM attempts WHERE job = ?1 AND sequence <= (SELECT max(sequence) FROM attempts WHERE job = ?1) - ?2",
    )?;
    trim.execute(params![row_id, JobRecord::HISTORY_LIMIT]).map_err(&recording)?;
    Ok(())
}

/// The failed attempts at a job, the oldest first.
pub(super) fn history(file: &Connection, id: &str) -> Result<Vec<Attempt>> {
    let reading = sqlite("read the attempts at a job");
    let mut select = file
        .prepare_cached(
            "SELECT number, attempts.worker, attempts.started_at, ended_at, attempts.error_type, \
             attempts.error_message FROM attempts JOIN jobs USING (job) WHERE jobs.id = ?1 ORDER BY sequence",
        )
        .map_err(&reading)?;
    let mut rows = select.query([id]).map_err(&reading)?;
    let mut history = Vec::new();
    while let Some(row) = rows.next().map_err(&reading)? {
        history.push(Attempt {
            number: row.get(0).map_err(&reading)?,
            worker: WorkerId::new(row.get::<_, String>(1).map_err(&reading)?),
            started_at: rows::time(row.get(2).map_err(&reading)?)?,
            ended_at: rows::time(row.get(3).map_err(&reading)?)?,
            error: JobError { kind: row.get(4).map_err(&reading)?, message: row.get(5).map_err(&reading)? },
        });
    }
    Ok(history)
}
