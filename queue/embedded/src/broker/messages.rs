//! The tables `messages` and `payloads`: publish, take, settle and requeue.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Params, Row, params};

use crate::store::{Change, Write, corrupt, read_body, read_origin, sqlite};
use queue::driver::{BodyColumns, DeliveryTag, Settlement, milliseconds_of, origin_column};
use queue::{Class, Input, Job, PoolName, Result};

/// The most bytes of the bodies that one call takes, except that a single message may have more. They are in memory at once,
/// and no other write of the process runs meanwhile.
const MAX_TAKEN_BYTES: i64 = 8 << 20;

/// A message that a consumer has taken.
pub(super) struct TakenMessage {
    pub(super) job: Job,
    pub(super) tag: DeliveryTag,
    pub(super) redelivered: bool,
}

/// Publishes jobs.
pub(crate) fn insert<'a>(write: &mut Write<'_>, jobs: impl IntoIterator<Item = &'a Job>) -> Result<()> {
    let publishing = sqlite("publish");
    let mut message = write.prepare("INSERT INTO messages (pool, class, published_at) VALUES (?1, ?2, ?3)")?;
    let mut payload = write.prepare(
        "INSERT INTO payloads (seq, job, created_at, deadline_at, max_attempts, retention, trace_parent, media_type, \
         body, blob, origin) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    for job in jobs {
        message.execute(params![job.pool.as_str(), job.class as i64, write.now_milliseconds()]).map_err(&publishing)?;
        let BodyColumns { body, blob } = BodyColumns::of(&job.input.body);
        payload
            .execute(params![
                write.last_insert_rowid(),
                job.id.as_str(),
                job.created_at.as_millisecond(),
                job.deadline_at.map(Timestamp::as_millisecond),
                job.max_attempts,
                milliseconds_of(job.retention),
                job.trace_parent,
                job.input.media_type,
                body,
                blob,
                origin_column(job.origin.as_ref()),
            ])
            .map_err(&publishing)?;
    }
    write.notify(Change::Published);
    Ok(())
}

/// Whether a message of the pool is waiting.
pub(super) fn is_waiting(file: &Connection, pool: &PoolName) -> Result<bool> {
    let reading = sqlite("receive");
    let mut waiting =
        file.prepare_cached("SELECT 1 FROM messages WHERE pool = ?1 AND consumer IS NULL LIMIT 1").map_err(&reading)?;
    waiting.exists([pool.as_str()]).map_err(&reading)
}

