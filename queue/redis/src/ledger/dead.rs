//! Jobs that ended badly: listed, queued again, forgotten.

use jiff::Timestamp;

use super::rows::{self, Fields};
use super::scripts::{self, Call, PIECE_ITEMS};
use crate::connection::Redis;
use queue::driver::BodyColumns;
use queue::ledger::{DeadFilter, DeadPage, DeadPosition, Forgotten, JobRecord, JobState, Purged, Requeued};
use queue::{Error, ErrorKind, Input, JobId, Result};

/// The sorted set that lists the jobs of a filter; `None` where there are none by definition.
fn list_of(filter: &DeadFilter) -> Option<String> {
    let state = match filter.state {
        JobState::Dead | JobState::Failed => filter.state.as_str(),
        _ => return None,
    };
    Some(filter.pool.as_ref().map_or_else(|| state.to_owned(), |pool| format!("{state}:{pool}")))
}

/// Some dead jobs, those that ended last first.
pub(super) async fn page(
    redis: &Redis,
    filter: &DeadFilter,
    after: Option<&DeadPosition>,
    limit: usize,
) -> Result<DeadPage> {
    let nothing = DeadPage { jobs: Vec::new(), next: None };
    let Some(list) = list_of(filter).filter(|_| limit > 0) else { return Ok(nothing) };
    let mut call = Call::new(redis).with(list).with(limit.min(PIECE_ITEMS).to_string());
    if let Some(DeadPosition { finished_at, id }) = after {
        call = call.with_number(finished_at.as_millisecond()).with(id.as_str());
    }
    let (more, rows): (bool, Vec<(String, i64, Fields)>) = call.run("list dead jobs", &scripts::DEAD).await?;
    let (mut jobs, mut next) = (Vec::with_capacity(rows.len()), None);
    // One that cannot be read, or whose record somebody deleted by hand, must not hide those that ended before it.
    let unreadable = |error: Error| tracing::error!(%error, "a dead job cannot be read and is not listed");
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
        return Err(Error::new(ErrorKind::Corrupt, "redis lists dead jobs under names that are no ids"));
    }
    Ok(DeadPage { jobs, next: next.filter(|_| more) })
}

/// A job's place in the list, and what its hash holds.
fn row(id: &str, finished_at: i64, fields: Fields) -> Result<(DeadPosition, Result<Option<JobRecord>>)> {
    let id: JobId = id.parse()?;
    let record = rows::record(&id, (fields, None));
    let of_list = |error| Error::caused(ErrorKind::Corrupt, format_args!("redis lists job {id} at a time"), error);
    let finished_at = Timestamp::from_millisecond(finished_at).map_err(of_list)?;
    Ok((DeadPosition { finished_at, id }, record))
}

/// Puts a dead or failed job back into the queue.
pub(super) async fn requeue(redis: &Redis, id: &JobId, input: Option<&Input>) -> Result<Requeued> {
    let mut call = Call::new(redis).with(id.as_str());
    if let Some(input) = input {
        let BodyColumns { body, blob } = BodyColumns::of(&input.body);
        call = call.with(rows::digest(input)).with(&input.media_type);
        call = call.with(blob.unwrap_or_default()).with(body.unwrap_or_default());
    }
    let (code, replaced): (i64, Option<Vec<u8>>) = call.run("requeue", &scripts::REQUEUE).await?;
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
    let call = Call::new(redis).with(id.as_str());
    let (code, blobs): (i64, Vec<Vec<u8>>) = call.run("forget a job", &scripts::FORGET).await?;
    if code < 0 {
        return Ok(Forgotten::Unknown);
    }
    Ok(match rows::state(code)? {
        kept if !kept.has_ended() || kept == JobState::Cancelled => Forgotten::Retained(kept),
        _ => Forgotten::Forgotten(rows::blobs_of_the_forgotten(&blobs)),
    })
}

/// Deletes dead jobs.
pub(super) async fn purge(redis: &Redis, filter: &DeadFilter, limit: usize) -> Result<Purged> {
    let mut purged = Purged::default();
    let Some(list) = list_of(filter) else { return Ok(purged) };
    while purged.jobs < limit {
        let piece = (limit - purged.jobs).min(PIECE_ITEMS);
        let call = Call::new(redis).with(&list).with(piece.to_string());
        let (jobs, blobs): (usize, Vec<Vec<u8>>) = call.run("purge dead jobs", &scripts::PURGE_DEAD).await?;
        purged.jobs += jobs;
        purged.blobs.extend(rows::blobs_of_the_forgotten(&blobs));
        if jobs < piece {
            break;
        }
    }
    Ok(purged)
}
