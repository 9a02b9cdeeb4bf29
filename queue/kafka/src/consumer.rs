//! The consumer of a worker: it sends commands to the group member, which runs on a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use crossbeam_channel::{Receiver, Sender};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::cluster::Cluster;
use super::command::Command;
use super::member::Member;
use queue::driver::{Consumer, Delivery, Settlement};
use queue::{Error, ErrorKind, PoolName, Result};

/// The longest time for which opening a consumer waits for its share of the partitions. After that the consumer waits
/// in the background.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest time for which dropping a consumer waits until it has left the group. If the process ended earlier, no
/// consumer would have its partitions until its session expires.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) struct KafkaConsumer {
    commands: Sender<Command>,
    ended: Receiver<()>,
}

impl KafkaConsumer {
    /// Joins the group of `pool`. Returns when the consumer has its share of the partitions. Also returns when it
    /// cannot get a share, or when the wait took too long.
    ///
    /// Several consumers may start together. If the first one received jobs at once, those would be delivered again
    /// when the next one takes over its partitions.
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
        if tokio::time::timeout(JOIN_TIMEOUT, has_joined).await.is_err() {
            tracing::warn!(%pool, "the group has not assigned partitions yet; the consumer waits in the background");
        }
        Ok(consumer)
    }

    #[cfg(test)]
    pub(super) fn commands(&self) -> Sender<Command> {
        self.commands.clone()
    }

    async fn call<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let gone = || Error::new(ErrorKind::Ended, "the kafka consumer has ended, and cannot receive again");
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>> {
        self.call(|reply| Command::Receive { max: max.max(1), reply }).await
    }

    async fn settle(&self, deliveries: Vec<(Delivery, Settlement)>) -> Result<()> {
        let settled = deliveries.into_iter().map(|(delivery, settlement)| (delivery.into_tag(), settlement)).collect();
        self.call(|reply| Command::Settle { settled, reply }).await
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        let leave = || {
            if self.commands.send(Command::Leave).is_ok()
                && self.ended.recv_timeout(LEAVE_TIMEOUT) == Err(crossbeam_channel::RecvTimeoutError::Timeout)
            {
                tracing::warn!(waited = ?LEAVE_TIMEOUT, "the kafka consumer is still leaving its group; no longer waiting");
            }
        };
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            // Another thread runs the other tasks of this one meanwhile.
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(leave),
            _ => leave(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_a_panic_of_its_thread_a_consumer_has_ended() {
        let (commands, _) = crossbeam_channel::unbounded();
        let (_, ended) = crossbeam_channel::bounded(0);
        let consumer = KafkaConsumer { commands, ended };
        assert_eq!(consumer.receive(1).await.unwrap_err().kind(), ErrorKind::Ended);
        assert_eq!(consumer.settle(Vec::new()).await.unwrap_err().kind(), ErrorKind::Ended);
    }

    /// With one thread for tasks, another task can only run if the consumer gives its thread up.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_consumer_that_leaves_its_group_stops_no_other_task() {
        let (commands, inbox) = crossbeam_channel::unbounded();
        let (end, ended) = crossbeam_channel::bounded(0);
        let dropping = tokio::spawn(async { drop(KafkaConsumer { commands, ended }) });
        let thread = std::thread::spawn(move || {
            assert!(matches!(inbox.recv(), Ok(Command::Leave)));
            inbox
        });
        let others_run = async {
            while !thread.is_finished() {
                tokio::task::yield_now().await;
            }
            tokio::spawn(async {}).await.unwrap();
        };
        tokio::time::timeout(LEAVE_TIMEOUT / 2, others_run)
            .await
            .expect("another task must run while a consumer leaves");
        let _inbox = thread.join().unwrap();
        drop(end);
        dropping.await.unwrap();
    }
}
