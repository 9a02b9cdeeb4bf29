//! The broker in Redis streams.
//!
//! A pool has two streams per class. Jobs are published to `stream:POOL:CLASS`; an outside producer may use `XADD`. A
//! job that is requeued, or whose consumer disappeared, moves to `returned:POOL:CLASS`. Both streams are read in one
//! consumer group, requeued jobs first. So both streams wake a waiting consumer, and a requeued job is delivered before
//! later ones.
//!
//! Requeueing moves an entry in one step and gives it a new id. The consumer that held it has nothing left to settle, so a
//! late settlement cannot touch the entry of another consumer.
//!
//! Acknowledging an entry deletes it from its stream in the same step. So every entry of a stream is either waiting or
//! held, and counting is cheap. Streams are never trimmed: `MAXLEN` would drop waiting jobs.
//!
//! Each consumer sends heartbeats to a sorted set. Every consumer reclaims the entries of those whose heartbeat has
//! expired. `XAUTOCLAIM` is not used, because it depends on the time of a delivery, not on the consumer that holds it.
//! A long batch would need a heartbeat per entry, and waiting entries could be delivered before reclaimed ones.

pub(crate) mod entry;
mod gauge;
mod session;
pub(crate) mod streams;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use self::gauge::RedisGauge;
use self::session::{ConsumerSession, Request};
use self::streams::Scripts;
use crate::connection::Redis;
use queue::driver::{Announcer, Broker, Consumer, Delivery, DeliveryTag, Gauge, Producer, RequeueOnDrop, Settlement};
use queue::{Body, Error, ErrorKind, Job, PoolExpectation, PoolName, Result, Risk, StoreId};

/// The most jobs that are published in one round trip, and about the most bytes of their inputs.
const MAX_PUBLISH_JOBS: usize = 512;
const MAX_PUBLISH_BYTES: usize = 4 << 20;

pub(crate) struct RedisBroker {
    redis: Redis,
    scripts: Arc<Scripts>,
}

impl RedisBroker {
    pub(crate) fn new(redis: Redis) -> Self {
        Self { redis, scripts: Arc::new(Scripts::new()) }
    }
}

#[async_trait]
impl Broker for RedisBroker {
    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(RedisProducer { redis: self.redis.clone() }))
    }

    async fn consumer(&self, pool: &PoolName) -> Result<Arc<dyn Consumer>> {
        let (requests, inbox) = mpsc::unbounded_channel();
        let requeue_on_drop = Arc::new(SessionHandle { requests: requests.downgrade() });
        let session = ConsumerSession::new(&self.redis, pool, &self.scripts, requeue_on_drop);
        tokio::spawn(session.run(inbox));
        Ok(Arc::new(RedisConsumer { requests }))
    }

    async fn gauge(&self) -> Result<Arc<dyn Gauge>> {
        Ok(Arc::new(RedisGauge::new(&self.redis)))
    }

    async fn announcer(&self, _pool: &PoolName) -> Result<Option<Arc<dyn Announcer>>> {
        Ok(None)
    }

    async fn risks(&self, _pools: &[PoolExpectation]) -> Result<Vec<Risk>> {
        self.redis.risks().await
    }
}

struct RedisProducer {
    redis: Redis,
}

#[async_trait]
impl Producer for RedisProducer {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        let mut left = jobs.iter().peekable();
        while left.peek().is_some() {
            let (mut pipeline, mut bytes) = (redis::pipe(), 0);
            while bytes < MAX_PUBLISH_BYTES && pipeline.len() < MAX_PUBLISH_JOBS {
                let Some(job) = left.next() else { break };
                if let Body::Inline(body) = &job.input.body {
                    bytes += body.len();
                }
                let key = streams::published(&self.redis, &job.pool, job.class);
                pipeline.add_command(entry::add(&key, job)).ignore();
            }
            self.redis.pipeline::<()>("publish", &pipeline).await?;
        }
        Ok(())
    }

    fn store(&self) -> Option<StoreId> {
        Some(self.redis.id())
    }
}

/// Sends requests to its [`ConsumerSession`], which ends when this is dropped.
struct RedisConsumer {
    requests: mpsc::UnboundedSender<Request>,
}

#[async_trait]
impl Consumer for RedisConsumer {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>> {
        self.request(|reply| Request::Receive { max, reply }).await
    }

    async fn settle(&self, deliveries: Vec<(Delivery, Settlement)>) -> Result<()> {
        let settled = deliveries.into_iter().map(|(delivery, settlement)| (delivery.into_tag(), settlement)).collect();
        self.request(|reply| Request::Settle { settled, reply }).await
    }
}

impl RedisConsumer {
    async fn request<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        let ended = || Error::new(ErrorKind::Ended, "redis: the consumer's task has ended, and cannot receive again");
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// Requeues a dropped delivery, as long as its consumer exists.
#[derive(Debug)]
struct SessionHandle {
    requests: mpsc::WeakUnboundedSender<Request>,
}

impl RequeueOnDrop for SessionHandle {
    fn requeue(self: Arc<Self>, tag: DeliveryTag) {
        if let Some(requests) = self.requests.upgrade() {
            // A session that has ended has requeued all its deliveries.
            let _ = requests.send(Request::Requeue(tag));
        }
    }
}

/// Treats every consumer of the pool as if its heartbeat had expired.
#[cfg(test)]
pub(crate) async fn expire_consumers(redis: &Redis, pool: &PoolName) -> Result<()> {
    let (streams, scripts) = (streams::Streams::of(redis, pool), Scripts::new());
    let none = std::time::Duration::ZERO;
    while session::reclaim_expired(redis, &streams, &scripts, none, none).await? >= session::MAX_RECLAIMED_ENTRIES {}
    Ok(())
}