/// Takes up to `max` waiting messages for `consumer`, the most urgent first, and no more than [`MAX_TAKEN_BYTES`].
pub(super) fn take(write: &mut Write<'_>, pool: &PoolName, consumer: i64, max: usize) -> Result<Vec<TakenMessage>> {
    let receiving = sqlite("receive");
    let mut take = write.prepare(
        "UPDATE messages SET consumer = ?1, deliveries = deliveries + 1 WHERE seq IN (\
             SELECT seq FROM (\
                 SELECT seq, bytes, sum(bytes) OVER (ORDER BY class, seq ROWS UNBOUNDED PRECEDING) AS total FROM (\
                     SELECT class, seq, coalesce(length(body), 0) AS bytes FROM messages LEFT JOIN payloads USING (seq) \
                     WHERE pool = ?2 AND consumer IS NULL ORDER BY class, seq LIMIT ?3)) \
             WHERE total <= ?4 OR total = bytes) \
         RETURNING class, seq, deliveries",
    )?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let rows = take
        .query_map(params![consumer, pool.as_str(), limit, MAX_TAKEN_BYTES], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .map_err(&receiving)?;
    let mut taken: Vec<(i64, i64, i64)> = rows.collect::<rusqlite::Result<_>>().map_err(&receiving)?;
    // SQLite does not define the order of RETURNING.
    taken.sort_unstable();

    let mut payload = write.prepare(
        "SELECT job, created_at, deadline_at, max_attempts, retention, trace_parent, media_type, body, blob, \
         origin FROM payloads WHERE seq = ?1",
    )?;
    let mut messages = Vec::with_capacity(taken.len());
    for (class, message, delivery) in taken {
        let mut rows = payload.query([message]).map_err(&receiving)?;
        let Some(row) = rows.next().map_err(&receiving)? else {
            return Err(corrupt("a message without a payload", message));
        };
        let job = read_job(row, pool, class)?;
        messages.push(TakenMessage { job, tag: DeliveryTag { message, delivery }, redelivered: delivery > 1 });
    }
    Ok(messages)
}

fn read_job(row: &Row<'_>, pool: &PoolName, class: i64) -> Result<Job> {
    let reading = sqlite("receive");
    let id: String = row.get(0).map_err(&reading)?;
    let time = |milliseconds| Timestamp::from_millisecond(milliseconds).map_err(|_| corrupt("a time", milliseconds));
    Ok(Job {
        id: id.parse().map_err(|_| corrupt("a job id", &id))?,
        pool: pool.clone(),
        class: usize::try_from(class)
            .ok()
            .and_then(|class| Class::ALL.get(class).copied())
            .ok_or_else(|| corrupt("a class", class))?,
        created_at: time(row.get(1).map_err(&reading)?)?,
        deadline_at: row.get::<_, Option<i64>>(2).map_err(&reading)?.map(time).transpose()?,
        max_attempts: row.get(3).map_err(&reading)?,
        retention: Duration::from_millis(row.get(4).map_err(&reading)?),
        trace_parent: row.get(5).map_err(&reading)?,
        input: Input { media_type: row.get(6).map_err(&reading)?, body: read_body(row, 7)? },
        origin: read_origin(row, 9)?,
    })
}

/// Settles deliveries of `consumer`. Skips a delivery that the consumer no longer holds.
pub(super) fn settle(write: &mut Write<'_>, consumer: i64, settled: &[(DeliveryTag, Settlement)]) -> Result<()> {
    let settling = sqlite("settle");
    let mut acknowledge = write.prepare("DELETE FROM messages WHERE seq = ?1 AND consumer = ?2 AND deliveries = ?3")?;
    let mut payload = write.prepare("DELETE FROM payloads WHERE seq = ?1")?;
    let mut requeue =
        write.prepare("UPDATE messages SET consumer = NULL WHERE seq = ?1 AND consumer = ?2 AND deliveries = ?3")?;
    for (tag, settlement) in settled {
        let delivery = params![tag.message, consumer, tag.delivery];
        match settlement {
            Settlement::Ack => {
                if acknowledge.execute(delivery).map_err(&settling)? > 0 {
                    payload.execute([tag.message]).map_err(&settling)?;
                }
            }
            Settlement::Requeue => {
                if requeue.execute(delivery).map_err(&settling)? > 0 {
                    write.notify(Change::Published);
                }
            }
        }
    }
    Ok(())
}

/// Requeues all messages that `consumer` holds, and returns their number.
pub(super) fn requeue_of(write: &mut Write<'_>, consumer: i64) -> Result<usize> {
    requeue(write, "consumer = ?1", [consumer])
}

/// Requeues all messages whose consumer is not registered, and returns their number.
pub(super) fn requeue_of_unregistered(write: &mut Write<'_>) -> Result<usize> {
    requeue(write, "consumer NOT IN (SELECT consumer FROM consumers)", [])
}

/// Requeues all messages that are held, and returns their number.
#[cfg(any(test, feature = "fixture"))]
pub(super) fn requeue_of_all(write: &mut Write<'_>) -> Result<usize> {
    requeue(write, "true", [])
}

fn requeue(write: &mut Write<'_>, condition: &str, parameters: impl Params) -> Result<usize> {
    let sql = format!("UPDATE messages SET consumer = NULL WHERE consumer IS NOT NULL AND {condition}");
    let requeued = write.prepare(&sql)?.execute(parameters).map_err(sqlite("requeue deliveries"))?;
    if requeued > 0 {
        write.notify(Change::Published);
    }
    Ok(requeued)
}
