//! The replies that wait for a commit.
//!
//! At most one commit is in flight. The next one carries everything that has changed meanwhile.

use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::oneshot;

use super::cluster::CALL_TIMEOUT;
use super::error::is_partition_lost;
use super::mark::MAX_BYTES;
use queue::driver::Delivery;
use queue::{Error, ErrorKind, Result};

const RETRY_AFTER: Duration = Duration::from_millis(100);

pub(super) struct Commits {
    /// The replies that wait for the next commit.
    waiting: Vec<Waiter>,
    in_flight: Option<InFlight>,
    retry_at: Option<Instant>,
    /// The error of the last commit that failed.
    failure: String,
    /// The longest mark that the servers accept.
    pub(super) mark_bytes: usize,
}

/// A reply that is sent after a commit.
pub(super) enum PendingReply {
    /// Settlements are committed.
    Settled(oneshot::Sender<Result<()>>),
    /// These deliveries are announced: the next consumer of their partitions can read that they were delivered.
    Received(Vec<Delivery>, oneshot::Sender<Result<Vec<Delivery>>>),
}

struct Waiter {
    reply: PendingReply,
    deadline: Instant,
}

struct InFlight {
    waiters: Vec<Waiter>,
    partitions: Vec<PartitionCommit>,
}

/// A partition in a commit.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartitionCommit {
    pub(super) partition: u64,
    /// Its mark announces all records before this offset.
    pub(super) announced_end: i64,
}

/// How a commit ended.
pub(super) enum CommitOutcome {
    /// These partitions are committed.
    Committed(Vec<PartitionCommit>),
    /// These partitions are not, and must be committed again.
    Failed(Vec<PartitionCommit>),
}

impl Commits {
    pub(super) fn new() -> Self {
        Self { waiting: Vec::new(), in_flight: None, retry_at: None, failure: String::new(), mark_bytes: MAX_BYTES }
    }

    /// Sends this reply when the next commit has succeeded.
    pub(super) fn reply_after_commit(&mut self, reply: PendingReply) {
        self.waiting.push(Waiter { reply, deadline: Instant::now() + CALL_TIMEOUT });
    }

    /// Whether a reply waits for the next commit.
    pub(super) fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether a commit may start now.
    pub(super) fn may_start(&self) -> bool {
        self.in_flight.is_none() && self.retry_at.is_none_or(|at| at <= Instant::now())
    }

    /// Whether a commit becomes due after some time without a further event.
    pub(super) fn is_retrying(&self) -> bool {
        self.retry_at.is_some()
    }

    /// A commit of these partitions has started.
    pub(super) fn start(&mut self, partitions: Vec<PartitionCommit>) {
        self.retry_at = None;
        self.in_flight = Some(InFlight { waiters: std::mem::take(&mut self.waiting), partitions });
    }

    /// Nothing has changed since the last commit.
    pub(super) fn nothing_to_commit(&mut self) {
        self.waiting.drain(..).for_each(|waiter| waiter.reply.confirm());
    }

    /// The commit in flight has ended.
    pub(super) fn finish(&mut self, result: Result<(), KafkaError>) -> CommitOutcome {
        let Some(InFlight { mut waiters, partitions }) = self.in_flight.take() else {
            return CommitOutcome::Committed(Vec::new());
        };
        match result {
            Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => {
                waiters.into_iter().for_each(|waiter| waiter.reply.confirm());
                CommitOutcome::Committed(partitions)
            }
            Err(error) => {
                if error.rdkafka_error_code() == Some(Code::OffsetMetadataTooLarge) {
                    tracing::warn!("the servers reject marks of offsets: raise offset.metadata.max.bytes to 4096");
                    self.mark_bytes = 0;
                }
                if is_partition_lost(&error) {
                    // The records belong to another consumer now, so settling them here has no effect.
                    let settled = waiters.extract_if(.., |waiter| matches!(waiter.reply, PendingReply::Settled(_)));
                    settled.for_each(|waiter| waiter.reply.confirm());
                }
                tracing::debug!(%error, "a commit failed; retrying");
                self.failure = error.to_string();
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
                waiters.append(&mut self.waiting);
                self.waiting = waiters;
                CommitOutcome::Failed(partitions)
            }
        }
    }

    /// Replies with an error where a reply has waited for too long.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        let in_flight = self.in_flight.as_mut().map(|in_flight| &mut in_flight.waiters);
        for waiters in [Some(&mut self.waiting), in_flight].into_iter().flatten() {
            for late in waiters.extract_if(.., |waiter| waiter.deadline <= now) {
                let failure = &self.failure;
                let why = format_args!("the group's coordinator has not confirmed a commit within {CALL_TIMEOUT:?}");
                late.reply.fail(format_args!("{why}: {failure}"));
            }
        }
    }
}

/// Without an answer the caller would assume that the consumer has ended.
impl Drop for Commits {
    fn drop(&mut self) {
        let in_flight = self.in_flight.take().map(|in_flight| in_flight.waiters).into_iter().flatten();
        for waiter in self.waiting.drain(..).chain(in_flight) {
            waiter.reply.fail(format_args!("this member has left its group"));
        }
    }
}

impl PendingReply {
    fn confirm(self) {
        match self {
            // The caller may have dropped its future. Deliveries that it does not take are dropped here. This requeues
            // them.
            Self::Settled(reply) => drop(reply.send(Ok(()))),
            Self::Received(deliveries, reply) => drop(reply.send(Ok(deliveries))),
        }
    }

    fn fail(self, why: fmt::Arguments<'_>) {
        let error = |action: &str| Error::new(ErrorKind::Unavailable, format_args!("cannot {action}: {why}"));
        match self {
            Self::Settled(reply) => drop(reply.send(Err(error("settle")))),
            Self::Received(_, reply) => drop(reply.send(Err(error("receive")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_wait_for_a_commit_when_the_member_leaves_are_unavailable() {
        let mut commits = Commits::new();
        let (settled, of_settle) = oneshot::channel();
        let (received, of_receive) = oneshot::channel();
        commits.reply_after_commit(PendingReply::Settled(settled));
        commits.start(Vec::new());
        commits.reply_after_commit(PendingReply::Received(Vec::new(), received));
        drop(commits);
        assert_eq!(of_settle.blocking_recv().unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(of_receive.blocking_recv().unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
