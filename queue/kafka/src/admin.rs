//! Questions about many groups and topics through one client. rdkafka asks for what one group has committed, through a
//! client of its own (and one for each of many pools would have threads without number), and for one topic or all.
#![allow(unsafe_code, reason = "rdkafka has no safe calls for them")]

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::{CStr, CString, c_int, c_void};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{IsError, KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;

use super::cluster::CALL_TIMEOUT;
use super::context::Context;

/// What a client may need beyond the time of a call to say that it is up.
const A_MOMENT: Duration = Duration::from_millis(500);

/// How long a coordinator that is not ready is left alone.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// How many groups are asked for at once.
const GROUPS_AT_ONCE: usize = 64;

/// Of a group what it has committed for these partitions.
pub(super) struct Question {
    pub(super) group: String,
    pub(super) partitions: TopicPartitionList,
}

/// What a group has committed for a partition.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// The offset and the text beside it; `None`: nothing yet.
    pub(super) offset: Option<(i64, String)>,
}

/// One answer per question, in order. Blocks for at most `within`; what is not answered by then has failed.
pub(super) fn committed(
    client: &BaseConsumer<Context>,
    questions: &[Question],
    within: Duration,
) -> Vec<KafkaResult<Vec<Committed>>> {
    let late = || Err(KafkaError::OffsetFetch(Code::OperationTimedOut));
    let mut answers: Vec<_> = questions.iter().map(|_| late()).collect();
    let (queue, deadline) = (Queue::of(client), Instant::now() + within);
    let (mut to_ask, mut to_ask_again): (VecDeque<_>, _) = ((0..questions.len()).collect(), VecDeque::new());
    let mut open = 0;
    loop {
        while open < GROUPS_AT_ONCE
            && let Some(number) = to_ask.pop_front()
        {
            match queue.ask_for_offsets(number, &questions[number]) {
                Ok(()) => open += 1,
                Err(code) => answers[number] = Err(KafkaError::OffsetFetch(code)),
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if open > 0 {
            let Some(event) = queue.next(left) else { return answers };
            open -= 1;
            let (number, answer) = (event.question(), event.offsets());
            if answer.as_ref().is_err_and(|code| is_finding_its_place(*code)) {
                to_ask_again.push_back(number);
            }
            if let Some(answered) = answers.get_mut(number) {
                *answered = answer.map_err(KafkaError::OffsetFetch);
            }
        } else if to_ask_again.is_empty() || left.is_zero() {
            return answers;
        } else {
            let _ = crossbeam_channel::after(ASK_AGAIN.min(left)).recv();
            to_ask.append(&mut to_ask_again);
        }
    }
}

/// The group's coordinator has just begun, or moves. It gives no sign when it is there.
fn is_finding_its_place(code: Code) -> bool {
    matches!(code, Code::CoordinatorLoadInProgress | Code::CoordinatorNotAvailable | Code::NotCoordinator)
}

/// How many partitions each topic has; 0: there is no such topic. Blocks for little more than [`CALL_TIMEOUT`].
pub(super) fn partition_counts(
    client: &BaseConsumer<Context>,
    topics: &BTreeSet<String>,
) -> KafkaResult<HashMap<String, KafkaResult<i32>>> {
    let queue = Queue::of(client);
    queue.ask_for_topics(topics).map_err(KafkaError::MetadataFetch)?;
    let late = KafkaError::MetadataFetch(Code::OperationTimedOut);
    // The client itself says why when that time is up, a moment after it.
    let event = queue.next(CALL_TIMEOUT + A_MOMENT).ok_or(late)?;
    event.partition_counts().map_err(KafkaError::MetadataFetch)
}

/// Where the answers come. Those that come after its end are thrown away by librdkafka.
struct Queue<'a> {
    client: &'a BaseConsumer<Context>,
    queue: *mut native::rd_kafka_queue_t,
}

/// How a question is asked.
struct Options(*mut native::rd_kafka_AdminOptions_t);

impl<'a> Queue<'a> {
    fn of(client: &'a BaseConsumer<Context>) -> Self {
        // SAFETY: the client lives for longer than the queue, which borrows it.
        let queue = unsafe { native::rd_kafka_queue_new(client.client().native_ptr()) };
        Self { client, queue }
    }

    fn ask_for_offsets(&self, number: usize, question: &Question) -> Result<(), Code> {
        let group = CString::new(question.group.as_str()).map_err(|_| Code::InvalidArgument)?;
        let operation = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
        let options = Options::of(self.client, operation, number)?;
        // SAFETY: client, options, queue, text and list live as long as the calls, which copy what they need of them; the
        // request is made here, used once, and destroyed here.
        unsafe {
            let mut request = native::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), question.partitions.ptr());
            let client = self.client.client().native_ptr();
            native::rd_kafka_ListConsumerGroupOffsets(client, &raw mut request, 1, options.0, self.queue);
            native::rd_kafka_ListConsumerGroupOffsets_destroy(request);
        }
        Ok(())
    }

    fn ask_for_topics(&self, topics: &BTreeSet<String>) -> Result<(), Code> {
        let names: Result<Vec<_>, _> = topics.iter().map(|topic| CString::new(topic.as_str())).collect();
        let names = names.map_err(|_| Code::InvalidArgument)?;
        let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let operation = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = Options::of(self.client, operation, 0)?;
        // SAFETY: as above; the collection copies the texts.
        unsafe {
            let topics = native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let client = self.client.client().native_ptr();
            native::rd_kafka_DescribeTopics(client, topics, options.0, self.queue);
            native::rd_kafka_TopicCollection_destroy(topics);
        }
        Ok(())
    }

    fn next(&self, within: Duration) -> Option<Event> {
        let milliseconds = c_int::try_from(within.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue lives; the event is ours to destroy.
        let event = unsafe { native::rd_kafka_queue_poll(self.queue, milliseconds) };
        (!event.is_null()).then_some(Event(event))
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        // SAFETY: it was made in `of`, and nobody else has it.
        unsafe { native::rd_kafka_queue_destroy(self.queue) }
    }
}

