//! One membership in a pool's group: the assigned partitions, the deliveries from them, and the commits.

mod rebalance;
mod unanswered;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::oneshot;

use self::rebalance::PendingRebalance;
use self::unanswered::Unanswered;
use super::assigned::AssignedPartitions;
use super::cluster::{Cluster, Source, call_error, fatal_error};
use super::command::{Requeuer, Waker};
use super::commits::{CommitOutcome, Commits, PartitionCommit, PendingReply};
use super::committer::Committer;
use super::context::Context;
use super::error::{failed, unavailable};
use super::partition::{Partition, ReceivedRecord};
use super::unsettled::{RecordPosition, UnsettledDeliveries};
use queue::driver::{Delivery, DeliveryTag, Settlement};
use queue::{PoolName, Result};

/// While an error is known, a receive waits for this time. Then it asks the server whether the error still exists.
const STALL_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest time for such a check.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest time for which a change without a waiting reply stays uncommitted. Often the commit of the next settled
/// batch includes it.
const COMMIT_DELAY: Duration = Duration::from_millis(100);

/// The group accepts this consumer when the others have left.
const OTHER_RULE: &str = "the group has members that share its partitions by another rule \
    (partition.assignment.strategy or group.protocol), as workers of an earlier version do: stop these";

pub(super) struct Membership {
    /// Fields are dropped in order. The consumer must be dropped after these two, because its destructor leaves the
    /// group.
    partitions: AssignedPartitions,
    committer: Committer,
    consumer: Arc<BaseConsumer<Context>>,
    pool: PoolName,
    sources: Vec<Source>,
    waker: Waker,
    unsettled: UnsettledDeliveries,
    commits: Commits,
    /// When the first change was made that is not committed yet, whether or not a reply waits for it.
    uncommitted_since: Option<Instant>,
    unanswered: Unanswered,
    pending_rebalance: Option<PendingRebalance>,
    has_assignment: bool,
    is_leaving: bool,
    #[cfg(test)]
    is_to_end: bool,
}

/// A call that waits for deliveries.
pub(super) struct ReceiveRequest {
    pub(super) max: usize,
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Result<Vec<Delivery>>>,
}

impl Membership {
    pub(super) fn join(cluster: &Cluster, pool: &PoolName, waker: Waker, requeuer: Arc<Requeuer>) -> Result<Self> {
        let sources = cluster.sources(pool);
        let mut consumer = cluster.consumer(pool)?;
        let wake = waker.clone();
        consumer.set_nonempty_callback(move || wake.wake());
        let names: Vec<&str> = sources.iter().map(|source| &*source.topic).collect();
        consumer.subscribe(&names).map_err(|error| failed("subscribe", error))?;
        let consumer = Arc::new(consumer);
        Ok(Self {
            partitions: AssignedPartitions::default(),
            committer: Committer::start(Arc::clone(&consumer), waker.clone())?,
            consumer,
            pool: pool.clone(),
            sources,
            waker,
            unsettled: UnsettledDeliveries::new(requeuer),
            commits: Commits::new(),
            uncommitted_since: None,
            unanswered: Unanswered::default(),
            pending_rebalance: None,
            has_assignment: false,
            is_leaving: false,
            #[cfg(test)]
            is_to_end: false,
        })
    }

