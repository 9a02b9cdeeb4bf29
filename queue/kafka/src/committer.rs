//! The thread that commits offsets.
//!
//! rdkafka 0.39 does not report the result of an asynchronous commit: librdkafka passes it to a callback that the crate
//! does not set. A synchronous commit blocks, so it has a thread of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::command::Waker;
use super::context::Context;
use super::error::unavailable;
use queue::Result;

/// The offset to commit for a partition, and the text to store with it.
pub(super) struct OffsetCommit {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) mark: String,
}

/// The longest time for which dropping a committer waits for a commit. If no server replies, the thread ends later, and
/// closes the client then.
const LAST_COMMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Dropping it waits for the commits that have been started, and ends the thread.
pub(super) struct Committer {
    /// `None`: the thread must end.
    work: Option<Sender<Vec<OffsetCommit>>>,
    /// Disconnected when the thread ends.
    results: Receiver<KafkaResult<()>>,
}

impl Committer {
    pub(super) fn start(consumer: Arc<BaseConsumer<Context>>, waker: Waker) -> Result<Self> {
        let (work, inbox) = crossbeam_channel::unbounded::<Vec<OffsetCommit>>();
        let (outbox, results) = crossbeam_channel::unbounded();
        let run = move || {
            for commits in inbox {
                // If the member has ended, it needs no result.
                drop(outbox.send(commit(&consumer, &commits)));
                waker.wake();
            }
            // The member closes the client, unless it waits no longer. So this thread must give it up first.
            drop(consumer);
            drop(outbox);
        };
        let started = std::thread::Builder::new().name("kafka-commit".to_owned()).spawn(run);
        started.map_err(|error| unavailable(format_args!("cannot start the thread that commits: {error}")))?;
        Ok(Self { work: Some(work), results })
    }

    /// Starts a commit; [`Committer::result`] has its result later.
    pub(super) fn commit(&self, commits: Vec<OffsetCommit>) {
        // The thread ends only after this is dropped.
        drop(self.work.as_ref().map(|work| work.send(commits)));
    }

    /// The result of the oldest commit, once there is one.
    pub(super) fn result(&self) -> Option<KafkaResult<()>> {
        self.results.try_recv().ok()
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.work = None;
        let deadline = Instant::now() + LAST_COMMIT_TIMEOUT;
        while let Ok(_unused) = self.results.recv_deadline(deadline) {}
    }
}

fn commit(consumer: &BaseConsumer<Context>, commits: &[OffsetCommit]) -> KafkaResult<()> {
    let mut list = TopicPartitionList::with_capacity(commits.len());
    for OffsetCommit { topic, partition, offset, mark } in commits {
        let mut element = list.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(*offset))?;
        element.set_metadata(mark);
    }
    consumer.commit(&list, CommitMode::Sync)
}
