//! Grace for leases after a time in which no process could renew them.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::{rows, submit};
use crate::store::{Write, sqlite};
use queue::Result;
use queue::driver::milliseconds_of;
use queue::ledger::JobState;

/// If no process has looked for due jobs or asked for the upkeep for this time, the file or all processes were away.
const GAP: Duration = Duration::from_secs(3);

/// One write a second is enough to notice a gap.
const RECORD_EVERY: Duration = Duration::from_secs(1);

/// The end of the last gap. A lease gets its whole length from then on, so that its holder can renew it.
pub(super) fn end_of_gap(write: &Write<'_>) -> Result<Option<i64>> {
    let reading = sqlite("read the time of the last upkeep");
    let now = write.now_milliseconds();
    let mut select = write.prepare("SELECT looked_at, resumed_at FROM upkeep")?;
    let (looked_at, resumed_at): (Option<i64>, Option<i64>) =
        select.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(&reading)?;
    if looked_at.is_some_and(|looked_at| now - looked_at > milliseconds_of(GAP)) {
        write.prepare("UPDATE upkeep SET looked_at = ?1, resumed_at = ?1")?.execute([now]).map_err(&reading)?;
        return Ok(Some(now));
    }
    if looked_at.is_some_and(|looked_at| looked_at - now > milliseconds_of(GAP)) {
        bring_forward(write, now)?;
        write.prepare("UPDATE upkeep SET looked_at = ?1")?.execute([now]).map_err(&reading)?;
    }
    // A time in the future means that the clock was set back.
    Ok(resumed_at.filter(|resumed_at| *resumed_at <= now))
}

/// The clock was set back. Brings the times forward that are too far away now: of retries, leases and unconfirmed
/// publications. The times of confirmed publications are hours away, and stay.
fn bring_forward(write: &Write<'_>, now: i64) -> Result<()> {
    tracing::warn!("the clock was set back; retries are due now, and leases have their whole length");
    let mut update = write.prepare(
        "UPDATE jobs SET due_at = min(due_at, ?1 + CASE state WHEN ?2 THEN lease WHEN ?3 THEN 0 ELSE ?4 END) \
         WHERE due_at > ?1 AND (state IN (?2, ?3) OR confirmed IS NOT fence)",
    )?;
    let (leased, retry) = (rows::code(JobState::Leased), rows::code(JobState::Retry));
    let row = params![now, leased, retry, milliseconds_of(submit::PUBLISH_TIMEOUT)];
    update.execute(row).map(drop).map_err(sqlite("follow a clock that was set back"))
}

/// Postpones the expiry of leases that could not be renewed in the last gap.
pub(super) fn postpone(write: &Write<'_>) -> Result<()> {
    let Some(resumed_at) = end_of_gap(write)? else { return Ok(()) };
    let mut update =
        write.prepare("UPDATE jobs SET due_at = ?1 + lease WHERE due_at <= ?2 AND state = ?3 AND ?1 + lease > ?2")?;
    let leased = params![resumed_at, write.now_milliseconds(), rows::code(JobState::Leased)];
    update.execute(leased).map(drop).map_err(sqlite("postpone the expiry of leases"))
}

/// Whether the last look was recorded too long ago.
pub(super) fn is_look_overdue(file: &Connection, now: i64) -> Result<bool> {
    let reading = sqlite("find due jobs");
    let mut select = file.prepare_cached("SELECT looked_at FROM upkeep").map_err(&reading)?;
    let looked_at: Option<i64> = select.query_row([], |row| row.get(0)).map_err(&reading)?;
    Ok(looked_at.is_none_or(|looked_at| (now - looked_at).abs() >= milliseconds_of(RECORD_EVERY)))
}

/// Records that a process looked for due jobs at `now`.
pub(crate) fn record_look(write: &Write<'_>, now: i64) -> Result<()> {
    let mut update = write.prepare("UPDATE upkeep SET looked_at = ?1")?;
    update.execute([now]).map(drop).map_err(sqlite("find due jobs"))
}
