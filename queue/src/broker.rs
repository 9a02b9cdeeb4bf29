//! The broker: where jobs wait until a worker receives them.
//!
//! The promises of each backend:
//!
//! | promise | embedded | kafka | rabbitmq | redis |
//! |---|---|---|---|---|
//! | a confirmed publish survives `kill -9` of every process | yes | yes | yes | yes |
//! | a confirmed publish survives a power failure | yes (`synchronous=FULL`, if the disk honours a sync) | as far as the topic's replicas do (`acks=all`, `min.insync.replicas`) | yes (quorum queues confirm what a majority has on disk) | with `appendfsync always`; else up to a second is lost |
//! | a confirmed publish survives the loss of the server | no | as far as the topic's replicas do | if it has replicas | not always: replication is asynchronous |
//! | a confirmed publish stays until it is acknowledged | yes | for as long as the topic's `retention.ms` | yes | yes, with `noeviction` |
//! | an acknowledged delivery is never delivered again | yes | until the group has had no consumer for the servers' `offsets.retention.minutes`, 7 days by default: set `retention.ms` no longer than that | yes | yes |
//! | a delivery dropped unsettled is delivered again | at once | at once, to the same consumer | at once | at once |
//! | the deliveries of a killed consumer are delivered again | within 7 s | within 8 s (`session.timeout.ms`); with `group.protocol=consumer` within the servers' `group.consumer.session.timeout.ms` (45 s by default) | at once; within 15 s if its machine disappeared | within 9 s |
//! | a delivery that stays unsettled for long is delivered again | no | no | after the server's `consumer_timeout`, 30 minutes by default | no |
//! | `redelivered` is exact | yes | yes, but under load a delivery that a killed consumer had fetched and not returned counts as delivered | no: sometimes true for a delivery that no consumer has received | yes, but also true where the answer of a receive was lost |
//! | order | by class, then first in, first out | by class, then first in, first out, both among the partitions of one consumer | by class, then first in, first out | by class, then requeued deliveries, then first in, first out |
//! | in-flight deliveries are counted | yes | yes, up to 100 ms late under load; those of a killed consumer until another one has its partitions | no | yes |
//! | the oldest waiting delivery is known | yes | no | no | yes, but among requeued deliveries the one that was requeued first |
//! | waiting deliveries are always counted | yes | yes | a quorum queue without a leader counts as empty; where more than 128 queues do not exist, a new one counts some readings later | yes |
//! | any consumer can receive any waiting delivery | yes | only the consumer of its partition: `max_consumers` is the number that can work | yes | yes |
//! | while a consumer joins, leaves or is killed, the others | continue | pause for up to 4 s when it joins, leaves or has timed out; a new one may wait until the session of a killed one has expired. With `group.protocol=consumer` they continue | continue | continue |
//! | requirements | none | Kafka | RabbitMQ 3.10 or later | Redis or Valkey 7.0 or later, `maxmemory-policy noeviction` |
//! | several processes at once | yes, on one machine (a local file system) | yes | yes | yes |

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::event::Unreadable;
use crate::{Class, Ending, Job, PoolExpectation, PoolName, Result, Risk, StoreId};

/// Opens the three roles on one backend. Opening is cheap; a process opens the roles that it needs once.
#[async_trait]
pub trait Broker: Send + Sync {
    /// For a gateway, and for upkeep.
    async fn producer(&self) -> Result<Arc<dyn Producer>>;

    /// For a worker of `pool`. Two consumers never hold the same delivery.
    async fn consumer(&self, pool: &PoolName) -> Result<Arc<dyn Consumer>>;

    /// For a scaler.
    async fn gauge(&self) -> Result<Arc<dyn Gauge>>;

    /// For a worker of `pool`: publishes how its jobs ended. `None`: the pool's [`crate::Route`] names no topic or
    /// queue for results.
    async fn announcer(&self, pool: &PoolName) -> Result<Option<Arc<dyn Announcer>>>;

    /// The settings of this broker that may lose or delay jobs of these pools. Changes nothing, and makes no queue or
    /// topic. An unreachable server is an error, as in any call.
    async fn risks(&self, pools: &[PoolExpectation]) -> Result<Vec<Risk>>;
}

/// Publishes jobs.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Publishes all of `jobs`, in order, and returns when the broker has confirmed every one.
    ///
    /// After an error some of them may have been published: publish all of them again. A job that is published twice is
    /// delivered twice; the ledger makes its effect happen once.
    async fn publish(&self, jobs: &[Job]) -> Result<()>;

    /// The store of the messages, if it can hold a ledger too.
    fn store(&self) -> Option<StoreId> {
        None
    }
}

