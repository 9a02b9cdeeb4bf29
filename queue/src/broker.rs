//! Where jobs wait.
//!
//! What each backend promises:
//!
//! | promise | embedded | kafka | rabbitmq | redis |
//! |---|---|---|---|---|
//! | a confirmed publish survives `kill -9` of every process | yes | yes | yes | yes |
//! | a confirmed publish survives a power failure | yes (`synchronous=FULL`, as far as the disk keeps its word) | as far as the topic's replicas do (`acks=all`, `min.insync.replicas`) | yes (quorum queues confirm what a majority has on disk) | with `appendfsync always`; else up to a second is lost |
//! | a confirmed publish survives the loss of the server | no | as far as the topic's replicas do | if it has replicas | not surely: replicas follow a moment later |
//! | a confirmed publish stays until it is settled | yes | for as long as the topic's `retention.ms` | yes | yes, with `noeviction` |
//! | what is settled stays settled | yes | until the group has had no consumer for the servers' `offsets.retention.minutes`, 7 days by default: keep `retention.ms` no longer | yes | yes |
//! | a delivery dropped unsettled comes again | at once | at once, to the same consumer | at once | at once |
//! | the deliveries of a killed consumer come again | within 7 s | within 8 s (`session.timeout.ms`); with `group.protocol=consumer` as the servers say (`group.consumer.session.timeout.ms`, 45 s by default) | at once; within 15 s of a machine that vanished | within 9 s |
//! | a delivery held for long comes again | no | no | after the server's `consumer_timeout`, 30 minutes by default | no |
//! | `redelivered` is exact | yes | yes, but what a killed consumer was about to hand out under load counts as handed out | no: now and then true of one that nobody has seen | yes, but set where an answer was lost on its way |
//! | order | by class, then first in, first out | by class, then first in, first out, both among the partitions of one consumer | by class, then first in, first out | by class, then what was given back, then first in, first out |
//! | in-flight deliveries are counted | yes | yes, up to 100 ms late under load; a killed consumer's until another has its partitions | no | yes |
//! | the oldest waiting delivery is known | yes | no | no | yes, but of what was given back, the one that was given back first |
//! | what waits is always counted | yes | yes | a quorum queue without a leader counts as empty; where more than 128 queues are not there, one that is made counts some readings later | yes |
//! | any consumer can take what waits | yes | the one that has its partition: `max_consumers` says how many can work | yes | yes |
//! | while a consumer comes, leaves or is killed, the others | go on | go on with the partitions they have, but one that comes may have none until the time of one that was killed is up; with `group.protocol=consumer` nobody waits for that | go on | go on |
//! | what is needed | nothing | Kafka | RabbitMQ, 3.10 at least | Redis or Valkey, 7.0 at least, `maxmemory-policy noeviction` |
//! | several processes at once | yes, on one machine (a local file system) | yes | yes | yes |

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::event::Unreadable;
use crate::{Class, Job, JobRecord, Origin, PoolExpectation, PoolName, Result, Risk};

/// Opens the three roles on one backend. Opening is cheap; a process opens what it needs once.
#[async_trait]
pub trait Broker: Send + Sync {
    /// For who submits jobs.
    async fn producer(&self) -> Result<Arc<dyn Producer>>;

    /// For a worker of `pool`. Two consumers never hold the same delivery.
    async fn consumer(&self, pool: &PoolName) -> Result<Arc<dyn Consumer>>;

    /// For who reads backlogs.
    async fn gauge(&self) -> Result<Arc<dyn Gauge>>;

    /// For a worker of `pool`, to tell whoever listens how its jobs ended. `None`: the pool's [`crate::Route`] names no
    /// place to tell it.
    async fn announcer(&self, pool: &PoolName) -> Result<Option<Arc<dyn Announcer>>>;

    /// What about this broker, as it is set up now, may lose or delay the jobs of these pools. Changes nothing, and
    /// makes no queue or topic. An unreachable server is an error like that of any call.
    async fn risks(&self, pools: &[PoolExpectation]) -> Result<Vec<Risk>>;
}

/// Puts jobs where workers find them.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Publishes all of `jobs`, in order, and returns when the broker has confirmed that it will keep every one.
    ///
    /// After an error any part of them may have been published: publish them again. A job published twice is
    /// delivered twice; the ledger makes its effect happen once.
    async fn publish(&self, jobs: &[Job]) -> Result<()>;
}

/// Takes jobs of one pool and settles them.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// Waits until something is there, then returns 1 to `max` deliveries, the most urgent class first.
    ///
    /// `max` is at least 1. It may be called again while deliveries are unsettled, and its future may be dropped:
    /// what it had taken comes again.
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>>;

    /// Settles deliveries of this consumer in one round trip.
    ///
    /// A delivery that this consumer no longer holds, because the broker gave it to another, is passed over: nothing
    /// of the other holder's is touched. After an error any part may come again.
    async fn settle(&self, deliveries: Vec<(Delivery, Settlement)>) -> Result<()>;
}

