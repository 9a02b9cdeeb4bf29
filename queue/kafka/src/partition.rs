//! A partition that is assigned to this consumer.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings::rd_kafka_get_watermark_offsets;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Message, Offset};

use super::cluster::Source;
use super::committer::OffsetCommit;
use super::context::Context;
use super::mark::Mark;
use super::record::{self, DecodedJob};
use super::tracker::{Arrival, Tracker};
use super::unsettled::RecordPosition;
use queue::{Class, PoolName};

/// The size of a batch from which the next one is announced. Below it, a commit per batch costs little.
const ANNOUNCED_BATCH: usize = 16;

/// Its records, which are fetched ahead into a queue of their own, and the state of those that were delivered.
pub(super) struct Partition {
    pub(super) topic: Arc<str>,
    pub(super) number: i32,
    pub(super) class: Class,
    /// The topic's name comes from a route.
    is_named: bool,
    /// The consumer is about to give the partition up, so no record of it is delivered any more.
    pub(super) is_leaving: bool,
    /// The state has changed since the last commit.
    pub(super) is_dirty: bool,
    /// Commits up to the last successful one announce the records before this offset: the next consumer of the
    /// partition knows of them.
    announced_end: i64,
    /// The same offset for the last commit that was started.
    next_announced_end: i64,
    queue: PartitionQueue<Context>,
    tracker: Tracker,
    /// The number of times that its log was created again. Records of an earlier log have nothing to do with this one.
    log: u64,
    /// The records that the worker holds, and those that were requeued and will be delivered again.
    unsettled: BTreeMap<i64, DecodedJob>,
    /// The next fetched record has at least this offset. `None`: no record was fetched yet, and the end of the log is
    /// unknown too.
    position: Option<i64>,
    /// The log has no further record, or waiting for one took too long.
    is_empty: bool,
    /// The number of records of the last batch, if more may follow: the next batch is likely to have as many. Else 0.
    expected_batch: usize,
}

/// A record to deliver.
pub(super) struct ReceivedRecord {
    pub(super) position: RecordPosition,
    pub(super) decoded: DecodedJob,
    pub(super) redelivered: bool,
}

impl Partition {
    /// `committed` is the offset and mark that the group has committed.
    pub(super) fn new(
        source: &Source,
        number: i32,
        queue: PartitionQueue<Context>,
        committed: Option<(i64, Option<Mark>)>,
    ) -> Self {
        let tracker = match &committed {
            Some((offset, mark)) => Tracker::resume(Some(*offset), mark.as_ref()),
            None => Tracker::resume(None, None),
        };
        Self {
            topic: Arc::clone(&source.topic),
            number,
            class: source.class,
            is_named: source.is_named,
            is_leaving: false,
            // The former consumer is gone, so the records that it held are returned now.
            is_dirty: committed.is_some_and(|(_, mark)| mark.is_some_and(|mark| mark.open_count() > mark.returned)),
            announced_end: tracker.first_undelivered(),
            next_announced_end: tracker.first_undelivered(),
            queue,
            tracker,
            log: 0,
            unsettled: BTreeMap::new(),
            position: None,
            is_empty: false,
            expected_batch: 0,
        }
    }

    /// Takes up to `max` records to deliver: first those that were requeued, then fetched ones. `id` is the
    /// membership's number for this partition. The records count as delivered, also those that are returned with an
    /// error.
    pub(super) fn take(
        &mut self,
        id: u64,
        consumer: &BaseConsumer<Context>,
        pool: &PoolName,
        max: usize,
    ) -> (Vec<ReceivedRecord>, KafkaResult<()>) {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(offset) = self.tracker.redeliver()
        {
            self.is_dirty = true;
            if let Some(decoded) = self.unsettled.get(&offset).cloned() {
                let position = RecordPosition { partition: id, log: self.log, offset };
                taken.push(ReceivedRecord { position, decoded, redelivered: true });
            }
        }
        self.expected_batch = max;
        while taken.len() < max {
            match self.queue.poll(Duration::ZERO) {
                None => {
                    self.expected_batch = 0;
                    break;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.is_empty = true;
                    self.position.get_or_insert(0);
                    if let Err(error) = self.advance_to_end(consumer) {
                        return (taken, Err(error));
                    }
                }
                Some(Err(error)) => return (taken, Err(error)),
                Some(Ok(message)) => {
                    let offset = message.offset();
                    self.is_empty = false;
                    self.position = Some(offset + 1);
                    self.is_dirty = true;
                    if self.tracker.restarts_at(offset) {
                        let (topic, partition) = (&*self.topic, self.number);
                        tracing::warn!(topic, partition, offset, "the log was truncated or created again");
                        // Other records have these offsets now. They must not be confused with the records that were
                        // delivered before.
                        self.log += 1;
                        self.unsettled.clear();
                        (self.announced_end, self.next_announced_end) = (offset, offset);
                    }
                    let redelivered = match self.tracker.arrive(offset) {
                        Arrival::Acknowledged => continue,
                        arrival => arrival == Arrival::Redelivered,
                    };
                    let decoded = record::read(pool, self.class, self.is_named, &message);
                    self.unsettled.insert(offset, decoded.clone());
                    let position = RecordPosition { partition: id, log: self.log, offset };
                    taken.push(ReceivedRecord { position, decoded, redelivered });
                }
            }
        }
        (taken, Ok(()))
    }

