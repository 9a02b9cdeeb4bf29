//! Claims jobs, and begins the attempts at suspects.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::submit::{self, Opening};
use super::{finish, grace, history, rows, upkeep};
use crate::store::{Write, corrupt, sqlite};
use queue::driver::milliseconds_of;
use queue::ledger::{Claim, ClaimRequest, JobState, Lease};
use queue::{JobErrorKind, JobId, Result, WorkerId};

/// The time in which a holder in the roster must renew a lease on a job that was delivered again. A worker renews once a
/// second.
const PATIENCE: Duration = Duration::from_secs(5);

struct Row {
    row_id: i64,
    state: i64,
    attempts: u32,
    max_attempts: u32,
    fence: u64,
    lost: i64,
    begun: bool,
    deadline_at: Option<i64>,
    due_at: Option<i64>,
    pool: String,
    /// The length of the lease in milliseconds.
    lease: i64,
    worker: Option<String>,
    /// The token of the request that was granted last.
    claim: Option<Vec<u8>>,
}

/// Claims one job for `worker`. A job whose record cannot be read ends, because no claim could ever grant it and its message
/// would be requeued for ever.
pub(super) fn claim(
    write: &mut Write<'_>,
    worker: &WorkerId,
    request: &ClaimRequest,
    lease: Duration,
) -> Result<Claim> {
    match claim_readable(write, worker, request, lease) {
        Err(error) if error.kind().is_about_a_value() => {
            let mut select = write.prepare("SELECT job, state FROM jobs WHERE id = ?1")?;
            let found = select.query_row([request.job.id.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional();
            let Some((row_id, code)) = found.map_err(sqlite("claim"))? else { return Err(error) };
            match rows::state(code) {
                Ok(state) if state.has_ended() => Ok(Claim::Ended(state)),
                _ => upkeep::end_unreadable(write, row_id, &error).map(|()| Claim::Ended(JobState::Failed)),
            }
        }
        claimed => claimed,
    }
}

fn claim_readable(write: &mut Write<'_>, worker: &WorkerId, request: &ClaimRequest, lease: Duration) -> Result<Claim> {
    let (now, id) = (write.now_milliseconds(), &request.job.id);
    let row = match find(write, id)? {
        Some(row) => row,
        None => {
            submit::open(write, &request.job, Opening::Delivered)?;
            find(write, id)?.ok_or_else(|| corrupt("a job that was just written", id))?
        }
    };
    let (mut lost, mut attempts) = (row.lost, row.attempts);
    match rows::state(row.state)? {
        JobState::Queued => {}
        JobState::Leased if row.claim.as_deref() == Some(request.token()) => {
            // This request was granted before. The worker repeats it, because the answer was lost.
            let mut update = write.prepare("UPDATE jobs SET due_at = ?1 WHERE job = ?2")?;
            update.execute(params![write.milliseconds_after(lease), row.row_id]).map_err(sqlite("claim"))?;
            let granted = Lease { id: id.clone(), fence: row.fence, attempt: attempts };
            return Ok(Claim::Granted { lease: granted, alone: lost > 0 });
        }
        JobState::Leased => {
            if !may_take_over(write, &row, request, lease)? {
                return Ok(Claim::HeldElsewhere);
            }
            lost += 1;
            if row.begun {
                history::record_failed_attempt(write, row.row_id, &history::worker_disappeared())?;
            } else {
                // An attempt that had not begun does not count: the job cannot be the reason why the worker disappeared.
                attempts -= 1;
            }
            // This is written even if the claim ends the job, because the job must still be a suspect after a requeue.
            let mut update = write.prepare("UPDATE jobs SET attempts = ?1, lost = ?2 WHERE job = ?3")?;
            update.execute(params![attempts, lost, row.row_id]).map_err(sqlite("claim"))?;
        }
        JobState::Retry => return Ok(Claim::HeldElsewhere),
        ended => return Ok(Claim::Ended(ended)),
    }
    if row.deadline_at.is_some_and(|deadline| deadline < now) {
        let error = JobErrorKind::Expired.error("the deadline passed before the job was started");
        finish::end(write, row.row_id, id, JobState::Expired, Some(&error))?;
        return Ok(Claim::Ended(JobState::Expired));
    }
    if attempts >= row.max_attempts {
        let message = format!("the worker disappeared in the last of {attempts} attempts");
        let error = JobErrorKind::WorkerVanished.error(message);
        finish::end(write, row.row_id, id, JobState::Dead, Some(&error))?;
        return Ok(Claim::Ended(JobState::Dead));
    }
    let claimed = Lease { id: id.clone(), fence: row.fence + 1, attempt: attempts + 1 };
    let alone = lost > 0;
    let mut update = write.prepare(
        "UPDATE jobs SET state = ?1, attempts = ?2, fence = ?3, lost = ?4, begun = ?5, due_at = ?6, started_at = ?7, \
         worker = ?8, claim = ?9, lease = ?10 WHERE job = ?11",
    )?;
    update
        .execute(params![
            rows::code(JobState::Leased),
            claimed.attempt,
            claimed.fence,
            lost,
            !alone,
            write.milliseconds_after(lease),
            now,
            worker.as_str(),
            request.token(),
            milliseconds_of(lease),
            row.row_id
        ])
        .map_err(sqlite("claim"))?;
    Ok(Claim::Granted { lease: claimed, alone })
}

/// Whether another worker may have this leased job. That a broker delivers it again is no proof: the holder may have lost
/// only its connection. So a holder in the roster keeps its lease, but has to renew it within [`PATIENCE`].
fn may_take_over(write: &Write<'_>, row: &Row, request: &ClaimRequest, lease: Duration) -> Result<bool> {
    let now = write.now_milliseconds();
    if grace::end_of_gap(write)?.is_some_and(|resumed_at| resumed_at.saturating_add(row.lease) > now) {
        return Ok(false);
    }
    if row.due_at.is_none_or(|until| until <= now) {
        return Ok(true);
    }
    if !request.redelivered {
        return Ok(false);
    }
    let claiming = sqlite("claim");
    let mut select = write.prepare("SELECT 1 FROM workers WHERE id = ?1 AND pool = ?2 AND alive_until >= ?3")?;
    if !select.exists(params![row.worker, row.pool, now]).map_err(&claiming)? {
        return Ok(true);
    }
    let mut update = write.prepare("UPDATE jobs SET due_at = min(due_at, ?1) WHERE job = ?2")?;
    update.execute(params![write.milliseconds_after(PATIENCE.min(lease / 2)), row.row_id]).map_err(&claiming)?;
    Ok(false)
}

/// Makes an attempt count, even if its worker disappears. Returns whether the lease is valid.
pub(super) fn begin(write: &mut Write<'_>, lease: &Lease) -> Result<bool> {
    let mut update = write.prepare("UPDATE jobs SET begun = 1 WHERE id = ?1 AND fence = ?2 AND state = ?3")?;
    let row = params![lease.id.as_str(), lease.fence, rows::code(JobState::Leased)];
    update.execute(row).map(|begun| begun > 0).map_err(sqlite("begin"))
}

fn find(write: &Write<'_>, id: &JobId) -> Result<Option<Row>> {
    let mut select = write.prepare(
        "SELECT job, state, attempts, max_attempts, fence, lost, begun, deadline_at, due_at, claim, pool, worker, lease \
         FROM jobs WHERE id = ?1",
    )?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Row {
            row_id: row.get(0)?,
            state: row.get(1)?,
            attempts: row.get(2)?,
            max_attempts: row.get(3)?,
            fence: row.get(4)?,
            lost: row.get(5)?,
            begun: row.get(6)?,
            deadline_at: row.get(7)?,
            due_at: row.get(8)?,
            claim: row.get(9)?,
            pool: row.get(10)?,
            worker: row.get(11)?,
            lease: row.get(12)?,
        })
    };
    select.query_row([id.as_str()], read).optional().map_err(sqlite("claim"))
}