/// Tells how jobs ended.
#[async_trait]
pub trait Announcer: Send + Sync {
    /// Publishes an event for each ending, and returns when the broker has confirmed that it will keep every one.
    ///
    /// After an error any part of them may have been published: announce them again. An ending announced twice is the
    /// same event twice: whoever listens knows it by its `source` and `id`.
    async fn announce(&self, endings: &[Ending]) -> Result<()>;
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// The record of a job that has ended, with its output.
    pub record: JobRecord,
    /// The event that asked for the job.
    pub origin: Option<Origin>,
    /// The W3C trace context it belongs to.
    pub trace_parent: Option<String>,
}

/// Reads the backlogs of pools without taking anything.
#[async_trait]
pub trait Gauge: Send + Sync {
    /// How much of each pool is in the broker; one answer per pool, in order. A pool that nobody has published to is
    /// empty, not an error; one that cannot be read keeps no other from being read, but for Kafka, where a partition that has
    /// lost its leader fails the reading of all of them.
    ///
    /// Costs few round trips, however many pools there are: one reading of all is far cheaper than one of each.
    async fn depths(&self, pools: &[PoolName]) -> Vec<Result<Depth>>;
}

/// The answers of a gauge that could read no pool, or all of them.
pub fn same_for_all(pools: &[PoolName], read: Result<Vec<Result<Depth>>>) -> Vec<Result<Depth>> {
    read.unwrap_or_else(|error| pools.iter().map(|_| Err(error.duplicate())).collect())
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// It has been dealt with; the broker forgets it.
    Done,
    /// It has not; the broker delivers it again, to anybody, before what came after it.
    Again,
}

/// How much of a pool is in the broker, in deliveries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Depth {
    /// Nobody holds them, by class (in the order of [`Class::ALL`]).
    pub waiting_by_class: [u64; 3],
    /// Handed to a consumer and not settled yet. `None` where the broker cannot tell.
    pub in_flight: Option<u64>,
    /// When the oldest waiting delivery was published. `None` where nothing waits or the broker cannot tell.
    pub oldest_waiting_at: Option<Timestamp>,
    /// More consumers than this would find nothing to take. `None`: any number can work.
    pub max_consumers: Option<u64>,
}

impl Depth {
    /// Nobody holds them, over all classes.
    pub fn waiting(&self) -> u64 {
        self.waiting_by_class.iter().sum()
    }

    /// Nobody holds them, of one class.
    pub fn waiting_of(&self, class: Class) -> u64 {
        self.waiting_by_class[class as usize]
    }
}

/// A job in a worker's hands, to be settled exactly once by its [`Consumer`]. Dropped unsettled, it comes again.
#[derive(Debug)]
pub struct Delivery {
    /// The job.
    pub job: Job,
    /// The job may have been handed out before: its former holder gave it back, or the broker gave up on them.
    pub redelivered: bool,
    /// Why the message is not a job. Then `job` only stands for it: it holds the bytes as they came, has a single
    /// attempt, and is to be recorded as dead with this reason.
    pub unreadable: Option<String>,
    tag: DeliveryTag,
    holder: Option<Arc<dyn RequeueOnDrop>>,
}

/// Who takes back a delivery that was dropped.
pub trait RequeueOnDrop: Send + Sync + std::fmt::Debug {
    /// Called from a destructor: must not block.
    fn requeue(self: Arc<Self>, tag: DeliveryTag);
}

/// The broker's own name for a delivery: a message, and which delivery of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryTag {
    pub message: i64,
    pub delivery: i64,
}

impl Delivery {
    pub fn new(job: Job, redelivered: bool, tag: DeliveryTag, holder: Arc<dyn RequeueOnDrop>) -> Self {
        Self { job, redelivered, unreadable: None, tag, holder: Some(holder) }
    }

    /// A message that is no job; see [`Delivery::unreadable`].
    pub fn unreadable(
        job: Job,
        reason: &Unreadable,
        redelivered: bool,
        tag: DeliveryTag,
        holder: Arc<dyn RequeueOnDrop>,
    ) -> Self {
        let mut delivery = Self::new(job, redelivered, tag, holder);
        delivery.unreadable = Some(reason.to_string());
        delivery
    }

    /// The broker's own name for it; from here on dropping it does nothing.
    pub fn into_tag(mut self) -> DeliveryTag {
        self.holder = None;
        self.tag
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(holder) = self.holder.take() {
            holder.give_back(self.tag);
        }
    }
}