/// Receives jobs of one pool and settles them.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// Waits until a delivery is there, then returns 1 to `max` deliveries, the most urgent class first.
    ///
    /// `max` is at least 1. It may be called again while deliveries are unsettled. The caller may drop its future:
    /// deliveries that it had fetched are delivered again.
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>>;

    /// Settles deliveries of this consumer in one round trip.
    ///
    /// If the broker has given a delivery to another consumer meanwhile, this skips it. The delivery of the other
    /// consumer does not change. After an error any of them may be delivered again.
    async fn settle(&self, deliveries: Vec<(Delivery, Settlement)>) -> Result<()>;
}

/// Publishes how jobs ended.
#[async_trait]
pub trait Announcer: Send + Sync {
    /// Publishes an event for each ending, and returns when the broker has confirmed every one.
    ///
    /// After an error some of them may have been published: announce all of them again. An ending that is announced
    /// twice is the same event twice, with the same `source` and `id`.
    async fn announce(&self, endings: &[Ending]) -> Result<()>;
}

/// Reads the backlogs of pools without taking anything.
#[async_trait]
pub trait Gauge: Send + Sync {
    /// The number of deliveries of each pool in the broker; one answer per pool, in order. A pool without any published
    /// job is empty, which is not an error. A pool that cannot be read does not affect the others. Kafka is an
    /// exception: a partition without a leader makes the reading of all pools fail.
    ///
    /// Costs few round trips for any number of pools. So one reading of all pools is far cheaper than one reading per
    /// pool.
    async fn depths(&self, pools: &[PoolName]) -> Vec<Result<Depth>>;
}

/// The answers of a gauge that reads all pools in one call: the same error for each pool if that call failed.
pub fn same_for_all(pools: &[PoolName], read: Result<Vec<Result<Depth>>>) -> Vec<Result<Depth>> {
    read.unwrap_or_else(|error| pools.iter().map(|_| Err(error.duplicate())).collect())
}

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Acknowledge it: the broker deletes it.
    Ack,
    /// Requeue it: the broker delivers it again, to any consumer, before deliveries that were published later.
    Requeue,
}

/// The number of deliveries of a pool in the broker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Depth {
    /// Deliveries that no consumer holds, by class (in the order of [`Class::ALL`]).
    pub waiting_by_class: [u64; 3],
    /// Deliveries that a consumer holds and has not settled. `None` if the broker does not count them.
    pub in_flight: Option<u64>,
    /// When the oldest waiting delivery was published. `None` if no delivery waits, or if the broker does not know the
    /// time.
    pub oldest_waiting_at: Option<Timestamp>,
    /// The number of consumers that can receive deliveries at the same time. Further consumers would be idle. `None`:
    /// no limit.
    pub max_consumers: Option<u64>,
}

impl Depth {
    /// Deliveries that no consumer holds, over all classes.
    pub fn waiting(&self) -> u64 {
        self.waiting_by_class.iter().sum()
    }

    /// Deliveries of one class that no consumer holds.
    pub fn waiting_of(&self, class: Class) -> u64 {
        self.waiting_by_class[class as usize]
    }
}

/// A job given to a worker, to be settled exactly once by its [`Consumer`]. Dropped unsettled, it is delivered again.
#[derive(Debug)]
pub struct Delivery {
    /// The job.
    pub job: Job,
    /// The job may have been delivered before: a consumer requeued it, or the broker considered that consumer dead.
    pub redelivered: bool,
    /// Why the message is not a job. Then `job` represents the message: it holds the unchanged bytes and has a single
    /// attempt. The worker records it as dead with this reason.
    pub unreadable: Option<String>,
    tag: DeliveryTag,
    consumer: Option<Arc<dyn RequeueOnDrop>>,
}

/// The consumer of a delivery: it requeues the delivery when that is dropped unsettled.
pub trait RequeueOnDrop: Send + Sync + std::fmt::Debug {
    /// Requeues the delivery. It is called from a destructor, so it must not block.
    fn requeue(self: Arc<Self>, tag: DeliveryTag);
}

/// The driver's identifier of a delivery: the message, and the number of the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryTag {
    /// Names the message.
    pub message: i64,
    /// Distinguishes this delivery of the message from others.
    pub delivery: i64,
}

impl Delivery {
    /// A delivery of `job` to `consumer`.
    pub fn new(job: Job, redelivered: bool, tag: DeliveryTag, consumer: Arc<dyn RequeueOnDrop>) -> Self {
        Self { job, redelivered, unreadable: None, tag, consumer: Some(consumer) }
    }

    /// A delivery of a message that is not a job, and the reason; see the field [`Delivery::unreadable`].
    pub fn unreadable(
        job: Job,
        reason: &Unreadable,
        redelivered: bool,
        tag: DeliveryTag,
        consumer: Arc<dyn RequeueOnDrop>,
    ) -> Self {
        let mut delivery = Self::new(job, redelivered, tag, consumer);
        delivery.unreadable = Some(reason.to_string());
        delivery
    }

    /// Its tag, with which the driver settles it. After this call, a drop does not requeue the delivery.
    pub fn into_tag(mut self) -> DeliveryTag {
        self.consumer = None;
        self.tag
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            consumer.requeue(self.tag);
        }
    }
}
