//! Lists, requeues and deletes dead and failed jobs.

use jiff::Timestamp;

use super::rows::{self, Fields};
use super::scripts::{self, CHUNK_ITEMS, Call};
use crate::connection::Redis;
use queue::driver::{BodyColumns, input_digest};
use queue::ledger::{DeadFilter, DeadPage, DeadPosition, Forgotten, JobRecord, JobState, Purged, Requeued};
use queue::{Error, ErrorKind, Input, JobId, Result};

/// The sorted set with the jobs of a filter. `None` where the filter can match no job.
fn list_of(filter: &DeadFilter) -> Option<String> {
    let state = match filter.state {
        JobState::Dead | JobState::Failed => filter.state.as_str(),
        _ => return None,
    };
    Some(filter.pool.as_ref().map_or_else(|| state.to_owned(), |pool| format!("{state}:{pool}")))
}

/// A page of dead jobs, the last to end first.
pub(super) async fn page(
    redis: &Redis,
    filter: &DeadFilter,
    after: Option<&DeadPosition>,
    limit: usize,
) -> Result<DeadPage> {
    let empty = DeadPage { jobs: Vec::new(), next: None };
    let Some(list) = list_of(filter).filter(|_| limit > 0) else { return Ok(empty) };
    let mut call = Call::new(redis, &scripts::DEAD).with(list).with(limit.min(CHUNK_ITEMS).to_string());
    if let Some(DeadPosition { finished_at, id }) = after {
        call = call.with_number(finished_at.as_millisecond()).with(id.as_str());
    }
    let (more, rows): (bool, Vec<(String, i64, Fields)>) = call.run("list dead jobs").await?;
    let (mut jobs, mut next) = (Vec::with_capacity(rows.len()), None);
    // An unreadable job, or one whose record was deleted by hand, must not hide the jobs that ended before it.
    let unreadable = |error: Error| tracing::error!(%error, "cannot read a dead job; it is not listed");
    for (id, finished_at, fields) in rows {
        match row(&id, finished_at, fields) {
            Ok((position, record)) => {
                next = Some(position);
                match record {
                    Ok(record) => jobs.extend(record),
                    Err(error) => unreadable(error),
                }
            }
            Err(error) => unreadable(error),
        }
    }
    if more && next.is_none() {
        return Err(Error::new(ErrorKind::Corrupt, "redis lists dead jobs under names that are not job ids"));
    }
    Ok(DeadPage { jobs, next: next.filter(|_| more) })
}

/// A job's position in the list, and its record.
fn row(id: &str, finished_at: i64, fields: Fields) -> Result<(DeadPosition, Result<Option<JobRecord>>)> {
    let id: JobId = id.parse()?;
    let record = rows::record(&id, (fields, None));
    let corrupt =
        |error| Error::caused(ErrorKind::Corrupt, format_args!("redis lists job {id} with a wrong time"), error);
    let finished_at = Timestamp::from_millisecond(finished_at).map_err(corrupt)?;
    Ok((DeadPosition { finished_at, id }, record))
}

/// Requeues a dead or failed job.
pub(super) async fn requeue(redis: &Redis, id: &JobId, input: Option<&Input>) -> Result<Requeued> {
    let mut call = Call::new(redis, &scripts::REQUEUE).with(id.as_str());
    if let Some(input) = input {
        let BodyColumns { body, blob } = BodyColumns::of(&input.body);
        call = call.with(input_digest(input)).with(&input.media_type);
        call = call.with(blob.unwrap_or_default()).with(body.unwrap_or_default());
    }
    let (code, replaced): (i64, Option<Vec<u8>>) = call.run("requeue").await?;
    if code < 0 {
        return Ok(Requeued::Unknown);
    }
    Ok(match rows::state(code)? {
        JobState::Dead | JobState::Failed => {
            Requeued::Queued { replaced: replaced.map(|json| rows::blob(&json)).transpose()? }
        }
        other => Requeued::NotDead(other),
    })
}

/// Deletes an ended job.
pub(super) async fn forget(redis: &Redis, id: &JobId) -> Result<Forgotten> {
    let call = Call::new(redis, &scripts::FORGET).with(id.as_str());
    let (code, blobs): (i64, Vec<Vec<u8>>) = call.run("delete a job").await?;
    if code < 0 {
        return Ok(Forgotten::Unknown);
    }
    Ok(match rows::state(code)? {
        state if !state.has_ended() || state == JobState::Cancelled => Forgotten::Retained(state),
        _ => Forgotten::Forgotten(rows::blobs_of_deleted(&blobs)),
    })
}

/// Deletes dead jobs.
pub(super) async fn purge(redis: &Redis, filter: &DeadFilter, limit: usize) -> Result<Purged> {
    let mut purged = Purged::default();
    let Some(list) = list_of(filter) else { return Ok(purged) };
    while purged.jobs < limit {
        let count = (limit - purged.jobs).min(CHUNK_ITEMS);
        let call = Call::new(redis, &scripts::PURGE_DEAD).with(&list).with(count.to_string());
        let (jobs, blobs): (usize, Vec<Vec<u8>>) = call.run("purge dead jobs").await?;
        purged.jobs += jobs;
        purged.blobs.extend(rows::blobs_of_deleted(&blobs));
        if jobs < count {
            break;
        }
    }
    Ok(purged)
}
