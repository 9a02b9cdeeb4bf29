//! A partition that this consumer has.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings::rd_kafka_get_watermark_offsets;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Message, Offset};

use super::committer::Commit;
use super::context::Context;
use super::held::Place;
use super::mark::Mark;
use super::record::{self, Read};
use super::tracker::{Arrival, Tracker};
use queue::{Class, PoolName};

/// Its records, fetched ahead into a queue of its own, and what became of those handed out.
pub(super) struct Partition {
    pub(super) topic: Arc<str>,
    pub(super) number: i32,
    pub(super) class: Class,
    /// It is to be given up: nothing more is handed out.
    pub(super) is_leaving: bool,
    /// What a commit would say has changed since the last.
    pub(super) is_dirty: bool,
    /// What is before this is committed as handed out: who has the partition next knows.
    known_as_handed_out: i64,
    /// What the last commit said, or is about to say, of that.
    announced: i64,
    queue: PartitionQueue<Context>,
    tracker: Tracker,
    /// How often its log has begun anew. What was handed out of an earlier one has nothing to do with this one.
    log: u64,
    /// What is in our worker's hands, or given back: to be handed out again.
    kept: BTreeMap<i64, Read>,
    /// Where the next record to come is at least. `None`: nothing has come, not even word that nothing is there.
    position: Option<i64>,
    /// Nothing is there, or it has been waited for long enough.
    is_silent: bool,
    /// How many records the last take gave, if it could have given more: how many the next one is likely to give.
    pace: usize,
}

/// A pace below this is no load that a commit per batch could hold up.
const FAST: usize = 16;

/// A record to hand out.
pub(super) struct Taken {
    pub(super) log: u64,
    pub(super) offset: i64,
    pub(super) read: Read,
    pub(super) redelivered: bool,
}

impl Partition {
    /// `committed` is what the group knows of it.
    pub(super) fn new(
        topic: Arc<str>,
        number: i32,
        class: Class,
        queue: PartitionQueue<Context>,
        committed: Option<(i64, Option<Mark>)>,
    ) -> Self {
        let tracker = match &committed {
            Some((offset, mark)) => Tracker::resume(Some(*offset), mark.as_ref()),
            None => Tracker::resume(None, None),
        };
        Self {
            topic,
            number,
            class,
            is_leaving: false,
            // Who had it before is gone: what was in their hands is back.
            is_dirty: committed.is_some_and(|(_, mark)| mark.is_some_and(|mark| mark.open_count() > mark.back)),
            known_as_handed_out: tracker.handed_out(),
            announced: tracker.handed_out(),
            queue,
            tracker,
            log: 0,
            kept: BTreeMap::new(),
            position: None,
            is_silent: false,
            pace: 0,
        }
    }

    pub(super) fn is(&self, topic: &str, number: i32) -> bool {
        &*self.topic == topic && self.number == number
    }

    /// Up to `max` records: first what was given back, then what comes. They are handed out from here on, also those
    /// that come with an error.
    pub(super) fn take(
        &mut self,
        consumer: &BaseConsumer<Context>,
        pool: &PoolName,
        max: usize,
    ) -> (Vec<Taken>, KafkaResult<()>) {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(offset) = self.tracker.hand_out_again()
        {
            self.is_dirty = true;
            if let Some(read) = self.kept.get(&offset) {
                taken.push(Taken { log: self.log, offset, read: read.clone(), redelivered: true });
            }
        }
        self.pace = max;
        while taken.len() < max {
            match self.queue.poll(Duration::ZERO) {
                None => {
                    self.pace = 0;
                    break;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.is_silent = true;
                    self.position.get_or_insert(0);
                    if let Err(error) = self.reach_end(consumer) {
                        return (taken, Err(error));
                    }
                }
                Some(Err(error)) => return (taken, Err(error)),
                Some(Ok(message)) => {
                    let offset = message.offset();
                    self.is_silent = false;
                    self.position = Some(offset + 1);
                    self.is_dirty = true;
                    if self.tracker.begins_anew_with(offset) {
                        let (topic, partition) = (&*self.topic, self.number);
                        tracing::warn!(topic, partition, offset, "the log has begun anew, or was cut short");
                        // Other records use the offsets now: what was handed out before is not to be mistaken for them.
                        self.log += 1;
                        self.kept.clear();
                        (self.known_as_handed_out, self.announced) = (offset, offset);
                    }
                    let redelivered = match self.tracker.arrive(offset) {
                        Arrival::Done => continue,
                        arrival => arrival == Arrival::Again,
                    };
                    let read = record::read(pool, self.class, &message);
                    self.kept.insert(offset, read.clone());
                    taken.push(Taken { log: self.log, offset, read, redelivered });
                }
            }
        }
        (taken, Ok(()))
    }

