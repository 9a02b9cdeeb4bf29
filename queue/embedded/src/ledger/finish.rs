//! Ends attempts and jobs.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::{history, rows};
use crate::store::{Change, Write, sqlite};
use queue::driver::{BodyColumns, CHECK_RELEASED_AFTER, input_digest, milliseconds_of};
use queue::ledger::{Finish, Finished, JobRecord, JobState, Outcome};
use queue::{Body, Input, JobError, JobId, Output, Result};

/// Records how one attempt ended, if its lease is still valid.
pub(super) fn finish(write: &mut Write<'_>, finish: &Finish) -> Result<Finished> {
    let id = &finish.lease.id;
    let mut select =
        write.prepare("SELECT job, attempts, max_attempts FROM jobs WHERE id = ?1 AND fence = ?2 AND state = ?3")?;
    let leased: Option<(i64, u32, u32)> = select
        .query_row(params![id.as_str(), finish.lease.fence, rows::code(JobState::Leased)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()
        .map_err(sqlite("finish"))?;
    let Some((row_id, attempts, max_attempts)) = leased else { return Ok(Finished::LeaseLost) };
    let mut finished_at = None;
    let mut end = |write: &mut Write<'_>, state, error| -> Result<()> {
        finished_at = Some(rows::time(end(write, row_id, id, state, error)?)?);
        Ok(())
    };
    let state = match &finish.outcome {
        Outcome::Succeeded(output) => {
            insert_output(write, row_id, output)?;
            end(write, JobState::Succeeded, None)?;
            delete_input(write, row_id)?;
            JobState::Succeeded
        }
        Outcome::Failed(error) => {
            history::record_failed_attempt(write, row_id, error)?;
            end(write, JobState::Failed, Some(error))?;
            JobState::Failed
        }
        Outcome::Retry { error, .. } if attempts >= max_attempts => {
            history::record_failed_attempt(write, row_id, error)?;
            end(write, JobState::Dead, Some(error))?;
            JobState::Dead
        }
        Outcome::Retry { error, after } => {
            history::record_failed_attempt(write, row_id, error)?;
            let due_at = write.milliseconds_after(*after);
            let sql = "UPDATE jobs SET state = ?1, due_at = ?2, error_type = ?3, error_message = ?4 WHERE job = ?5";
            let row = params![rows::code(JobState::Retry), due_at, error.kind, error.message, row_id];
            write.prepare(sql)?.execute(row).map_err(sqlite("finish"))?;
            JobState::Retry
        }
        Outcome::Released => {
            // The worker requeues its delivery, so the job counts as published.
            let due_at = write.milliseconds_after(CHECK_RELEASED_AFTER);
            let sql = "UPDATE jobs SET state = ?1, attempts = attempts - 1, confirmed = fence, \
                       due_at = min(?2, coalesce(deadline_at, ?2)) WHERE job = ?3";
            let row = params![rows::code(JobState::Queued), due_at, row_id];
            write.prepare(sql)?.execute(row).map_err(sqlite("finish"))?;
            JobState::Queued
        }
    };
    Ok(Finished::Recorded { state, finished_at })
}

/// Deletes an input that nothing needs any more. Repeated submissions are compared by its digest. A reference stays until
/// the record is deleted, together with its blob.
fn delete_input(write: &Write<'_>, row_id: i64) -> Result<()> {
    let deleting = sqlite("finish");
    let input = match rows::input_of_row(write.connection(), row_id) {
        // An input that cannot be read must not reject a result.
        Err(error) if error.kind().is_about_a_value() => return Ok(()),
        input => input?,
    };
    let Some(input @ Input { body: Body::Inline(_), .. }) = input else { return Ok(()) };
    let mut update = write.prepare("UPDATE jobs SET digest = ?1 WHERE job = ?2")?;
    update.execute(params![input_digest(&input), row_id]).map_err(&deleting)?;
    write.prepare("DELETE FROM inputs WHERE job = ?1")?.execute([row_id]).map(drop).map_err(&deleting)
}

fn insert_output(write: &mut Write<'_>, row_id: i64, output: &Output) -> Result<()> {
    let BodyColumns { body, blob } = BodyColumns::of(&output.body);
    let mut insert = write.prepare("INSERT INTO outputs (job, media_type, body, blob) VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute(params![row_id, output.media_type, body, blob]).map(drop).map_err(sqlite("finish"))
}

/// Ends an open job. Returns the time at which it ended, in milliseconds since the Unix epoch.
pub(super) fn end(
    write: &mut Write<'_>,
    row_id: i64,
    id: &JobId,
    state: JobState,
    error: Option<&JobError>,
) -> Result<i64> {
    let ending = sqlite("finish");
    let now = write.now_milliseconds();
    let least_retention = if state.can_be_requeued() { write.dead_retention() } else { Duration::ZERO };
    let mut update = write.prepare(
        "UPDATE jobs SET state = ?1, due_at = NULL, finished_at = ?2, purge_at = ?2 + max(retention, ?3), \
         error_type = ?4, error_message = ?5 WHERE job = ?6",
    )?;
    let (kind, message) = (error.map(|error| &error.kind), error.map(|error| &error.message));
    update
        .execute(params![rows::code(state), now, milliseconds_of(least_retention), kind, message, row_id])
        .map_err(&ending)?;
    write.prepare("INSERT INTO endings (id) VALUES (?1)")?.execute([id.as_str()]).map_err(&ending)?;
    write.notify(Change::Ended);
    Ok(now)
}

/// Ends an open job as `cancelled`. Returns its record afterwards.
pub(super) fn cancel(write: &mut Write<'_>, id: &JobId) -> Result<Option<JobRecord>> {
    let mut select = write.prepare("SELECT job, state FROM jobs WHERE id = ?1")?;
    let found: Option<(i64, i64)> =
        select.query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(sqlite("cancel"))?;
    let Some((row_id, code)) = found else { return Ok(None) };
    if !rows::state(code)?.has_ended() {
        end(write, row_id, id, JobState::Cancelled, None)?;
    }
    rows::record(write.connection(), id)
}

#[cfg(test)]
mod tests {
    use crate::EmbeddedFixture;
    use queue::{Claim, ClaimRequest, Finish, Outcome, Output, WorkerId};
    use queue_contract::Fixture;

    #[tokio::test]
    async fn the_file_holds_no_input_of_a_job_that_succeeded() {
        let fixture = EmbeddedFixture::start();
        let ledger = fixture.open().await.ledger;
        let jobs = queue_contract::jobs(&fixture, 3);
        ledger.submit(&jobs).await.unwrap();
        let requests = jobs[..2].iter().map(|job| ClaimRequest::new(job.clone(), false)).collect();
        let claims = ledger.claim(&WorkerId::new("worker"), requests, queue_contract::LEASE).await.unwrap();
        let output = Output { media_type: "text/plain".to_owned(), body: queue::Body::Inline("done".into()) };
        let finish = |claim| match claim {
            Claim::Granted { lease, .. } => Finish { lease, outcome: Outcome::Succeeded(output.clone()) },
            other => panic!("{other:?}"),
        };
        ledger.finish(claims.into_iter().map(finish).collect()).await.unwrap();
        let file = rusqlite::Connection::open(fixture.file()).unwrap();
        let inputs: i64 = file.query_row("SELECT count(*) FROM inputs", [], |row| row.get(0)).unwrap();
        assert_eq!(inputs, 1);
    }
}
