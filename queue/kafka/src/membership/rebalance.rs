//! Rebalances: how a membership takes partitions over and gives them up.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::Membership;
use crate::cluster::{CALL_TIMEOUT, call_error};
use crate::context::{Rebalance, acknowledge_rebalance};
use crate::error::{failed, unavailable};
use crate::headers;
use crate::mark::Mark;
use crate::partition::Partition;
use queue::{Error, Result};

/// How long a revoked partition waits for the deliveries that the worker holds: those that are settled by then are not
/// delivered again. This consumer fetches nothing meanwhile, so the time is short.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(2);

/// The additional time for which it waits for the commit of the last changes.
const LAST_COMMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The time for which the committed offsets of new partitions may be unknown. Receives fail only after that time.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(10);

/// The pauses between requests for the committed offsets.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(LONGEST_PAUSE)
    .without_max_times();

/// A rebalance that the consumer has not acknowledged yet.
pub(super) enum PendingRebalance {
    Assign(PendingAssignment),
    Revoke { partitions: TopicPartitionList, deadline: Instant },
}

/// Partitions that are assigned to this consumer, once their committed offsets are known.
pub(super) struct PendingAssignment {
    partitions: TopicPartitionList,
    deadline: Instant,
    retry_at: Instant,
    pauses: ExponentialBackoff,
}

impl PendingAssignment {
    fn new(partitions: TopicPartitionList, now: Instant) -> Self {
        Self { partitions, deadline: now + OFFSETS_TIMEOUT, retry_at: now, pauses: PAUSES.build() }
    }

    /// Whether to request the committed offsets now.
    fn is_due(&self, now: Instant) -> bool {
        self.retry_at <= now
    }

    /// The group's coordinator did not return the offsets. Schedules the next request, after an ever longer pause.
    /// Returns the error once the time is up.
    fn retry_later(&mut self, error: Error, now: Instant) -> Result<()> {
        if now >= self.deadline {
            return Err(error);
        }
        self.retry_at = now + self.pauses.next().unwrap_or(LONGEST_PAUSE);
        Ok(())
    }
}

impl Membership {
    /// Follows the group's rebalances, as far as that is possible now.
    pub(crate) fn rebalance(&mut self) -> Result<()> {
        loop {
            let mut pending = match self.pending_rebalance.take() {
                Some(pending) => pending,
                None => match self.consumer.context().next_rebalance() {
                    None => return Ok(()),
                    Some(Rebalance::Assign(partitions)) => {
                        PendingRebalance::Assign(PendingAssignment::new(partitions, Instant::now()))
                    }
                    Some(Rebalance::Lost(partitions)) => {
                        tracing::warn!(pool = %self.pool, "the group has removed this consumer; it joins again");
                        PendingRebalance::Revoke { partitions, deadline: Instant::now() }
                    }
                    Some(Rebalance::Revoke(partitions)) => {
                        self.partitions.listed_mut(&partitions).for_each(Partition::stop_delivering);
                        PendingRebalance::Revoke { partitions, deadline: Instant::now() + REVOKE_TIMEOUT }
                    }
                },
            };
            let is_done = match &mut pending {
                PendingRebalance::Assign(assignment) => self.assign(assignment)?,
                PendingRebalance::Revoke { partitions, deadline } => self.revoke(partitions, *deadline)?,
            };
            if !is_done {
                self.pending_rebalance = Some(pending);
                return Ok(());
            }
        }
    }