impl Options {
    fn of(
        client: &BaseConsumer<Context>,
        operation: native::rd_kafka_admin_op_t,
        question: usize,
    ) -> Result<Self, Code> {
        // SAFETY: the client lives. The opaque pointer is a number that nobody follows.
        unsafe {
            let options = native::rd_kafka_AdminOptions_new(client.client().native_ptr(), operation);
            if options.is_null() {
                return Err(Code::InvalidArgument);
            }
            let options = Self(options);
            native::rd_kafka_AdminOptions_set_opaque(options.0, question as *mut c_void);
            let milliseconds = c_int::try_from(CALL_TIMEOUT.as_millis()).unwrap_or(c_int::MAX);
            let none = std::ptr::null_mut();
            refuse(native::rd_kafka_AdminOptions_set_request_timeout(options.0, milliseconds, none, 0))?;
            Ok(options)
        }
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: they were made in `of`, and nobody else has them.
        unsafe { native::rd_kafka_AdminOptions_destroy(self.0) }
    }
}

/// An answer.
struct Event(*mut native::rd_kafka_event_t);

impl Event {
    /// The number of the question.
    fn question(&self) -> usize {
        // SAFETY: the event lives. What is read was never a pointer.
        unsafe { native::rd_kafka_event_opaque(self.0) as usize }
    }

    fn offsets(&self) -> Result<Vec<Committed>, Code> {
        // SAFETY: the event lives, and all that is read here belongs to it.
        unsafe {
            refuse(native::rd_kafka_event_error(self.0))?;
            let result = native::rd_kafka_event_ListConsumerGroupOffsets_result(self.0);
            if result.is_null() {
                return Err(Code::BadMessage);
            }
            let mut count = 0;
            let groups = native::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
            if groups.is_null() || count != 1 {
                return Err(Code::BadMessage);
            }
            refuse_error(native::rd_kafka_group_result_error(*groups))?;
            let list = native::rd_kafka_group_result_partitions(*groups);
            if list.is_null() || (*list).elems.is_null() {
                return Err(Code::BadMessage);
            }
            let count = usize::try_from((*list).cnt).unwrap_or(0);
            std::slice::from_raw_parts((*list).elems, count).iter().map(|element| read(element)).collect()
        }
    }

    fn partition_counts(&self) -> Result<HashMap<String, KafkaResult<i32>>, Code> {
        // SAFETY: the event lives, and all that is read here belongs to it.
        unsafe {
            refuse(native::rd_kafka_event_error(self.0))?;
            let result = native::rd_kafka_event_DescribeTopics_result(self.0);
            if result.is_null() {
                return Err(Code::BadMessage);
            }
            let mut count = 0;
            let topics = native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            if topics.is_null() {
                return Err(Code::BadMessage);
            }
            let mut counts = HashMap::with_capacity(count);
            for topic in std::slice::from_raw_parts(topics, count) {
                let name = CStr::from_ptr(native::rd_kafka_TopicDescription_name(*topic));
                let found = match refuse_error(native::rd_kafka_TopicDescription_error(*topic)) {
                    Ok(()) => {
                        let mut partitions = 0;
                        native::rd_kafka_TopicDescription_partitions(*topic, &raw mut partitions);
                        Ok(i32::try_from(partitions).unwrap_or(i32::MAX))
                    }
                    Err(code) if is_not_there(code) => Ok(0),
                    Err(code) => Err(KafkaError::MetadataFetch(code)),
                };
                counts.insert(name.to_string_lossy().into_owned(), found);
            }
            Ok(counts)
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it came from the queue, and nobody else has it.
        unsafe { native::rd_kafka_event_destroy(self.0) }
    }
}

/// What the servers say of a topic that is not there, or not yet.
pub(super) fn is_not_there(code: Code) -> bool {
    matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::LeaderNotAvailable)
}

/// # Safety
///
/// What `element` points to must live.
unsafe fn read(element: &native::rd_kafka_topic_partition_t) -> Result<Committed, Code> {
    refuse(element.err)?;
    // SAFETY: a topic is a text that ends in a zero.
    let topic = unsafe { CStr::from_ptr(element.topic) }.to_string_lossy().into_owned();
    let text = if element.metadata.is_null() {
        String::new()
    } else {
        // SAFETY: so many bytes are there.
        let bytes = unsafe { std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) };
        String::from_utf8_lossy(bytes).into_owned()
    };
    // Below 0 it says that there is none.
    let offset = (element.offset >= 0).then_some((element.offset, text));
    Ok(Committed { topic, partition: element.partition, offset })
}

fn refuse(code: RDKafkaRespErr) -> Result<(), Code> {
    if code.is_error() { Err(code.into()) } else { Ok(()) }
}

/// # Safety
///
/// `error` must live, if there is one.
unsafe fn refuse_error(error: *const native::rd_kafka_error_t) -> Result<(), Code> {
    // SAFETY: it is there.
    if error.is_null() { Ok(()) } else { refuse(unsafe { native::rd_kafka_error_code(error) }) }
}
