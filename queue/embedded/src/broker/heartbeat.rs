//! Consumer liveness: each consumer sends a heartbeat, and requeues the deliveries of consumers whose heartbeat has
//! expired.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::OptionalExtension;
use tokio::time::{MissedTickBehavior, interval};

use super::messages;
use super::session::ConsumerSession;
use crate::store::{Durability, Write, sqlite};
use queue::Result;

/// How often a consumer sends a heartbeat, and how long a heartbeat is valid.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
pub(super) const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(5);

/// A heartbeat is on time if the previous one is still valid for at least this time. Consumers that were delayed together
/// sent their last heartbeats within [`HEARTBEAT_EVERY`] of each other. So while one of them is on time, none of the
/// others has expired.
const ON_TIME: Duration = Duration::from_secs(2);

/// Adds a consumer, and returns its number.
pub(super) fn register(write: &mut Write<'_>) -> Result<i64> {
    let alive_until = write.milliseconds_after(HEARTBEAT_TIMEOUT);
    let mut insert = write.prepare("INSERT INTO consumers (alive_until) VALUES (?1)")?;
    insert.execute([alive_until]).map_err(sqlite("register a consumer"))?;
    Ok(write.last_insert_rowid())
}

/// Removes a consumer that ends, and requeues its deliveries.
pub(super) fn leave(write: &mut Write<'_>, consumer: i64) -> Result<()> {
    messages::requeue_of(write, consumer)?;
    let mut delete = write.prepare("DELETE FROM consumers WHERE consumer = ?1")?;
    delete.execute([consumer]).map(drop).map_err(sqlite("leave"))
}

/// Sends the heartbeats of a consumer and repeats its failed settlements. Never returns.
pub(super) async fn send_heartbeats(session: Arc<ConsumerSession>) {
    let id = session.id;
    let mut is_first = true;
    let mut ticks = interval(HEARTBEAT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        session.settle_failed();
        match session.store.write(Durability::Process, move |write| send(write, id, is_first)).await {
            Ok(()) => is_first = false,
            Err(error) => tracing::warn!(%error, "a consumer's heartbeat failed"),
        }
        // After a delay, the timer would send the missed heartbeat at once. It would be on time, before other consumers
        // had the time to send theirs.
        ticks.reset();
    }
}

/// Sends one heartbeat. Reclaims the deliveries of expired consumers if this consumer's own heartbeat is on time.
///
/// A slow disk or a suspended machine may have delayed the heartbeats of all consumers. So a consumer that is late
/// reclaims nothing. The other consumers can send their heartbeats before its next one.
pub(super) fn send(write: &mut Write<'_>, consumer: i64, is_first: bool) -> Result<()> {
    let is_on_time = !is_first && is_on_time(write, consumer)?;
    // The consumer is inserted again if another consumer has removed it as expired. It then holds no messages, and may
    // continue.
    let sql = "INSERT INTO consumers (consumer, alive_until) VALUES (?1, ?2) \
               ON CONFLICT DO UPDATE SET alive_until = excluded.alive_until";
    let row = [consumer, write.milliseconds_after(HEARTBEAT_TIMEOUT)];
    write.prepare(sql)?.execute(row).map_err(sqlite("send a heartbeat"))?;
    if is_on_time { reclaim_expired(write) } else { Ok(()) }
}

fn is_on_time(write: &Write<'_>, consumer: i64) -> Result<bool> {
    let reading = sqlite("send a heartbeat");
    let mut select = write.prepare("SELECT alive_until FROM consumers WHERE consumer = ?1")?;
    let alive_until = select.query_row([consumer], |row| row.get::<_, i64>(0)).optional().map_err(reading)?;
    Ok(alive_until.is_some_and(|until| until >= write.milliseconds_after(ON_TIME)))
}

/// Removes consumers whose heartbeat has expired, and requeues their deliveries.
fn reclaim_expired(write: &mut Write<'_>) -> Result<()> {
    let now = write.now_milliseconds();
    let deleting = sqlite("remove expired consumers");
    write.prepare("DELETE FROM consumers WHERE alive_until < ?1")?.execute([now]).map_err(deleting)?;
    // Every heartbeat searches for such messages, because a removed consumer may have taken messages before it ended.
    let requeued = messages::requeue_of_unregistered(write)?;
    if requeued > 0 {
        tracing::warn!(requeued, "a consumer disappeared; its deliveries are requeued");
    }
    Ok(())
}
