//! Who is alive: consumers say so now and then, and bury those who have not for long.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::OptionalExtension;
use tokio::time::{MissedTickBehavior, interval};

use super::{Hold, lock};
use crate::store::{Bell, Durability, Write, sqlite};
use queue::Result;

/// How often a consumer says that it is alive, and how long after the last time it is taken for dead.
const BEAT_EVERY: Duration = Duration::from_secs(1);
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(5);

/// A beat is on time if so much is left before its consumer would be taken for dead. Consumers that were held up together
/// beat last at moments that lie up to [`BEAT_EVERY`] apart: where one has this left, none can have nothing left.
const ON_TIME: Duration = Duration::from_secs(2);

/// Adds a consumer; its number.
pub(super) fn register(write: &mut Write<'_>) -> Result<i64> {
    let alive_until = write.milliseconds_after(DEAD_AFTER);
    let mut insert = write.prepare("INSERT INTO consumers (alive_until) VALUES (?1)")?;
    insert.execute([alive_until]).map_err(sqlite("register a consumer"))?;
    Ok(write.last_insert_rowid())
}

/// Removes a consumer that goes by itself, and gives back what it held.
pub(super) fn leave(write: &mut Write<'_>, consumer: i64) -> Result<()> {
    free(write, "consumer = ?1", consumer)?;
    let mut delete = write.prepare("DELETE FROM consumers WHERE consumer = ?1")?;
    delete.execute([consumer]).map(drop).map_err(sqlite("leave"))
}

/// Says that a consumer is alive, settles what could not be settled before, and frees what the dead held.
pub(super) async fn beat(hold: Arc<Hold>) {
    let id = hold.id;
    let mut has_beaten = false;
    let mut ticks = interval(BEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let unsettled = std::mem::take(&mut *lock(&hold.unsettled));
        if !unsettled.is_empty() {
            hold.settle(unsettled, |_| ());
        }
        match hold.store.write(Durability::Process, move |write| beat_once(write, id, has_beaten)).await {
            Ok(()) => has_beaten = true,
            Err(error) => tracing::warn!(%error, "cannot say that this consumer is alive"),
        }
    }
}

/// One beat. `has_beaten`: it is not the consumer's first.
///
/// What kept this consumer from beating in time (a slow disk, a suspended machine) may have kept all others too, so only
/// one that kept time itself buries; the rest have until this one's next beat to say that they live.
pub(super) fn beat_once(write: &mut Write<'_>, consumer: i64, has_beaten: bool) -> Result<()> {
    let is_on_time = has_beaten && is_on_time(write, consumer)?;
    // Inserted again if others took it for dead: it holds nothing by now, and may go on.
    let sql = "INSERT INTO consumers (consumer, alive_until) VALUES (?1, ?2) \
               ON CONFLICT DO UPDATE SET alive_until = excluded.alive_until";
    write.prepare(sql)?.execute([consumer, write.milliseconds_after(DEAD_AFTER)]).map_err(sqlite("beat"))?;
    if is_on_time { bury(write) } else { Ok(()) }
}

/// Whether a consumer has not been silent for long.
fn is_on_time(write: &Write<'_>, consumer: i64) -> Result<bool> {
    let mut select = write.prepare("SELECT alive_until FROM consumers WHERE consumer = ?1")?;
    let alive_until = select.query_row([consumer], |row| row.get::<_, i64>(0)).optional().map_err(sqlite("beat"))?;
    Ok(alive_until.is_some_and(|until| until >= write.milliseconds_after(ON_TIME)))
}

/// Removes the consumers that have been silent for long, and frees what they held.
fn bury(write: &mut Write<'_>) -> Result<()> {
    let now = write.now_milliseconds();
    write.prepare("DELETE FROM consumers WHERE alive_until < ?1")?.execute([now]).map_err(sqlite("bury"))?;
    // Looked for at every beat: one that was taken for dead may have taken something before it vanished.
    let orphaned = free(write, "consumer NOT IN (SELECT consumer FROM consumers) AND ?1 = ?1", 0)?;
    if orphaned > 0 {
        tracing::warn!(orphaned, "a consumer vanished: its deliveries come again");
    }
    Ok(())
}

/// Makes the held messages that `condition` names available again.
pub(super) fn free(write: &mut Write<'_>, condition: &str, consumer: i64) -> Result<usize> {
    let sql = format!("UPDATE messages SET consumer = NULL WHERE consumer IS NOT NULL AND {condition}");
    let freed = write.prepare(&sql)?.execute([consumer]).map_err(sqlite("free deliveries"))?;
    if freed > 0 {
        write.ring(Bell::Published);
    }
    Ok(freed)
}
