//! A worker's end of a group member, which runs on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use crossbeam_channel::{Receiver, Sender};
use tokio::sync::oneshot;

use super::cluster::Cluster;
use super::member::Member;
use queue::driver::{Consumer, Delivery, DeliveryTag, RequeueOnDrop, Settlement};
use queue::{Error, ErrorKind, PoolName, Result};

/// How long opening a consumer waits for its share of the partitions. It goes on waiting where nobody sees it.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);

/// How long dropping a consumer waits for it to have left the group. Else the process might end before, and its
/// partitions would be nobody's until the group takes it for dead.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);

/// What a member is told.
pub(super) enum Command {
    /// Hand out up to `max` deliveries.
    Receive { max: usize, reply: oneshot::Sender<Result<Vec<Delivery>>> },
    /// Settle these and answer when that is committed.
    Settle { settled: Vec<(DeliveryTag, Settlement)>, reply: oneshot::Sender<Result<()>> },
    /// A delivery was dropped.
    GiveBack(DeliveryTag),
    /// librdkafka has something.
    Wake,
    /// Leave the group and end.
    Leave,
    /// End as if killed: nothing is committed, nothing is said to the group.
    #[cfg(test)]
    Vanish,
    /// Meet with this.
    #[cfg(test)]
    Meet(super::Event, oneshot::Sender<()>),
}

pub(super) struct KafkaConsumer {
    commands: Sender<Command>,
    ended: Receiver<()>,
}

impl KafkaConsumer {
    /// Joins the group of `pool`, and returns when it has its share of the partitions or this cannot be waited for.
    ///
    /// Were jobs handed out to the first of several consumers at once, they would come again when the next one joins
    /// and takes over their partitions.
    pub(super) async fn join(cluster: Arc<Cluster>, pool: &PoolName) -> Result<Self> {
        let (commands, inbox) = crossbeam_channel::unbounded();
        let (end, ended) = crossbeam_channel::bounded(0);
        let (joined, has_joined) = oneshot::channel();
        let member = Member::new(cluster, pool.clone(), commands.clone(), inbox, joined);
        let run = move || {
            member.run();
            drop(end);
        };
        let spawned = std::thread::Builder::new().name(format!("kafka-{pool}")).spawn(run);
        spawned.map_err(|error| Error::caused(ErrorKind::Unavailable, "cannot start the consumer's thread", error))?;
        let consumer = Self { commands, ended };
        if tokio::time::timeout(JOIN_PATIENCE, has_joined).await.is_err() {
            tracing::warn!(%pool, "the group has given this consumer nothing yet; going on without waiting for it");
        }
        Ok(consumer)
    }

    #[cfg(test)]
    pub(super) fn commands(&self) -> Sender<Command> {
        self.commands.clone()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let gone = || Error::new(ErrorKind::Unavailable, "the kafka consumer has ended");
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>> {
        self.ask(|reply| Command::Receive { max: max.max(1), reply }).await
    }

    async fn settle(&self, deliveries: Vec<(Delivery, Settlement)>) -> Result<()> {
        let settled = deliveries.into_iter().map(|(delivery, how)| (delivery.into_tag(), how)).collect();
        self.ask(|reply| Command::Settle { settled, reply }).await
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        if self.commands.send(Command::Leave).is_ok()
            && self.ended.recv_timeout(LEAVE_PATIENCE) == Err(crossbeam_channel::RecvTimeoutError::Timeout)
        {
            tracing::warn!("the kafka consumer is still leaving its group; not waiting for it any longer");
        }
    }
}

/// What a delivery knows of its consumer.
#[derive(Debug)]
pub(super) struct Hold {
    commands: Sender<Command>,
    last_number: AtomicI64,
}

impl Hold {
    pub(super) fn new(commands: Sender<Command>) -> Self {
        Self { commands, last_number: AtomicI64::new(0) }
    }

    /// A number for a delivery. None comes twice as long as the consumer lives, however often it joins its group anew:
    /// what is settled late must not be taken for another delivery.
    pub(super) fn next_number(&self) -> i64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl RequeueOnDrop for Hold {
    fn requeue(self: Arc<Self>, tag: DeliveryTag) {
        // A consumer that has ended has given everything back.
        drop(self.commands.send(Command::GiveBack(tag)));
    }
}