    /// Takes over partitions at their committed offsets. Returns `false` if the coordinator does not return the offsets
    /// yet.
    fn assign(&mut self, assignment: &mut PendingAssignment) -> Result<bool> {
        if !assignment.is_due(Instant::now()) {
            return Ok(false);
        }
        let (action, partitions) = ("take over partitions", &assignment.partitions);
        let committed = match partitions.count() {
            0 => Ok(partitions.clone()),
            _ => self.consumer.committed_offsets(partitions.clone(), CALL_TIMEOUT),
        };
        let without_errors =
            |list: TopicPartitionList| list.elements().iter().try_for_each(|at| at.error()).map(|()| list.clone());
        let committed = match committed.and_then(without_errors) {
            Ok(committed) => committed,
            Err(error) => {
                let error = call_error(&self.consumer, action, error);
                tracing::warn!(pool = %self.pool, %error, "cannot read the group's committed offsets; retrying");
                return assignment.retry_later(error, Instant::now()).map(|()| false);
            }
        };
        let mut list = TopicPartitionList::new();
        for (index, element) in committed.elements().into_iter().enumerate() {
            let (topic, number) = (element.topic(), element.partition());
            let Some(source) = self.sources.iter().find(|source| *source.topic == *topic) else { continue };
            let queue = self.consumer.split_partition_queue(topic, number);
            let mut queue =
                queue.ok_or_else(|| unavailable(format_args!("cannot {action}: {topic}/{number} has no queue")))?;
            let waker = self.waker.clone();
            queue.set_nonempty_callback(move || waker.wake());
            let at = match element.offset() {
                Offset::Offset(offset) => Some((offset, Mark::from_text(&headers::metadata(&committed, index)))),
                _ => None,
            };
            let start = at.as_ref().map_or(Offset::Invalid, |(offset, _)| Offset::Offset(*offset));
            list.add_partition_offset(topic, number, start).map_err(|error| failed(action, error))?;
            self.partitions.add(Partition::new(source, number, queue, at));
        }
        acknowledge_rebalance(&self.consumer, true, &list).map_err(|error| failed(action, error))?;
        self.consumer.context().clear_error();
        self.has_assignment = true;
        tracing::debug!(pool = %self.pool, added = list.count(), all = self.partitions.len(), "partitions assigned");
        Ok(true)
    }

    /// Gives partitions up. Returns `false` if it cannot do that yet, because the worker holds deliveries of them.
    fn revoke(&mut self, partitions: &TopicPartitionList, deadline: Instant) -> Result<bool> {
        let (mut is_unsettled, mut is_dirty) = (false, self.commits.is_in_flight());
        for partition in self.partitions.listed_mut(partitions) {
            is_unsettled |= partition.has_unsettled_records();
            is_dirty |= partition.is_dirty;
        }
        let is_late = Instant::now() >= deadline || self.consumer.assignment_lost();
        let is_too_late = Instant::now() >= deadline + LAST_COMMIT_TIMEOUT || self.consumer.assignment_lost();
        if (is_unsettled && !is_late) || (is_dirty && !is_too_late) {
            return Ok(false);
        }
        self.partitions.remove_listed(partitions);
        self.unsettled.retain(|partition| self.partitions.contains(partition));
        acknowledge_rebalance(&self.consumer, false, partitions)
            .map_err(|error| failed("give up partitions", error))?;
        let (revoked, left) = (partitions.count(), self.partitions.len());
        tracing::debug!(pool = %self.pool, revoked, left, "partitions revoked");
        Ok(true)
    }
}

/// Leaves the group. Closing the client does that, once it has acknowledged all rebalances.
impl Drop for Membership {
    fn drop(&mut self) {
        self.consumer.context().start_leaving();
        loop {
            let pending = self.pending_rebalance.take().map(|pending| match pending {
                PendingRebalance::Assign(assignment) => (true, assignment.partitions),
                PendingRebalance::Revoke { partitions, .. } => (false, partitions),
            });
            let next = || match self.consumer.context().next_rebalance()? {
                Rebalance::Assign(partitions) => Some((true, partitions)),
                Rebalance::Revoke(partitions) | Rebalance::Lost(partitions) => Some((false, partitions)),
            };
            let Some((is_assign, partitions)) = pending.or_else(next) else { return };
            if let Err(error) = acknowledge_rebalance(&self.consumer, is_assign, &partitions) {
                tracing::warn!(pool = %self.pool, %error, "cannot acknowledge a rebalance before leaving the group");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::ErrorKind;

    #[test]
    fn unknown_offsets_are_requested_ever_less_often_and_not_for_ever() {
        let start = Instant::now();
        let mut assignment = PendingAssignment::new(TopicPartitionList::new(), start);
        let (mut now, mut requests) = (start, 0);
        loop {
            assert!(assignment.is_due(now));
            requests += 1;
            if assignment.retry_later(Error::new(ErrorKind::Unavailable, "not now"), now).is_err() {
                break;
            }
            assert!(!assignment.is_due(now));
            now = assignment.retry_at;
        }
        assert!(requests < 12, "{requests} requests");
        assert!(now - start >= OFFSETS_TIMEOUT && now - start <= OFFSETS_TIMEOUT + LONGEST_PAUSE);
    }
}
