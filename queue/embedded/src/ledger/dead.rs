//! Lists, requeues and deletes dead and failed jobs.

use rusqlite::{Connection, OptionalExtension, params};

use super::{arrivals, rows, upkeep};
use crate::store::{Write, read_blob, sqlite};
use queue::driver::BodyColumns;
use queue::ledger::{DeadFilter, DeadPage, DeadPosition, Forgotten, JobRecord, JobState, Purged, Requeued};
use queue::{Input, JobId, Result};

/// The query for a page of jobs in a state, of all pools or of one. It names the states twice, because SQLite uses a
/// partial index only if the query repeats the condition of the index. Each of the two variants has its own index.
fn sql_of_page(is_of_pool: bool) -> String {
    let condition = if is_of_pool { "pool = ?2" } else { "?2 IS NULL" };
    format!(
        "SELECT id, pool, class, state, attempts, max_attempts, created_at, deadline_at, started_at, finished_at, \
         worker, error_type, error_message, NULL, NULL, NULL FROM jobs \
         WHERE state IN (4, 7) AND state = ?1 AND {condition} AND (finished_at, id) < (?3, ?4) \
         ORDER BY finished_at DESC, id DESC LIMIT ?5"
    )
}

/// The query for jobs to delete. It names the states twice too.
fn sql_of_purge(is_of_pool: bool) -> String {
    let condition = if is_of_pool { "pool = ?2" } else { "?2 IS NULL" };
    format!("SELECT job FROM jobs WHERE state IN (4, 7) AND state = ?1 AND {condition} LIMIT ?3")
}

/// A page of dead jobs, the last to end first.
pub(super) fn page(
    file: &Connection,
    filter: &DeadFilter,
    after: Option<&DeadPosition>,
    limit: usize,
) -> Result<DeadPage> {
    let reading = sqlite("list dead jobs");
    let pool = filter.pool.as_ref().map(|pool| pool.as_str());
    let mut select = file.prepare_cached(&sql_of_page(pool.is_some())).map_err(&reading)?;
    // No job ends at the latest possible time, so the first page begins there.
    let (at, id) = after.map_or((i64::MAX, ""), |after| (after.finished_at.as_millisecond(), after.id.as_str()));
    // The query reads one more job, which shows whether there is a next page.
    let one_more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut rows = select.query(params![rows::code(filter.state), pool, at, id, one_more]).map_err(&reading)?;
    let mut jobs: Vec<JobRecord> = Vec::new();
    let mut more = false;
    while let Some(row) = rows.next().map_err(&reading)? {
        if jobs.len() == limit {
            more = true;
            break;
        }
        jobs.push(rows::record_of(row)?);
    }
    let position = |job: &JobRecord| Some(DeadPosition { finished_at: job.finished_at?, id: job.id.clone() });
    let next = jobs.last().filter(|_| more).and_then(position);
    Ok(DeadPage { jobs, next })
}

/// Requeues a dead or failed job.
pub(super) fn requeue(write: &mut Write<'_>, id: &JobId, input: Option<&Input>) -> Result<Requeued> {
    let requeueing = sqlite("requeue");
    let Some((row_id, state)) = find(write, id)? else { return Ok(Requeued::Unknown) };
    if !state.can_be_requeued() {
        return Ok(Requeued::NotDead(state));
    }
    let mut update = write.prepare(
        "UPDATE jobs SET state = ?1, attempts = 0, fence = fence + 1, begun = 0, due_at = ?2, finished_at = NULL, \
         purge_at = NULL, deadline_at = NULL WHERE job = ?3 RETURNING pool",
    )?;
    let row = params![rows::code(JobState::Queued), write.now_milliseconds(), row_id];
    let pool: String = update.query_row(row, |row| row.get(0)).map_err(&requeueing)?;
    arrivals::record(write, std::iter::once(pool.as_str()))?;
    let Some(input) = input else { return Ok(Requeued::Queued { replaced: None }) };
    let mut select = write.prepare("SELECT blob FROM inputs WHERE job = ?1")?;
    let mut rows = select.query([row_id]).map_err(&requeueing)?;
    let replaced = rows.next().map_err(&requeueing)?.map(|row| read_blob(row, 0)).transpose()?.flatten();
    let BodyColumns { body, blob } = BodyColumns::of(&input.body);
    let mut update = write.prepare("UPDATE inputs SET media_type = ?1, body = ?2, blob = ?3 WHERE job = ?4")?;
    update.execute(params![input.media_type, body, blob, row_id]).map_err(&requeueing)?;
    Ok(Requeued::Queued { replaced })
}

/// Deletes an ended job.
pub(super) fn forget(write: &mut Write<'_>, id: &JobId) -> Result<Forgotten> {
    let Some((row_id, state)) = find(write, id)? else { return Ok(Forgotten::Unknown) };
    if !state.has_ended() || state == JobState::Cancelled {
        return Ok(Forgotten::Retained(state));
    }
    upkeep::delete(write, &[row_id]).map(Forgotten::Forgotten)
}

/// Deletes dead jobs.
pub(super) fn purge(write: &mut Write<'_>, filter: &DeadFilter, limit: usize) -> Result<Purged> {
    let purging = sqlite("purge dead jobs");
    let pool = filter.pool.as_ref().map(|pool| pool.as_str());
    let mut select = write.prepare(&sql_of_purge(pool.is_some()))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = select.query_map(params![rows::code(filter.state), pool, limit], |row| row.get(0)).map_err(&purging)?;
    let found: Vec<i64> = found.collect::<rusqlite::Result<_>>().map_err(&purging)?;
    Ok(Purged { jobs: found.len(), blobs: upkeep::delete(write, &found)? })
}

fn find(write: &Write<'_>, id: &JobId) -> Result<Option<(i64, JobState)>> {
    let mut select = write.prepare("SELECT job, state FROM jobs WHERE id = ?1")?;
    let found: Option<(i64, i64)> = select
        .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(sqlite("read a job"))?;
    found.map(|(row_id, code)| Ok((row_id, rows::state(code)?))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, StoreOptions};
    use queue::Clock;

    #[tokio::test]
    async fn a_page_begins_at_its_position_and_needs_no_sort() {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(folder.path());
        let store = Store::open(&options, Clock::default()).unwrap();
        let plan = async |sql: String| {
            let explain = move |file: &Connection| {
                let mut steps = file.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).map_err(sqlite("explain"))?;
                let unbound = vec![rusqlite::types::Null; steps.parameter_count()];
                let steps = steps
                    .query_map(rusqlite::params_from_iter(unbound), |row| row.get::<_, String>(3))
                    .map_err(sqlite("explain"))?;
                steps.collect::<rusqlite::Result<Vec<_>>>().map_err(sqlite("explain"))
            };
            store.read(explain).await.unwrap()
        };
        let position = "(finished_at,id)<(?,?)";
        let all = format!("SEARCH jobs USING INDEX jobs_dead (state=? AND {position})");
        assert_eq!(plan(sql_of_page(false)).await, [all]);
        let of_pool = format!("SEARCH jobs USING INDEX jobs_dead_of_pool (pool=? AND state=? AND {position})");
        assert_eq!(plan(sql_of_page(true)).await, [of_pool]);
        assert!(plan(sql_of_purge(false)).await[0].contains("INDEX jobs_dead (state=?)"));
        assert!(plan(sql_of_purge(true)).await[0].contains("INDEX jobs_dead_of_pool (pool=? AND state=?)"));
    }
}
