//! Jobs in Kafka: a topic per pool and class, a group of consumers per pool.
//!
//! A record stays where it is when its job is done; what moves is the group's committed offset. So each partition's
//! consumer follows what it has handed out ([`tracker`]), commits the offset before which everything is done, and beside
//! it a note of what is open beyond ([`mark`]): settled in any order, nothing is repeated that was done, the gauge tells
//! what waits from what is held, and a redelivered job is known as one. Before a delivery is handed out the group knows
//! of it; that costs a commit per batch besides the one that settles it, which under load says both.
//!
//! Each partition is fetched ahead into a short queue of its own, so that the most urgent class is taken first, and a
//! worker that is busy stops the fetching without pausing partitions: pausing would throw the queues away and fetch
//! them again.
//!
//! A topic's retention is the servers': a job that waits for longer than `retention.ms` is deleted by them. Give the
//! topics of slow pools a retention that is longer than the longest wait. It must not be longer than the servers'
//! `offsets.retention.minutes`: what a pool without workers has done is forgotten after that, and what its topics still
//! keep runs again.

use std::sync::Arc;

use async_trait::async_trait;

use queue::{Announcer, Broker, Consumer, Gauge, PoolExpectation, PoolName, Producer, Result, Risk, Routes};

mod admin;
mod announcer;
mod assigning;
mod cluster;
mod commits;
mod committer;
mod consumer;
mod context;
mod error;
#[cfg(test)]
mod fixture;
mod gauge;
mod held;
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
mod url;

use announcer::KafkaAnnouncer;
use cluster::Cluster;
use consumer::KafkaConsumer;
use gauge::KafkaGauge;
use producer::KafkaProducer;
use publisher::Publisher;
pub use url::KafkaUrl;

/// What a test lets a member of a group meet with.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(crate) enum Event {
    /// The group takes it for dead.
    TakenForDead,
    /// Its membership ends, as after an error that nothing but joining anew helps against.
    Ended,
    /// Its logs begin anew: their offsets come once more.
    LogsBegunAnew,
}

/// The broker that a [`KafkaUrl`] names.
pub struct KafkaBroker {
    cluster: Arc<Cluster>,
    #[cfg(test)]
    members: std::sync::Mutex<Vec<crossbeam_channel::Sender<consumer::Command>>>,
}

impl KafkaBroker {
    /// Opens it; connects when the first call needs it.
    pub fn open(url: &KafkaUrl, routes: &Routes) -> Self {
        Self {
            cluster: Arc::new(Cluster::new(url, routes)),
            #[cfg(test)]
            members: std::sync::Mutex::default(),
        }
    }

    /// Its consumers end as if killed.
    #[cfg(test)]
    pub(crate) fn vanish(&self) {
        for member in self.members.lock().unwrap().drain(..) {
            drop(member.send(consumer::Command::Vanish));
        }
    }

    /// Its consumers meet with this.
    #[cfg(test)]
    pub(crate) async fn consumers_meet(&self, event: Event) {
        let members = self.members.lock().unwrap().clone();
        for member in members {
            let (reply, answer) = tokio::sync::oneshot::channel();
            // One that has left is none.
            if member.send(consumer::Command::Meet(event, reply)).is_ok() {
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
        self.members.lock().unwrap().push(consumer.commands());
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
        self.cluster.ask("look for risks", move |cluster| risks::of(cluster, &pools)).await
    }
}