    /// librdkafka has passed everything up to the end of the log. The last of it may be no record: a transaction leaves
    /// a marker, and an aborted one its records too. Were they not passed here, they would count as waiting for ever.
    fn reach_end(&mut self, consumer: &BaseConsumer<Context>) -> KafkaResult<()> {
        let is_open = log_end(consumer, &self.topic, self.number) > self.tracker.handed_out();
        if !is_open && !self.tracker.is_expecting() {
            return Ok(());
        }
        let positions = consumer.position()?;
        if let Some(Offset::Offset(position)) =
            positions.find_partition(&self.topic, self.number).map(|found| found.offset())
        {
            self.is_dirty |= self.tracker.reach(position);
        }
        Ok(())
    }

    /// Nothing more is there, as far as is known. Called when its queue is empty.
    pub(super) fn is_drained(&self, consumer: &BaseConsumer<Context>) -> bool {
        self.is_leaving
            || self.is_silent
            || self.position.is_some_and(|position| position >= log_end(consumer, &self.topic, self.number))
    }

    /// It has been waited for long enough.
    pub(super) fn give_up_waiting(&mut self) {
        self.is_silent = true;
    }

    pub(super) fn done(&mut self, place: Place) {
        if place.log == self.log {
            self.kept.remove(&place.offset);
            self.tracker.done(place.offset);
            self.is_dirty = true;
        }
    }

    pub(super) fn give_back(&mut self, place: Place) {
        if place.log == self.log {
            self.tracker.give_back(place.offset);
            self.is_dirty = true;
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.tracker.is_held()
    }

    /// What is to be committed, with a mark of at most so many bytes, and up to where that says that it was handed out.
    ///
    /// Under load the next batch is announced with this one, so that it need not wait for a commit of its own. Should we
    /// be killed, what was announced and never handed out comes as redelivered.
    pub(super) fn commit(&mut self, consumer: &BaseConsumer<Context>, mark_bytes: usize) -> (Commit, i64) {
        let in_log = log_end(consumer, &self.topic, self.number).saturating_sub(self.tracker.handed_out()).max(0);
        let is_fast = self.pace >= FAST && !self.is_leaving;
        let ahead = if is_fast { in_log.unsigned_abs().min(self.pace as u64) } else { 0 };
        let (offset, mark) = self.tracker.commit(ahead);
        let (topic, partition) = (Arc::clone(&self.topic), self.number);
        self.announced = offset.saturating_add_unsigned(mark.handed_out);
        // It may take back what an earlier one announced.
        self.known_as_handed_out = self.known_as_handed_out.min(self.announced);
        self.is_dirty = false;
        (Commit { topic, partition, offset, mark: mark.to_text(mark_bytes) }, self.announced)
    }

    /// The group knows that what is before this is handed out.
    pub(super) fn is_committed(&mut self, handed_out: i64) {
        // The log may have begun anew since that was sent.
        self.known_as_handed_out = handed_out.min(self.announced);
    }

    /// Whether whoever has the partition next would know that this was handed out.
    pub(super) fn is_known_as_handed_out(&self, offset: i64) -> bool {
        offset < self.known_as_handed_out
    }

    /// Nothing more is handed out, and nothing more is announced.
    pub(super) fn begin_to_leave(&mut self) {
        self.is_leaving = true;
        self.is_dirty |= self.announced > self.tracker.handed_out();
    }
}

/// Where the log ends, as the last answer of its server said; before the first one this is below every offset.
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
