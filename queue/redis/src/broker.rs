//! The broker in Redis streams.
//!
//! A pool has two streams per class: `stream:POOL:CLASS`, where jobs are published (by an outside producer too, with
//! `XADD`), and `returned:POOL:CLASS`, where they go when they are given back or their consumer dies. Both are read in one
//! consumer group, what was given back first; so a waiting consumer is woken by either, and what comes again comes before
//! later ones. Giving back moves the entry in one step, under a new id: of an entry's former holder nothing is left that
//! could be settled, so no stale settle can touch what another holds.
//!
//! What is done is deleted from its stream in the step that acknowledges it. So what is in a stream waits or is held, and
//! counting is free. Nothing is ever trimmed: `MAXLEN` would drop jobs that wait.
//!
//! A consumer that is silent is dead: each says in a sorted set that it is alive, and any gives back what the dead hold.
//! `XAUTOCLAIM` does not serve for that: it asks how long ago an entry was delivered rather than who holds it, so a long
//! batch would need a beat per entry, and what it finds would not come before what waits.

mod entry;
mod gauge;
mod keeper;
mod streams;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use self::gauge::RedisGauge;
use self::keeper::{Keeper, Message};
use self::streams::Scripts;
use super::{Announcer, Broker, Consumer, Delivery, DeliveryTag, Gauge, Producer, RequeueOnDrop, Settlement};
use crate::connection::Redis;
use queue::{Body, Error, ErrorKind, Job, PoolExpectation, PoolName, Result, Risk};

/// How much is published in one round trip: so many jobs, or so many bytes if they are big.
const MOST_JOBS: usize = 512;
const MOST_BYTES: usize = 4 << 20;

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
        let (inbox, messages) = mpsc::unbounded_channel();
        let holder = Arc::new(ConsumerOf { inbox: inbox.downgrade() });
        let keeper = Keeper::new(&self.redis, pool, &self.scripts, holder);
        tokio::spawn(keeper.run(messages));
        Ok(Arc::new(RedisConsumer { inbox }))
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
            while bytes < MOST_BYTES && pipeline.len() < MOST_JOBS {
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
}

/// Speaks for its [`Keeper`], which ends with it.
struct RedisConsumer {
    inbox: mpsc::UnboundedSender<Message>,
}

#[async_trait]
impl Consumer for RedisConsumer {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>> {
        self.ask(|reply| Message::Receive { max, reply }).await
    }

    async fn settle(&self, deliveries: Vec<(Delivery, Settlement)>) -> Result<()> {
        let settled = deliveries.into_iter().map(|(delivery, how)| (delivery.into_tag(), how)).collect();
        self.ask(|reply| Message::Settle { settled, reply }).await
    }
}

impl RedisConsumer {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<Result<T>>) -> Message) -> Result<T> {
        let gone = || Error::new(ErrorKind::Unavailable, "redis: the consumer's task has ended");
        let (reply, answer) = oneshot::channel();
        self.inbox.send(question(reply)).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Gives a dropped delivery back, while its consumer is there.
#[derive(Debug)]
struct ConsumerOf {
    inbox: mpsc::WeakUnboundedSender<Message>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}

impl RequeueOnDrop for ConsumerOf {
    fn requeue(self: Arc<Self>, tag: DeliveryTag) {
        if let Some(inbox) = self.inbox.upgrade() {
            // Who is leaving gives everything back.
            let _ = inbox.send(Message::GiveBack(tag));
        }
    }
}

/// As if no consumer of the pool had said anything for long.
#[cfg(test)]
pub(crate) async fn give_up_on_consumers(redis: &Redis, pool: &PoolName) -> Result<()> {
    let (streams, scripts) = (streams::Streams::of(redis, pool), Scripts::new());
    let mut forget = redis::cmd("DEL");
    forget.arg(&streams.keys[streams::COUNT..]);
    redis.run::<()>("forget who lives", &forget).await?;
    let none = std::time::Duration::ZERO;
    while keeper::sweep(redis, &streams, &scripts, none, none).await? >= keeper::SWEEP_ENTRIES {}
    Ok(())
}
