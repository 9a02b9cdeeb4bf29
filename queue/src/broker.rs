//! Where jobs wait.
//!
//! What each backend promises:
//!
//! | promise | embedded |
//! |---|---|
//! | a confirmed publish survives `kill -9` of every process | yes |
//! | a confirmed publish survives a power failure | yes (`synchronous=FULL`, as far as the disk keeps its word) |
//! | a delivery dropped unsettled comes again | at once |
//! | the deliveries of a killed consumer come again | within 7 s |
//! | `redelivered` is exact | yes |
//! | order | by class, then first in, first out |
//! | in-flight deliveries are counted | yes |
//! | several processes at once | yes, on one machine (a local file system) |

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::{Class, Job, PoolName, Result};

pub(crate) mod embedded;

/// Opens the three roles on one backend. Opening is cheap; a process opens what it needs once.
#[async_trait]
pub trait Broker: Send + Sync {
    /// For who submits jobs.
    async fn producer(&self) -> Result<Arc<dyn Producer>>;

    /// For a worker of `pool`. Two consumers never hold the same delivery.
    async fn consumer(&self, pool: &PoolName) -> Result<Arc<dyn Consumer>>;

    /// For who reads backlogs.
    async fn gauge(&self) -> Result<Arc<dyn Gauge>>;
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

/// Reads a pool's backlog without taking anything.
#[async_trait]
pub trait Gauge: Send + Sync {
    /// How much of `pool` is in the broker. A pool that nobody has published to is empty, not an error.
    async fn depth(&self, pool: &PoolName) -> Result<Depth>;
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
    /// When the oldest waiting delivery was published.
    pub oldest_waiting_at: Option<Timestamp>,
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
    tag: Tag,
    holder: Option<Arc<dyn Holder>>,
}

/// Who takes back a delivery that was dropped.
pub(crate) trait Holder: Send + Sync + std::fmt::Debug {
    /// Called from a destructor: must not block.
    fn give_back(self: Arc<Self>, tag: Tag);
}

/// The broker's own name for a delivery: a message, and which delivery of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) message: i64,
    pub(crate) delivery: i64,
}

impl Delivery {
    pub(crate) fn new(job: Job, redelivered: bool, tag: Tag, holder: Arc<dyn Holder>) -> Self {
        Self { job, redelivered, tag, holder: Some(holder) }
    }

    /// The broker's own name for it; from here on dropping it does nothing.
    pub(crate) fn into_tag(mut self) -> Tag {
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
