//! Grace for leases after a time in which no process could renew them.

use std::time::Duration;

use rusqlite::Connection;

use crate::store::{Write, sqlite};
use queue::Result;
use queue::driver::milliseconds_of;

/// If no process has looked for due jobs for this time, the file or all processes were away.
const GAP: Duration = Duration::from_secs(5);

/// No lease expires for this time after a gap, so that the holders can renew.
const GRACE: Duration = Duration::from_secs(30);

/// One write a second is enough to notice a gap.
const RECORD_EVERY: Duration = Duration::from_secs(1);

/// The time before which no lease expires.
pub(super) fn grace_until(write: &Write<'_>) -> Result<i64> {
    let reading = sqlite("read the grace of leases");
    let mut select = write.prepare("SELECT looked_at, grace_until FROM upkeep")?;
    let (looked_at, until): (Option<i64>, i64) =
        select.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(&reading)?;
    let end = write.milliseconds_after(GRACE);
    if looked_at.is_some_and(|looked_at| write.now_milliseconds() - looked_at > milliseconds_of(GAP)) {
        write.prepare("UPDATE upkeep SET grace_until = ?1")?.execute([end]).map_err(&reading)?;
        return Ok(end);
    }
    // A time beyond the grace means that the clock was set back.
    Ok(if until <= end { until } else { 0 })
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
