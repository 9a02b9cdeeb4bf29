//! The holder of the upkeep: one process at a time looks for due jobs and deletes old ones.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::grace;
use crate::store::{Write, sqlite};
use queue::Result;
use queue::driver::milliseconds_of;

/// Whether `holder` has the upkeep. `None`: a write must decide.
pub(super) fn has_upkeep(file: &Connection, holder: &str, lease: Duration, now: i64) -> Result<Option<bool>> {
    let lease = milliseconds_of(lease);
    if lease == 0 || grace::is_look_overdue(file, now)? {
        return Ok(None);
    }
    let (held_by, held_until) = current(file)?;
    // An end beyond a whole lease means that the clock was set back.
    let is_valid = held_until > now && held_until <= now.saturating_add(lease);
    Ok(match held_by.as_deref() == Some(holder) {
        true if is_valid && held_until - now > lease / 2 => Some(true),
        false if is_valid => Some(false),
        _ => None,
    })
}

/// Takes, keeps or gives up the upkeep. Returns whether `holder` has it.
pub(super) fn hold(write: &Write<'_>, holder: &str, lease: Duration) -> Result<bool> {
    let holding = sqlite("hold the upkeep");
    let now = write.now_milliseconds();
    if lease.is_zero() {
        let mut update = write.prepare("UPDATE upkeep SET holder = NULL, held_until = NULL WHERE holder = ?1")?;
        return update.execute([holder]).map(|_| false).map_err(&holding);
    }
    // A gap must be noticed before the look is recorded.
    grace::end_of_gap(write)?;
    grace::record_look(write, now)?;
    let mut update = write.prepare(
        "UPDATE upkeep SET holder = ?1, held_until = ?2 \
         WHERE holder IS NULL OR holder = ?1 OR held_until <= ?3 OR held_until > ?2",
    )?;
    let row = params![holder, write.milliseconds_after(lease), now];
    update.execute(row).map(|updated| updated > 0).map_err(&holding)
}

fn current(file: &Connection) -> Result<(Option<String>, i64)> {
    let reading = sqlite("hold the upkeep");
    let mut select = file.prepare_cached("SELECT holder, coalesce(held_until, 0) FROM upkeep").map_err(&reading)?;
    select.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(&reading)
}
