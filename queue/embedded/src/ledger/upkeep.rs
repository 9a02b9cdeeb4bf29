//! Takes due jobs, and deletes jobs whose retention is over.

use rusqlite::Connection;
use rusqlite::params;

use super::{arrivals, finish, grace, history, rows, submit};
use crate::store::{Change, Write, read_blob, sqlite};
use queue::ledger::{DueJob, JobState, Publication};
use queue::{BlobRef, Error, JobErrorKind, JobId, Result};

/// The number of rows that stay in the table `endings`. A process that is further behind reads the records of its watched
/// jobs instead.
const MAX_ENDINGS: i64 = 100_000;

/// The most bytes of the inputs that one call takes, except that a single job may have more. They are in memory at once, and no
/// other write of the process runs meanwhile.
const MAX_TAKEN_BYTES: u64 = 8 << 20;

/// Whether a job is due, or the look itself must be recorded.
pub(super) fn is_due(file: &Connection, now: i64) -> Result<bool> {
    let finding = sqlite("find due jobs");
    let mut select = file.prepare_cached("SELECT 1 FROM jobs WHERE due_at <= ?1 LIMIT 1").map_err(&finding)?;
    Ok(select.exists([now]).map_err(&finding)? || grace::is_look_overdue(file, now)?)
}

/// Takes due jobs, of which the inputs have no more than [`MAX_TAKEN_BYTES`]. Each becomes `queued`, and is due again unless
/// its publication is confirmed in time. A queued job past its deadline ends instead.
pub(super) fn take_due(write: &mut Write<'_>, limit: usize) -> Result<Vec<DueJob>> {
    let taking = sqlite("take due jobs");
    let now = write.now_milliseconds();
    grace::postpone(write)?;
    grace::record_look(write, now)?;
    let mut select = write.prepare(
        "SELECT job, state, fence, begun, deadline_at, \
         coalesce((SELECT length(body) FROM inputs WHERE inputs.job = jobs.job), 0) \
         FROM jobs WHERE due_at <= ?1 ORDER BY due_at LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = select
        .query_map([now, limit], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        })
        .map_err(&taking)?;
    let found: Vec<(i64, i64, u64, bool, Option<i64>, u64)> =
        found.collect::<rusqlite::Result<_>>().map_err(&taking)?;
    // An attempt at a suspect that had not begun does not count.
    let mut update = write.prepare(
        "UPDATE jobs SET state = ?1, fence = ?2, lost = lost + ?3, attempts = attempts - (?3 AND NOT begun), \
         due_at = ?4 WHERE job = ?5",
    )?;
    let due_at = write.milliseconds_after(submit::PUBLISH_TIMEOUT);
    let (mut due, mut taken_bytes) = (Vec::with_capacity(found.len()), 0);
    for (row_id, code, fence, begun, deadline_at, bytes) in found {
        taken_bytes += bytes;
        if !due.is_empty() && taken_bytes > MAX_TAKEN_BYTES {
            break;
        }
        let (fence, state) = (fence + 1, rows::state(code)?);
        let job = match rows::job(write.connection(), row_id) {
            Err(error) if error.kind().is_about_a_value() => {
                end_unreadable(write, row_id, &error)?;
                continue;
            }
            job => job?,
        };
        if state == JobState::Queued && deadline_at.is_some_and(|deadline| deadline < now) {
            let error = JobErrorKind::Expired.error("the deadline passed before the job was started");
            finish::end(write, row_id, &job.id, JobState::Expired, Some(&error))?;
            continue;
        }
        let was_leased = state == JobState::Leased;
        if was_leased && begun {
            history::record_failed_attempt(write, row_id, &history::worker_disappeared())?;
        }
        update.execute(params![rows::code(JobState::Queued), fence, was_leased, due_at, row_id]).map_err(&taking)?;
        let publication = Publication { id: job.id.clone(), fence };
        due.push(DueJob { job, publication });
    }
    arrivals::record(write, due.iter().map(|due| due.job.pool.as_str()))?;
    Ok(due)
}

/// Ends a job that cannot be read, because it would block others that are due, or be requeued for ever. If even its id
/// cannot be read, it is never due again.
pub(super) fn end_unreadable(write: &mut Write<'_>, row_id: i64, error: &Error) -> Result<()> {
    tracing::error!(row_id, %error, "cannot read a job; it ends as failed");
    let ending = sqlite("end an unreadable job");
    let mut select = write.prepare("SELECT CAST(id AS TEXT) FROM jobs WHERE job = ?1")?;
    let id = select.query_row([row_id], |row| row.get::<_, String>(0)).ok().and_then(|id| id.parse::<JobId>().ok());
    let Some(id) = id else {
        let mut update = write.prepare("UPDATE jobs SET due_at = NULL WHERE job = ?1")?;
        return update.execute([row_id]).map(drop).map_err(&ending);
    };
    let error = JobErrorKind::InputUnreadable.error(format!("the ledger cannot read the job: {error}"));
    finish::end(write, row_id, &id, JobState::Failed, Some(&error)).map(drop)
}

pub(super) fn is_over(file: &Connection, now: i64) -> Result<bool> {
    let finding = sqlite("find jobs to purge");
    let mut select = file.prepare_cached("SELECT 1 FROM jobs WHERE purge_at <= ?1 LIMIT 1").map_err(&finding)?;
    select.exists([now]).map_err(&finding)
}

/// Deletes jobs whose retention is over. Returns their blob references.
pub(super) fn purge(write: &mut Write<'_>, limit: usize) -> Result<Vec<BlobRef>> {
    let purging = sqlite("purge");
    let now = write.now_milliseconds();
    let mut select = write.prepare("SELECT job FROM jobs WHERE purge_at <= ?1 LIMIT ?2")?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let over = select.query_map([now, limit], |row| row.get(0)).map_err(&purging)?;
    let over: Vec<i64> = over.collect::<rusqlite::Result<_>>().map_err(&purging)?;
    let blobs = delete(write, &over)?;
    let trim = "DELETE FROM endings WHERE ending <= (SELECT max(ending) FROM endings) - ?1";
    if write.prepare(trim)?.execute([MAX_ENDINGS]).map_err(&purging)? > 0 {
        write.notify(Change::Ended);
    }
    Ok(blobs)
}

/// Deletes jobs with their attempts, inputs and outputs. Returns their blob references.
pub(super) fn delete(write: &mut Write<'_>, jobs: &[i64]) -> Result<Vec<BlobRef>> {
    let deleting = sqlite("delete jobs");
    let mut delete_job = write.prepare("DELETE FROM jobs WHERE job = ?1")?;
    let mut delete_attempts = write.prepare("DELETE FROM attempts WHERE job = ?1")?;
    let mut delete_bodies = [
        write.prepare("DELETE FROM inputs WHERE job = ?1 RETURNING blob")?,
        write.prepare("DELETE FROM outputs WHERE job = ?1 RETURNING blob")?,
    ];
    let mut blobs = Vec::new();
    for row_id in jobs {
        delete_job.execute([row_id]).map_err(&deleting)?;
        delete_attempts.execute([row_id]).map_err(&deleting)?;
        for delete in &mut delete_bodies {
            let mut rows = delete.query([row_id]).map_err(&deleting)?;
            while let Some(row) = rows.next().map_err(&deleting)? {
                match read_blob(row, 0) {
                    Ok(blob) => blobs.extend(blob),
                    // The record must not stay for ever. Its blob stays and only takes space.
                    Err(error) => tracing::error!(%error, "cannot read a blob reference; its blob is not deleted"),
                }
            }
        }
    }
    Ok(blobs)
}
