//! Opens records.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::params;

use super::{arrivals, rows};
use crate::store::{Write, sqlite};
use queue::driver::milliseconds_of;
use queue::driver::{BodyColumns, origin_column};
use queue::ledger::{JobState, Publication, Submitted};
use queue::{Job, Result};

/// The time after a submission, or after a job was taken as due, in which its publication must be confirmed. Otherwise the
/// job is due (again).
pub(super) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// Opens the records of jobs, or finds the existing ones.
pub(super) fn submit_all(write: &mut Write<'_>, jobs: &[Job]) -> Result<Vec<Submitted>> {
    let submitted = jobs.iter().map(|job| submit(write, job)).collect::<Result<Vec<_>>>()?;
    let new = jobs.iter().zip(&submitted).filter(|(_, submitted)| matches!(submitted, Submitted::New));
    arrivals::record(write, new.map(|(job, _)| job.pool.as_str()))?;
    Ok(submitted)
}

fn submit(write: &mut Write<'_>, job: &Job) -> Result<Submitted> {
    let due_at = write.milliseconds_after(PUBLISH_TIMEOUT);
    if open(write, job, Some(due_at))? {
        return Ok(Submitted::New);
    }
    let mut select = write
        .prepare("SELECT job, pool, due_at IS NOT NULL AND confirmed IS NOT fence, fence FROM jobs WHERE id = ?1")?;
    let (row_id, pool, is_unconfirmed, fence): (i64, String, bool, u64) = select
        .query_row([job.id.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .map_err(sqlite("read a job"))?;
    if pool != job.pool.as_str() || !rows::has_input(write.connection(), row_id, &job.input)? {
        return Ok(Submitted::Conflict);
    }
    let Some(record) = rows::record(write.connection(), &job.id)? else { return Ok(Submitted::Conflict) };
    let unpublished = record.state == JobState::Queued && is_unconfirmed;
    let publish = unpublished.then(|| Publication { id: job.id.clone(), fence });
    Ok(Submitted::Existing { record: Box::new(record), publish })
}

/// Opens a record in state `queued`. `false`: the id has a record already.
pub(super) fn open(write: &mut Write<'_>, job: &Job, due_at: Option<i64>) -> Result<bool> {
    let opening = sqlite("open a record");
    let mut insert = write.prepare(
        "INSERT INTO jobs (id, pool, class, state, max_attempts, created_at, deadline_at, due_at, retention, \
         trace_parent, origin) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (id) DO NOTHING",
    )?;
    let row = params![
        job.id.as_str(),
        job.pool.as_str(),
        job.class as i64,
        rows::code(JobState::Queued),
        job.max_attempts,
        job.created_at.as_millisecond(),
        job.deadline_at.map(Timestamp::as_millisecond),
        due_at,
        milliseconds_of(job.retention),
        job.trace_parent,
        origin_column(job.origin.as_ref()),
    ];
    if insert.execute(row).map_err(&opening)? == 0 {
        return Ok(false);
    }
    let BodyColumns { body, blob } = BodyColumns::of(&job.input.body);
    let mut input = write.prepare("INSERT INTO inputs (job, media_type, body, blob) VALUES (?1, ?2, ?3, ?4)")?;
    input.execute(params![write.last_insert_rowid(), job.input.media_type, body, blob]).map_err(&opening)?;
    Ok(true)
}
