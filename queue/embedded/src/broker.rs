//! The broker in the data file.
//!
//! A consumer marks the messages it takes as its own and says now and then that it is alive. When it stops saying so,
//! any other consumer of the file that itself kept time frees what it held.

mod beat;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::store::{Bell, Durability, Store, Write, corrupt, read_body, read_origin, sqlite};
use queue::driver::milliseconds_of;
use queue::driver::{
    Announcer, Broker, Consumer, Delivery, DeliveryTag, Depth, Gauge, Producer, RequeueOnDrop, Settlement, same_for_all,
};
use queue::driver::{BodyColumns, origin_column};
use queue::{Class, Error, ErrorKind, Input, Job, PoolExpectation, PoolName, Result, Risk};

pub(crate) struct EmbeddedBroker {
    store: Store,
}

impl EmbeddedBroker {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(EmbeddedProducer { store: self.store.clone() }))
    }

    async fn consumer(&self, pool: &PoolName) -> Result<Arc<dyn Consumer>> {
        let id = self.store.write(Durability::Process, beat::register).await?;
        let hold = Arc::new(Hold { store: self.store.clone(), id, unsettled: Mutex::default() });
        let beating = tokio::spawn(beat::beat(Arc::clone(&hold)));
        Ok(Arc::new(EmbeddedConsumer { store: self.store.clone(), pool: pool.clone(), hold, beating }))
    }

    async fn gauge(&self) -> Result<Arc<dyn Gauge>> {
        Ok(Arc::new(EmbeddedGauge { store: self.store.clone() }))
    }

    async fn announcer(&self, _pool: &PoolName) -> Result<Option<Arc<dyn Announcer>>> {
        Ok(None)
    }

    async fn risks(&self, _pools: &[PoolExpectation]) -> Result<Vec<Risk>> {
        self.store.risks().await
    }
}

struct EmbeddedProducer {
    store: Store,
}

#[async_trait]
impl Producer for EmbeddedProducer {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        let jobs = jobs.to_vec();
        self.store.write(Durability::Power, move |write| insert_messages(write, &jobs)).await
    }
}

fn insert_messages(write: &mut Write<'_>, jobs: &[Job]) -> Result<()> {
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
    write.ring(Bell::Published);
    Ok(())
}

struct EmbeddedConsumer {
    store: Store,
    pool: PoolName,
    hold: Arc<Hold>,
    beating: JoinHandle<()>,
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        self.beating.abort();
        let id = self.hold.id;
        let leave = move |write: &mut Write<'_>| beat::leave(write, id);
        self.store.write_later(Durability::Process, leave, |left| {
            if let Err(error) = left {
                tracing::warn!(%error, "a consumer could not leave: it will be taken for dead");
            }
        });
    }
}

/// As if no consumer had said anything for long.
#[cfg(test)]
pub(crate) fn give_up_on_consumers(write: &mut Write<'_>) -> Result<()> {
    beat::free(write, "?1 = ?1", 0).map(drop)
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>> {
        let mut published = self.store.listen(Bell::Published);
        loop {
            // Looking costs no turn at the lock, and most of the time an idle consumer only looks.
            let pool = self.pool.clone();
            if self.store.read(move |file| is_waiting(file, &pool)).await? {
                let (pool, hold) = (self.pool.clone(), Arc::clone(&self.hold));
                let taken = self.store.write(Durability::Process, move |write| take(write, &pool, &hold, max)).await?;
                if !taken.is_empty() {
                    return Ok(taken);
                }
            }
            published.rung().await;
        }
    }

    async fn settle(&self, deliveries: Vec<(Delivery, Settlement)>) -> Result<()> {
        let settled: Vec<_> = deliveries.into_iter().map(|(delivery, how)| (delivery.into_tag(), how)).collect();
        let (reply, answer) = oneshot::channel();
        self.hold.settle(settled, move |result| drop(reply.send(result)));
        answer.await.map_err(|_| Error::new(ErrorKind::Unavailable, "cannot settle: the data file is closed"))?
    }
}

fn is_waiting(file: &rusqlite::Connection, pool: &PoolName) -> Result<bool> {
    let looking = sqlite("receive");
    let mut waiting =
        file.prepare_cached("SELECT 1 FROM messages WHERE pool = ?1 AND consumer IS NULL LIMIT 1").map_err(&looking)?;
    waiting.exists([pool.as_str()]).map_err(&looking)
}