    /// Lets librdkafka report its events.
    pub(super) fn poll(&mut self) -> Result<()> {
        #[cfg(test)]
        if self.is_to_end {
            return Err(unavailable("a test has ended the membership"));
        }
        loop {
            let count = self.consumer.context().event_count();
            match self.consumer.poll(Duration::ZERO) {
                None if self.consumer.context().event_count() == count => return Ok(()),
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(fatal_error(&self.consumer, error));
                }
                // The context stores the reason, for receives that wait too long: see `check_stalled_receives`.
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(Code::InconsistentGroupProtocol) => self.consumer.context().error(error, OTHER_RULE),
                    _ => tracing::debug!(pool = %self.pool, %error, "the kafka consumer reports an error"),
                },
                Some(Ok(_)) => {
                    // The record would be lost. The next membership starts from the committed offsets.
                    return Err(unavailable("cannot go on: a record came outside its partition's queue"));
                }
            }
        }
    }

    /// Handles the results of commits.
    pub(super) fn finish_commits(&mut self) {
        while let Some(result) = self.committer.result() {
            self.unanswered.end();
            match self.commits.finish(result) {
                CommitOutcome::Committed(partitions) => {
                    self.consumer.context().clear_error();
                    for PartitionCommit { partition, announced_end } in partitions {
                        if let Some(partition) = self.partitions.get_mut(partition) {
                            partition.commit_succeeded(announced_end);
                        }
                    }
                }
                CommitOutcome::Failed(partitions) => {
                    for PartitionCommit { partition, .. } in partitions {
                        if let Some(partition) = self.partitions.get_mut(partition) {
                            partition.is_dirty = true;
                        }
                    }
                }
            }
        }
        self.commits.expire();
    }

    /// Commits the changes, unless a commit is in flight. It commits at once if a reply waits for it, otherwise after a
    /// short delay.
    pub(super) fn commit(&mut self) {
        if self.partitions.is_dirty() {
            self.uncommitted_since.get_or_insert_with(Instant::now);
        }
        let is_due = self.uncommitted_since.is_some_and(|since| since.elapsed() >= COMMIT_DELAY);
        let is_urgent = self.commits.is_awaited() || self.is_leaving || self.pending_rebalance.is_some();
        if !self.commits.may_start() || !(is_urgent || is_due) {
            return;
        }
        self.uncommitted_since = None;
        let (mut commits, mut partitions) = (Vec::new(), Vec::new());
        for (number, partition) in self.partitions.iter_mut().filter(|(_, partition)| partition.is_dirty) {
            let (commit, announced_end) = partition.commit(&self.consumer, self.commits.mark_bytes);
            commits.push(commit);
            partitions.push(PartitionCommit { partition: number, announced_end });
        }
        if partitions.is_empty() {
            self.commits.nothing_to_commit();
        } else {
            self.commits.start(partitions);
            self.unanswered.start();
            self.committer.commit(commits);
        }
    }

    pub(super) fn is_committed(&self) -> bool {
        !self.commits.is_in_flight() && !self.partitions.is_dirty()
    }

    /// Whether an action becomes due after some time without a further event.
    pub(super) fn has_timer(&self) -> bool {
        self.pending_rebalance.is_some() || self.commits.is_retrying() || self.uncommitted_since.is_some()
    }

    /// Whether the group has assigned this consumer its share of the partitions.
    pub(super) fn has_assignment(&self) -> bool {
        self.has_assignment
    }

    /// Delivers records to the calls that wait for them.
    pub(super) fn serve_receives(&mut self, receives: &mut VecDeque<ReceiveRequest>) {
        while let Some(receive) = receives.pop_front() {
            if receive.reply.is_closed() {
                continue;
            }
            match self.partitions.take(&self.consumer, &self.pool, receive.max, receive.since) {
                Ok(taken) if taken.is_empty() => {
                    receives.push_front(receive);
                    return;
                }
                Ok(taken) => self.deliver(taken, receive.reply),
                // The caller may have dropped its future.
                Err(error) => drop(receive.reply.send(Err(failed("receive", error)))),
            }
        }
    }

    fn deliver(&mut self, taken: Vec<ReceivedRecord>, reply: oneshot::Sender<Result<Vec<Delivery>>>) {
        let mut deliveries = Vec::with_capacity(taken.len());
        let mut must_commit = false;
        for ReceivedRecord { position, decoded, redelivered } in taken {
            let partition = self.partitions.get_mut(position.partition);
            must_commit |= partition.is_none_or(|partition| !partition.is_announced(position.offset));
            let (tag, requeuer) = self.unsettled.add(position);
            deliveries.push(match &decoded.unreadable {
                None => Delivery::new(decoded.job, redelivered, tag, requeuer),
                Some(why) => Delivery::unreadable(decoded.job, why, redelivered, tag, requeuer),
            });
        }
        if must_commit {
            self.commits.reply_after_commit(PendingReply::Received(deliveries, reply));
        } else {
            // The caller may have dropped its future; then the deliveries are dropped, which requeues them.
            drop(reply.send(Ok(deliveries)));
        }
    }

    pub(super) fn settle(&mut self, settled: Vec<(DeliveryTag, Settlement)>, reply: oneshot::Sender<Result<()>>) {
        let mut must_commit = false;
        for (tag, settlement) in settled {
            let Some((partition, position)) = self.remove_unsettled(tag) else { continue };
            match settlement {
                Settlement::Ack => partition.acknowledge(position),
                Settlement::Requeue => partition.requeue(position),
            }
            must_commit = true;
        }
        if must_commit {
            self.commits.reply_after_commit(PendingReply::Settled(reply));
        } else {
            // The caller may have dropped its future.
            drop(reply.send(Ok(())));
        }
    }

    pub(super) fn requeue(&mut self, tag: DeliveryTag) {
        if let Some((partition, position)) = self.remove_unsettled(tag) {
            partition.requeue(position);
        }
    }

    fn remove_unsettled(&mut self, tag: DeliveryTag) -> Option<(&mut Partition, RecordPosition)> {
        let position = self.unsettled.remove(tag)?;
        Some((self.partitions.get_mut(position.partition)?, position))
    }

    /// Returns an error if a receive has waited for long, and no server replies or the group rejects this consumer.
    pub(super) fn check_stalled_receives(&self, receives: &VecDeque<ReceiveRequest>) -> Result<()> {
        let is_late = receives.front().is_some_and(|receive| receive.since.elapsed() > STALL_TIMEOUT);
        let (context, action) = (self.consumer.context(), format!("receive from the pool {}", self.pool));
        if !is_late || context.reported_error(&action).is_none() {
            return Ok(());
        }
        match self.consumer.fetch_metadata(Some(&self.sources[0].topic), PROBE_TIMEOUT) {
            Ok(_) => {
                context.clear_connection_error();
                context.reported_error(&action).map_or(Ok(()), Err)
            }
            Err(error) => Err(call_error(&self.consumer, &action, error)),
        }
    }

    /// Returns an error if this client must be replaced, because a commit has no answer.
    pub(super) fn check_unanswered_commit(&mut self) -> Result<()> {
        let (consumer, topic) = (&self.consumer, &self.sources[0].topic);
        self.unanswered.check(|| consumer.fetch_metadata(Some(topic), PROBE_TIMEOUT).is_ok())
    }

    /// Requeues all deliveries, and then delivers no records any more.
    pub(super) fn requeue_all(&mut self) {
        if std::mem::replace(&mut self.is_leaving, true) {
            return;
        }
        for position in self.unsettled.drain() {
            if let Some(partition) = self.partitions.get_mut(position.partition) {
                partition.requeue(position);
            }
        }
        self.partitions.iter_mut().for_each(|(_, partition)| partition.stop_delivering());
    }

    #[cfg(test)]
    pub(super) fn abandon(self) {
        // Without its destructor the client does not leave the group: its session must expire.
        std::mem::forget(self);
    }

    #[cfg(test)]
    pub(super) fn inject(&mut self, event: super::command::InjectedEvent) {
        use super::command::InjectedEvent;

        let (start, limit) = (rdkafka::Offset::Beginning, Duration::from_secs(5));
        match event {
            InjectedEvent::MembershipEnded => self.is_to_end = true,
            InjectedEvent::LogsRestarted => self.partitions.iter().for_each(|partition| {
                self.consumer.seek(&partition.topic, partition.number, start, limit).unwrap();
            }),
            InjectedEvent::RemovedFromGroup => {
                self.partitions.clear();
                self.unsettled.retain(|_| false);
                self.consumer.unsubscribe();
                let names: Vec<&str> = self.sources.iter().map(|source| &*source.topic).collect();
                self.consumer.subscribe(&names).unwrap();
            }
        }
    }
}
