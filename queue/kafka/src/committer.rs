//! The thread that commits.
//!
//! rdkafka 0.39 says nothing of what became of an asynchronous commit (librdkafka reports it to a callback that the
//! crate does not set), and a synchronous one blocks; so it blocks here.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::context::Context;
use super::member::{Bell, unavailable};
use queue::Result;

/// What is to be committed of a partition.
pub(super) struct Commit {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) mark: String,
}

/// Ends when it is dropped and what it was given is done.
pub(super) struct Committer {
    /// `None`: it is to end.
    work: Option<Sender<Vec<Commit>>>,
    results: Receiver<KafkaResult<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn start(consumer: Arc<BaseConsumer<Context>>, bell: Bell) -> Result<Self> {
        let (work, inbox) = crossbeam_channel::unbounded::<Vec<Commit>>();
        let (outbox, results) = crossbeam_channel::unbounded();
        let run = move || {
            for commits in inbox {
                // A member that has ended needs no result.
                drop(outbox.send(commit(&consumer, &commits)));
                bell.ring();
            }
        };
        let started = std::thread::Builder::new().name("kafka-commit".to_owned()).spawn(run);
        let thread =
            started.map_err(|error| unavailable(format_args!("cannot start the thread that commits: {error}")))?;
        Ok(Self { work: Some(work), results, thread: Some(thread) })
    }

    /// Begins a commit; its result comes later.
    pub(super) fn commit(&self, commits: Vec<Commit>) {
        // The thread ends only after this is dropped.
        drop(self.work.as_ref().map(|work| work.send(commits)));
    }

    /// The result of the oldest commit, once it is there.
    pub(super) fn result(&self) -> Option<KafkaResult<()>> {
        self.results.try_recv().ok()
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that commits has panicked");
        }
    }
}

fn commit(consumer: &BaseConsumer<Context>, commits: &[Commit]) -> KafkaResult<()> {
    let mut list = TopicPartitionList::with_capacity(commits.len());
    for Commit { topic, partition, offset, mark } in commits {
        let mut element = list.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(*offset))?;
        element.set_metadata(mark);
    }
    consumer.commit(&list, CommitMode::Sync)
}