    /// librdkafka has reached the end of the log. The last offsets may belong to no record: a transaction leaves a
    /// marker, and an aborted one its records too. If they were not skipped here, they would always count as waiting.
    fn advance_to_end(&mut self, consumer: &BaseConsumer<Context>) -> KafkaResult<()> {
        let is_open = log_end(consumer, &self.topic, self.number) > self.tracker.first_undelivered();
        if !is_open && !self.tracker.expects_records() {
            return Ok(());
        }
        let positions = consumer.position()?;
        if let Some(Offset::Offset(position)) =
            positions.find_partition(&self.topic, self.number).map(|found| found.offset())
        {
            self.is_dirty |= self.tracker.advance_to(position);
        }
        Ok(())
    }

    /// Whether the log has no further record, according to the last replies. Only called when the queue is empty.
    pub(super) fn is_drained(&self, consumer: &BaseConsumer<Context>) -> bool {
        self.is_leaving
            || self.is_empty
            || self.position.is_some_and(|position| position >= log_end(consumer, &self.topic, self.number))
    }

    /// Waiting for its records took too long: the partition counts as empty until one is fetched.
    pub(super) fn give_up_waiting(&mut self) {
        self.is_empty = true;
    }

    pub(super) fn acknowledge(&mut self, position: RecordPosition) {
        if position.log == self.log {
            self.unsettled.remove(&position.offset);
            self.tracker.acknowledge(position.offset);
            self.is_dirty = true;
        }
    }

    pub(super) fn requeue(&mut self, position: RecordPosition) {
        if position.log == self.log {
            self.tracker.requeue(position.offset);
            self.is_dirty = true;
        }
    }

    pub(super) fn has_unsettled_records(&self) -> bool {
        self.tracker.has_unsettled_records()
    }

    /// The offset to commit, with a mark of at most `mark_bytes`, and the offset before which that announces all
    /// records.
    ///
    /// Under load this commit announces the next batch too, which then needs no commit of its own. If the worker is
    /// killed, announced records that were never delivered are marked as redelivered.
    pub(super) fn commit(&mut self, consumer: &BaseConsumer<Context>, mark_bytes: usize) -> (OffsetCommit, i64) {
        let log_end = log_end(consumer, &self.topic, self.number);
        let in_log = log_end.saturating_sub(self.tracker.first_undelivered()).max(0);
        let is_under_load = self.expected_batch >= ANNOUNCED_BATCH && !self.is_leaving;
        let ahead = if is_under_load { in_log.unsigned_abs().min(self.expected_batch as u64) } else { 0 };
        let (offset, mark) = self.tracker.commit(ahead);
        let (topic, partition) = (Arc::clone(&self.topic), self.number);
        self.next_announced_end = offset.saturating_add_unsigned(mark.delivered);
        // This commit may withdraw an announcement of an earlier one.
        self.announced_end = self.announced_end.min(self.next_announced_end);
        self.is_dirty = false;
        (OffsetCommit { topic, partition, offset, mark: mark.to_text(mark_bytes) }, self.next_announced_end)
    }

    /// A commit that announces all records before `announced_end` has succeeded.
    pub(super) fn commit_succeeded(&mut self, announced_end: i64) {
        // The log may have been created again since that commit started.
        self.announced_end = announced_end.min(self.next_announced_end);
    }

    /// Whether the next consumer of the partition would know that this record was delivered.
    pub(super) fn is_announced(&self, offset: i64) -> bool {
        offset < self.announced_end
    }

    /// Delivers no further record, and withdraws announcements.
    pub(super) fn stop_delivering(&mut self) {
        self.is_leaving = true;
        self.is_dirty |= self.next_announced_end > self.tracker.first_undelivered();
    }
}

/// The end of the log, as of its server's last reply. Before the first reply it is below every offset.
#[allow(unsafe_code, reason = "rdkafka has no safe call for it; its own asks the server each time")]
fn log_end(consumer: &BaseConsumer<Context>, topic: &str, partition: i32) -> i64 {
    let Ok(topic) = CString::new(topic) else { return i64::MIN };
    let (mut start, mut end) = (0, i64::MIN);
    // SAFETY: the client lives as long as `consumer`, the text and the two numbers as long as the call.
    unsafe {
        rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &raw mut start,
            &raw mut end,
        );
    }
    end
}
