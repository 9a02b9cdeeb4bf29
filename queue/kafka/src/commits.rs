//! Who waits for a commit. One is on its way at a time, and the next carries everything that has changed meanwhile.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::oneshot;

use super::cluster::CALL_TIMEOUT;
use super::error::is_no_longer_ours;
use super::mark::MAX_BYTES;
use queue::driver::Delivery;
use queue::{Error, ErrorKind, Result};

const RETRY_AFTER: Duration = Duration::from_millis(100);

pub(super) struct Commits {
    /// For the next commit.
    waiting: Vec<Waiter>,
    sent: Option<Sent>,
    retry_at: Option<Instant>,
    /// Why the last one failed.
    failure: String,
    /// How long a mark may be.
    pub(super) mark_bytes: usize,
}

/// Who waits, for what.
pub(super) enum Answer {
    /// That what is settled is committed.
    Settled(oneshot::Sender<Result<()>>),
    /// That whoever has the partitions next will know of these deliveries.
    Received(Vec<Delivery>, oneshot::Sender<Result<Vec<Delivery>>>),
}

struct Waiter {
    answer: Answer,
    deadline: Instant,
}

struct Sent {
    waiters: Vec<Waiter>,
    partitions: Vec<Committed>,
}

/// A partition in a commit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Committed {
    pub(super) partition: u64,
    pub(super) handed_out: i64,
}

/// What came of a commit.
pub(super) enum Outcome {
    /// These are committed.
    Committed(Vec<Committed>),
    /// These are not, and are to be committed again.
    Failed(Vec<Committed>),
}

impl Commits {
    pub(super) fn new() -> Self {
        Self { waiting: Vec::new(), sent: None, retry_at: None, failure: String::new(), mark_bytes: MAX_BYTES }
    }

    /// Answers when the next commit is done.
    pub(super) fn wait(&mut self, answer: Answer) {
        self.waiting.push(Waiter { answer, deadline: Instant::now() + CALL_TIMEOUT });
    }

    /// Whether somebody waits for the next one.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether one is on its way.
    pub(super) fn is_sent(&self) -> bool {
        self.sent.is_some()
    }

    /// Whether one may be sent now.
    pub(super) fn may_send(&self) -> bool {
        self.sent.is_none() && self.retry_at.is_none_or(|at| at <= Instant::now())
    }

    /// Whether time alone changes something.
    pub(super) fn is_retrying(&self) -> bool {
        self.retry_at.is_some()
    }

    /// A commit of these has been sent.
    pub(super) fn send(&mut self, partitions: Vec<Committed>) {
        self.retry_at = None;
        self.sent = Some(Sent { waiters: std::mem::take(&mut self.waiting), partitions });
    }

    /// There is nothing to commit.
    pub(super) fn nothing_to_send(&mut self) {
        self.waiting.drain(..).for_each(|waiter| waiter.answer.confirm());
    }

    /// The commit that was sent has ended.
    pub(super) fn ended(&mut self, result: Result<(), KafkaError>) -> Outcome {
        let Some(sent) = self.sent.take() else { return Outcome::Committed(Vec::new()) };
        match result {
            Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => {
                sent.waiters.into_iter().for_each(|waiter| waiter.answer.confirm());
                Outcome::Committed(sent.partitions)
            }
            Err(error) => {
                if error.rdkafka_error_code() == Some(Code::OffsetMetadataTooLarge) {
                    tracing::warn!("the servers take no marks beside offsets: raise offset.metadata.max.bytes to 4096");
                    self.mark_bytes = 0;
                }
                let mut waiters = sent.waiters;
                if is_no_longer_ours(&error) {
                    // What is settled belongs to another: that is passed over.
                    let settled = waiters.extract_if(.., |waiter| matches!(waiter.answer, Answer::Settled(_)));
                    settled.for_each(|waiter| waiter.answer.confirm());
                }
                tracing::debug!(%error, "a commit failed; trying again");
                self.failure = error.to_string();
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
                waiters.append(&mut self.waiting);
                self.waiting = waiters;
                Outcome::Failed(sent.partitions)
            }
        }
    }

    /// Refuses those that have waited for too long.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        let sent = self.sent.as_mut().map(|sent| &mut sent.waiters);
        for waiters in [Some(&mut self.waiting), sent].into_iter().flatten() {
            for late in waiters.extract_if(.., |waiter| waiter.deadline <= now) {
                late.answer.refuse(&self.failure);
            }
        }
    }
}

impl Answer {
    fn confirm(self) {
        match self {
            // Whoever asked may have gone. Deliveries that nobody takes are given back as they are dropped.
            Self::Settled(reply) => drop(reply.send(Ok(()))),
            Self::Received(deliveries, reply) => drop(reply.send(Ok(deliveries))),
        }
    }

    fn refuse(self, failure: &str) {
        let why = format!("the group's coordinator has not confirmed a commit within {CALL_TIMEOUT:?}: {failure}");
        let error = |action: &str| Error::new(ErrorKind::Unavailable, format_args!("cannot {action}: {why}"));
        match self {
            Self::Settled(reply) => drop(reply.send(Err(error("settle")))),
            Self::Received(_, reply) => drop(reply.send(Err(error("receive")))),
        }
    }
}
