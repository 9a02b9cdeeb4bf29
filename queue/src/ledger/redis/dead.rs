//! Jobs that ended badly: listed, queued again, forgotten.

use super::rows::{self, Fields};
use super::scripts::{self, Call, PIECE_ITEMS};
use crate::ledger::{DeadFilter, DeadPage, DeadPosition, Forgotten, Purged, Requeued, State};
use crate::redis::Redis;
use crate::store::BodyColumns;
use crate::{Input, JobId, Result};

/// The sorted set that lists the jobs of a filter; `None` where there are none by definition.
fn list_of(filter: &DeadFilter) -> Option<String> {
    let state = match filter.state {
        State::Dead | State::Failed => filter.state.as_str(),
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
    let (more, rows): (bool, Vec<(String, Fields)>) = call.run("list dead jobs", &scripts::DEAD).await?;
    let mut jobs = Vec::with_capacity(rows.len());
    for (id, fields) in rows {
        jobs.extend(rows::record(&id.parse()?, (fields, None))?);
    }
    let position = |finished_at, id: &JobId| DeadPosition { finished_at, id: id.clone() };
    let next = jobs.last().filter(|_| more).and_then(|last| Some(position(last.finished_at?, &last.id)));
    Ok(DeadPage { jobs, next })
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
        State::Dead | State::Failed => {
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
        state if state.has_ended() => Forgotten::Forgotten(rows::blobs_of_the_forgotten(&blobs)),
        open => Forgotten::Open(open),
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