fn take(write: &mut Write<'_>, pool: &PoolName, hold: &Arc<Hold>, max: usize) -> Result<Vec<Delivery>> {
    let receiving = sqlite("receive");
    let mut take = write.prepare(
        "UPDATE messages SET consumer = ?1, deliveries = deliveries + 1 WHERE seq IN \
         (SELECT seq FROM messages WHERE pool = ?2 AND consumer IS NULL ORDER BY class, seq LIMIT ?3) \
         RETURNING class, seq, deliveries",
    )?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let rows = take
        .query_map(params![hold.id, pool.as_str(), limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .map_err(&receiving)?;
    let mut taken: Vec<(i64, i64, i64)> = rows.collect::<rusqlite::Result<_>>().map_err(&receiving)?;
    // The order of RETURNING is not defined.
    taken.sort_unstable();

    let mut payload = write.prepare(
        "SELECT job, created_at, deadline_at, max_attempts, retention, trace_parent, media_type, body, blob, \
         origin FROM payloads WHERE seq = ?1",
    )?;
    let mut deliveries = Vec::with_capacity(taken.len());
    for (class, message, delivery) in taken {
        let mut rows = payload.query([message]).map_err(&receiving)?;
        let Some(row) = rows.next().map_err(&receiving)? else {
            return Err(corrupt("a message without a payload", message));
        };
        let job = read_job(row, pool, class)?;
        let tag = DeliveryTag { message, delivery };
        deliveries.push(Delivery::new(job, delivery > 1, tag, Arc::clone(hold) as Arc<dyn RequeueOnDrop>));
    }
    Ok(deliveries)
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

/// Settles what `consumer` still holds in the very delivery it means.
fn settle(write: &mut Write<'_>, consumer: i64, settled: &[(DeliveryTag, Settlement)]) -> Result<()> {
    let settling = sqlite("settle");
    let mut done = write.prepare("DELETE FROM messages WHERE seq = ?1 AND consumer = ?2 AND deliveries = ?3")?;
    let mut payload = write.prepare("DELETE FROM payloads WHERE seq = ?1")?;
    let mut again =
        write.prepare("UPDATE messages SET consumer = NULL WHERE seq = ?1 AND consumer = ?2 AND deliveries = ?3")?;
    for (tag, how) in settled {
        let held = params![tag.message, consumer, tag.delivery];
        match how {
            Settlement::Ack => {
                if done.execute(held).map_err(&settling)? > 0 {
                    payload.execute([tag.message]).map_err(&settling)?;
                }
            }
            Settlement::Requeue => {
                if again.execute(held).map_err(&settling)? > 0 {
                    write.ring(Bell::Published);
                }
            }
        }
    }
    Ok(())
}

/// What a consumer's deliveries know of it.
struct Hold {
    store: Store,
    id: i64,
    /// What the file had no room for, or did not take for another reason: said again with the next beat, or it would be
    /// held for as long as the consumer lives.
    unsettled: Mutex<Vec<(DeliveryTag, Settlement)>>,
}

impl Hold {
    fn settle(
        self: &Arc<Self>,
        settled: Vec<(DeliveryTag, Settlement)>,
        answered: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        let (hold, id, kept) = (Arc::clone(self), self.id, settled.clone());
        let work = move |write: &mut Write<'_>| settle(write, id, &settled);
        self.store.write_later(Durability::Process, work, move |result| {
            if let Err(error) = &result {
                tracing::warn!(%error, "cannot settle deliveries; trying again with the next beat");
                lock(&hold.unsettled).extend(kept);
            }
            answered(result);
        });
    }
}

impl RequeueOnDrop for Hold {
    fn requeue(self: Arc<Self>, tag: DeliveryTag) {
        self.settle(vec![(tag, Settlement::Requeue)], |_| ());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under it is a single call, so a panic cannot leave it half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold").field("consumer", &self.id).finish_non_exhaustive()
    }
}

struct EmbeddedGauge {
    store: Store,
}

#[async_trait]
impl Gauge for EmbeddedGauge {
    async fn depths(&self, pools: &[PoolName]) -> Vec<Result<Depth>> {
        let asked = pools.to_vec();
        same_for_all(pools, self.store.read(move |file| depths(file, &asked)).await)
    }
}

/// The depths of pools, all of one moment.
fn depths(file: &Connection, pools: &[PoolName]) -> Result<Vec<Result<Depth>>> {
    let reading = sqlite("read the depths");
    // Without min() beside it, and class by class, a count reads no more than its index.
    let mut count = file
        .prepare_cached(
            "SELECT (SELECT count(*) FROM messages WHERE pool = ?1 AND class = 0 AND consumer IS NULL), \
             (SELECT count(*) FROM messages WHERE pool = ?1 AND class = 1 AND consumer IS NULL), \
             (SELECT count(*) FROM messages WHERE pool = ?1 AND class = 2 AND consumer IS NULL), \
             (SELECT count(*) FROM messages WHERE pool = ?1 AND consumer IS NOT NULL)",
        )
        .map_err(&reading)?;
    let oldest = "SELECT published_at FROM messages WHERE pool = ?1 AND class = ?2 AND consumer IS NULL \
                  ORDER BY seq LIMIT 1";
    let mut oldest = file.prepare_cached(oldest).map_err(&reading)?;
    let mut depth_of = |pool: &PoolName| {
        let read = |row: &Row<'_>| {
            let waiting_by_class = [row.get(0)?, row.get(1)?, row.get(2)?];
            Ok(Depth { waiting_by_class, in_flight: Some(row.get(3)?), ..Depth::default() })
        };
        let mut depth = count.query_row([pool.as_str()], read).map_err(&reading)?;
        for (class, _) in depth.waiting_by_class.iter().enumerate().filter(|(_, waiting)| **waiting > 0) {
            let at: Option<i64> =
                oldest.query_row((pool.as_str(), class), |row| row.get(0)).optional().map_err(&reading)?;
            let at = at.and_then(|at| Timestamp::from_millisecond(at).ok());
            depth.oldest_waiting_at = [depth.oldest_waiting_at, at].into_iter().flatten().min();
        }
        Ok(Ok(depth))
    };
    pools.iter().map(&mut depth_of).collect()
}
