//! Jobs in Kafka: a topic per pool and class, a group of consumers per pool.
//!
//! A record stays in its topic after its job has ended. Only the group's committed offset moves. So the consumer of
//! each partition tracks the records that it has delivered (`tracker`). It commits the offset before which all
//! records are acknowledged. It adds a text that lists the open records after this offset (`mark`). Deliveries can
//! therefore be settled in any order:
//!
//! - no acknowledged job is delivered again,
//! - the gauge can count waiting jobs and deliveries apart,
//! - a job that was delivered before is known as redelivered.
//!
//! A delivery is committed in a mark before the worker gets it. So a batch needs two commits: this one, and the one
//! that settles it. Under load one commit does both.
//!
//! Each partition is fetched ahead into a short queue of its own. So the most urgent class can be taken first, and a
//! busy worker stops the fetching without pausing partitions. Pausing would discard the queues, and fetch them again
//! later.
//!
//! The servers delete a job that waits longer than the topic's `retention.ms`. Give the topics of slow pools a
//! retention that is longer than the longest wait. But the retention must not be longer than the servers'
//! `offsets.retention.minutes`. When a pool has had no workers for that time, the servers delete its offsets. Jobs that
//! are still in its topics then run again.

use std::sync::Arc;

use async_trait::async_trait;

use queue::{Announcer, Broker, Consumer, Gauge, PoolExpectation, PoolName, Producer, Result, Risk, Routes};

mod admin;
mod announcer;
mod assigned;
mod blocking;
mod cluster;
mod command;
mod commits;
mod committer;
mod consumer;
mod context;
mod error;
#[cfg(test)]
mod fixture;
mod gauge;
mod headers;
mod mark;
mod member;
mod membership;
mod partition;
mod producer;
mod publisher;
mod record;
mod risks;
#[cfg(test)]
mod tests;
mod tracker;
mod unsettled;
mod url;

pub use self::url::KafkaUrl;
use announcer::KafkaAnnouncer;
use cluster::Cluster;
use consumer::KafkaConsumer;
use gauge::KafkaGauge;
use producer::KafkaProducer;
use publisher::Publisher;

/// The broker that a [`KafkaUrl`] names.
pub struct KafkaBroker {
    cluster: Arc<Cluster>,
    #[cfg(test)]
    members: parking_lot::Mutex<Vec<crossbeam_channel::Sender<command::Command>>>,
}

impl KafkaBroker {
    /// Opens the broker. It connects when the first call needs it.
    pub fn open(url: &KafkaUrl, routes: &Routes) -> Self {
        Self {
            cluster: Arc::new(Cluster::new(url, routes)),
            #[cfg(test)]
            members: parking_lot::Mutex::default(),
        }
    }

    /// Ends its consumers as if they were killed.
    #[cfg(test)]
    pub(crate) fn kill_consumers(&self) {
        for member in self.members.lock().drain(..) {
            drop(member.send(command::Command::Kill));
        }
    }

    /// The number of its consumers that have not left the group.
    #[cfg(test)]
    pub(crate) fn member_count(&self) -> usize {
        self.members.lock().iter().filter(|member| member.send(command::Command::Wake).is_ok()).count()
    }

    /// Causes this event for all of its consumers.
    #[cfg(test)]
    pub(crate) async fn inject(&self, event: command::InjectedEvent) {
        let members = self.members.lock().clone();
        for member in members {
            let (reply, answer) = tokio::sync::oneshot::channel();
            // A consumer that has left the group has no thread any more.
            if member.send(command::Command::Inject(event, reply)).is_ok() {
                drop(answer.await);
            }
        }
    }
}

#[async_trait]
impl Broker for KafkaBroker {
    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(KafkaProducer { publisher: Publisher::open(Arc::clone(&self.cluster))? }))
    }

    async fn consumer(&self, pool: &PoolName) -> Result<Arc<dyn Consumer>> {
        let consumer = KafkaConsumer::join(Arc::clone(&self.cluster), pool).await?;
        #[cfg(test)]
        self.members.lock().push(consumer.commands());
        Ok(Arc::new(consumer))
    }

    async fn gauge(&self) -> Result<Arc<dyn Gauge>> {
        Ok(Arc::new(KafkaGauge::new(Arc::clone(&self.cluster))))
    }

    async fn announcer(&self, pool: &PoolName) -> Result<Option<Arc<dyn Announcer>>> {
        let Some(topic) = self.cluster.routes.results_to(pool) else { return Ok(None) };
        let topic = topic.to_owned();
        Ok(Some(Arc::new(KafkaAnnouncer { publisher: Publisher::open(Arc::clone(&self.cluster))?, topic })))
    }

    async fn risks(&self, pools: &[PoolExpectation]) -> Result<Vec<Risk>> {
        let pools = pools.to_vec();
        self.cluster.run_blocking("look for risks", move |cluster| risks::of(cluster, &pools)).await
    }
}
