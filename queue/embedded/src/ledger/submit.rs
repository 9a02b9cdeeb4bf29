//! Opens records, and confirms their publications.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::params;

use super::{arrivals, rows};
use crate::broker::messages;
use crate::store::{Write, sqlite};
use queue::driver::{BodyColumns, CHECK_AFTER, milliseconds_of, origin_column};
use queue::ledger::{JobState, Publication, Submitted};
use queue::{Job, Result};

/// The time after a submission, or after a job was taken as due, in which its publication must be confirmed. Otherwise the
/// job is due (again).
pub(super) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// How a record is opened.
#[derive(Debug, Clone, Copy)]
pub(super) enum Opening {
    /// Its job is not published yet.
    Unpublished,
    /// The same write publishes its job.
    Published,
    /// Its job was delivered, and the same write claims it.
    Delivered,
}

/// Opens the records of jobs, or finds the existing ones.
pub(super) fn submit_all(write: &mut Write<'_>, jobs: &[Job]) -> Result<Vec<Submitted>> {
    open_all(write, jobs, Opening::Unpublished)
}

/// Opens the records of jobs, or finds the existing ones. Publishes each job whose publication is missing.
pub(super) fn submit_and_publish_all(write: &mut Write<'_>, jobs: &[Job]) -> Result<Vec<Submitted>> {
    let submitted = open_all(write, jobs, Opening::Published)?;
    let mut missing = Vec::new();
    let mut publishing = Vec::with_capacity(jobs.len());
    for (job, submitted) in jobs.iter().zip(&submitted) {
        match submitted {
            Submitted::New => publishing.push(job),
            Submitted::Existing { publish: Some(publication), .. } => {
                publishing.push(job);
                missing.push(publication.clone());
            }
            _ => {}
        }
    }
    if !publishing.is_empty() {
        messages::insert(write, publishing)?;
        confirm(write, &missing)?;
    }
    Ok(submitted)
}

/// Records that these publications are confirmed.
pub(super) fn confirm(write: &mut Write<'_>, publications: &[Publication]) -> Result<()> {
    let due_at = write.milliseconds_after(CHECK_AFTER);
    let sql = "UPDATE jobs SET confirmed = fence, due_at = min(?1, coalesce(deadline_at, ?1)) \
               WHERE id = ?2 AND fence = ?3 AND state = ?4";
    let mut update = write.prepare(sql)?;
    for Publication { id, fence } in publications {
        let row = params![due_at, id.as_str(), *fence, rows::code(JobState::Queued)];
        update.execute(row).map_err(sqlite("confirm a publication"))?;
    }
    Ok(())
}

fn open_all(write: &mut Write<'_>, jobs: &[Job], opening: Opening) -> Result<Vec<Submitted>> {
    let submitted = jobs.iter().map(|job| submit(write, job, opening)).collect::<Result<Vec<_>>>()?;
    let new = jobs.iter().zip(&submitted).filter(|(_, submitted)| matches!(submitted, Submitted::New));
    arrivals::record(write, new.map(|(job, _)| job.pool.as_str()))?;
    Ok(submitted)
}

fn submit(write: &mut Write<'_>, job: &Job, opening: Opening) -> Result<Submitted> {
    if open(write, job, opening)? {
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
pub(super) fn open(write: &mut Write<'_>, job: &Job, opening: Opening) -> Result<bool> {
    let deadline_at = job.deadline_at.map(Timestamp::as_millisecond);
    let (due_at, confirmed) = match opening {
        Opening::Unpublished => (Some(write.milliseconds_after(PUBLISH_TIMEOUT)), None),
        Opening::Published => {
            let check_at = write.milliseconds_after(CHECK_AFTER);
            (Some(deadline_at.map_or(check_at, |deadline_at| deadline_at.min(check_at))), Some(0))
        }
        Opening::Delivered => (None, None),
    };
    let opening = sqlite("open a record");
    let mut insert = write.prepare(
        "INSERT INTO jobs (id, pool, class, state, max_attempts, created_at, deadline_at, due_at, retention, \
         trace_parent, origin, confirmed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT (id) DO NOTHING",
    )?;
    let row = params![
        job.id.as_str(),
        job.pool.as_str(),
        job.class as i64,
        rows::code(JobState::Queued),
        job.max_attempts,
        job.created_at.as_millisecond(),
        deadline_at,
        due_at,
        milliseconds_of(job.retention),
        job.trace_parent,
        origin_column(job.origin.as_ref()),
        confirmed,
    ];
    if insert.execute(row).map_err(&opening)? == 0 {
        return Ok(false);
    }
    let BodyColumns { body, blob } = BodyColumns::of(&job.input.body);
    let mut input = write.prepare("INSERT INTO inputs (job, media_type, body, blob) VALUES (?1, ?2, ?3, ?4)")?;
    input.execute(params![write.last_insert_rowid(), job.input.media_type, body, blob]).map_err(&opening)?;
    Ok(true)
}
