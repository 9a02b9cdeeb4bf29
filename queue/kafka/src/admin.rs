//! Requests about many groups and topics through one client.
//!
//! rdkafka reads the committed offsets of one group only, through a client of that group: with many pools these clients
//! would need too many threads. It also reads only one topic, or all of them.
#![allow(unsafe_code, reason = "rdkafka has no safe calls for them")]

use std::cell::Cell;
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
use super::error::is_unknown_topic;

/// The client's own timeout of a request: the longest that it takes. It must not expire while the client lives. When
/// librdkafka finds the coordinator of a group after that timeout, it releases the request twice and aborts the process
/// (<https://github.com/confluentinc/librdkafka/issues/4605>). So this module has deadlines of its own, and a client
/// with an unanswered request is abandoned and replaced.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3600);

/// The pause before a group whose coordinator is not ready is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// The number of groups whose coordinators are asked at the same time.
const MAX_OPEN_REQUESTS: usize = 64;

/// Asks for the offsets that a group has committed for these partitions.
pub(super) struct OffsetsQuery {
    pub(super) group: String,
    pub(super) partitions: TopicPartitionList,
}

/// The offset that a group has committed for a partition.
#[derive(Debug)]
pub(super) struct CommittedOffset {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// The offset and its metadata. `None`: nothing is committed yet.
    pub(super) offset: Option<(i64, String)>,
}

/// Returns one answer per query, in order. Blocks for at most `within`. A query without an answer by then has failed.
pub(super) fn committed(
    client: &BaseConsumer<Context>,
    queries: &[OffsetsQuery],
    within: Duration,
) -> Vec<KafkaResult<Vec<CommittedOffset>>> {
    let late = || Err(KafkaError::OffsetFetch(Code::OperationTimedOut));
    let mut answers: Vec<_> = queries.iter().map(|_| late()).collect();
    let (queue, deadline) = (ResponseQueue::new(client), Instant::now() + within);
    let (mut pending, mut to_retry): (VecDeque<_>, _) = ((0..queries.len()).collect(), VecDeque::new());
    loop {
        while queue.unanswered.get() < MAX_OPEN_REQUESTS
            && let Some(number) = pending.pop_front()
        {
            if let Err(code) = queue.request_offsets(number, &queries[number]) {
                answers[number] = Err(KafkaError::OffsetFetch(code));
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if queue.unanswered.get() > 0 {
            let Some(response) = queue.next(left) else { return answers };
            let (number, answer) = (response.request(), response.offsets());
            if answer.as_ref().is_err_and(|code| is_coordinator_moving(*code)) {
                to_retry.push_back(number);
            }
            if let Some(answered) = answers.get_mut(number) {
                *answered = answer.map_err(KafkaError::OffsetFetch);
            }
        } else if to_retry.is_empty() || left.is_zero() {
            return answers;
        } else {
            let _ = crossbeam_channel::after(RETRY_AFTER.min(left)).recv();
            pending.append(&mut to_retry);
        }
    }
}

/// Whether the group's coordinator has just started, or is moving to another server. No event shows when it is ready.
fn is_coordinator_moving(code: Code) -> bool {
    matches!(code, Code::CoordinatorLoadInProgress | Code::CoordinatorNotAvailable | Code::NotCoordinator)
}

/// The number of partitions of each topic; 0: there is no such topic. Blocks for at most [`CALL_TIMEOUT`].
pub(super) fn partition_counts(
    client: &BaseConsumer<Context>,
    topics: &BTreeSet<String>,
) -> KafkaResult<HashMap<String, KafkaResult<i32>>> {
    let queue = ResponseQueue::new(client);
    queue.request_topics(topics).map_err(KafkaError::MetadataFetch)?;
    let late = KafkaError::MetadataFetch(Code::OperationTimedOut);
    let response = queue.next(CALL_TIMEOUT).ok_or(late)?;
    response.partition_counts().map_err(KafkaError::MetadataFetch)
}

/// The queue that receives the responses. librdkafka discards responses that arrive after it is dropped.
struct ResponseQueue<'a> {
    client: &'a BaseConsumer<Context>,
    queue: *mut native::rd_kafka_queue_t,
    /// The number of requests without a response.
    unanswered: Cell<usize>,
}

/// The options of a request.
struct RequestOptions(*mut native::rd_kafka_AdminOptions_t);

impl<'a> ResponseQueue<'a> {
    fn new(client: &'a BaseConsumer<Context>) -> Self {
        // SAFETY: the queue borrows the client, so the client outlives it.
        let queue = unsafe { native::rd_kafka_queue_new(client.client().native_ptr()) };
        Self { client, queue, unanswered: Cell::new(0) }
    }

    fn request_offsets(&self, number: usize, query: &OffsetsQuery) -> Result<(), Code> {
        let group = CString::new(query.group.as_str()).map_err(|_| Code::InvalidArgument)?;
        let operation = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
        let options = RequestOptions::new(self.client, operation, number)?;
        // SAFETY: client, options, queue, text and list outlive the calls, which copy the needed parts. The request is
        // made here, used once, and destroyed here.
        unsafe {
            let mut request = native::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), query.partitions.ptr());
            let client = self.client.client().native_ptr();
            native::rd_kafka_ListConsumerGroupOffsets(client, &raw mut request, 1, options.0, self.queue);
            native::rd_kafka_ListConsumerGroupOffsets_destroy(request);
        }
        self.unanswered.update(|count| count + 1);
        Ok(())
    }

    fn request_topics(&self, topics: &BTreeSet<String>) -> Result<(), Code> {
        let names: Result<Vec<_>, _> = topics.iter().map(|topic| CString::new(topic.as_str())).collect();
        let names = names.map_err(|_| Code::InvalidArgument)?;
        let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let operation = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = RequestOptions::new(self.client, operation, 0)?;
        // SAFETY: as above; the collection copies the texts.
        unsafe {
            let topics = native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let client = self.client.client().native_ptr();
            native::rd_kafka_DescribeTopics(client, topics, options.0, self.queue);
            native::rd_kafka_TopicCollection_destroy(topics);
        }
        self.unanswered.update(|count| count + 1);
        Ok(())
    }

    fn next(&self, within: Duration) -> Option<AdminResponse> {
        let milliseconds = c_int::try_from(within.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue is valid until it is dropped; the event is ours to destroy.
        let event = unsafe { native::rd_kafka_queue_poll(self.queue, milliseconds) };
        if event.is_null() {
            return None;
        }
        self.unanswered.update(|count| count.saturating_sub(1));
        Some(AdminResponse(event))
    }
}

impl Drop for ResponseQueue<'_> {
    fn drop(&mut self) {
        if self.unanswered.get() > 0 {
            self.client.context().abandon();
        }
        // SAFETY: it was made in `new`, and has no other owner.
        unsafe { native::rd_kafka_queue_destroy(self.queue) }
    }
}

impl RequestOptions {
    fn new(
        client: &BaseConsumer<Context>,
        operation: native::rd_kafka_admin_op_t,
        request: usize,
    ) -> Result<Self, Code> {
        // SAFETY: the client is borrowed. The opaque pointer is a number, which is never dereferenced.
        unsafe {
            let options = native::rd_kafka_AdminOptions_new(client.client().native_ptr(), operation);
            if options.is_null() {
                return Err(Code::InvalidArgument);
            }
            let options = Self(options);
            native::rd_kafka_AdminOptions_set_opaque(options.0, request as *mut c_void);
            let milliseconds = c_int::try_from(CLIENT_TIMEOUT.as_millis()).unwrap_or(c_int::MAX);
            let none = std::ptr::null_mut();
            check_code(native::rd_kafka_AdminOptions_set_request_timeout(options.0, milliseconds, none, 0))?;
            Ok(options)
        }
    }
}

impl Drop for RequestOptions {
    fn drop(&mut self) {
        // SAFETY: they were made in `new`, and have no other owner.
        unsafe { native::rd_kafka_AdminOptions_destroy(self.0) }
    }
}

/// A response.
struct AdminResponse(*mut native::rd_kafka_event_t);

impl AdminResponse {
    /// The number of the request.
    fn request(&self) -> usize {
        // SAFETY: the event is valid until it is dropped. The opaque value was never a pointer.
        unsafe { native::rd_kafka_event_opaque(self.0) as usize }
    }

    fn offsets(&self) -> Result<Vec<CommittedOffset>, Code> {
        // SAFETY: the event is valid until it is dropped, and owns all that is read here.
        unsafe {
            check_code(native::rd_kafka_event_error(self.0))?;
            let result = native::rd_kafka_event_ListConsumerGroupOffsets_result(self.0);
            if result.is_null() {
                return Err(Code::BadMessage);
            }
            let mut count = 0;
            let groups = native::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
            if groups.is_null() || count != 1 {
                return Err(Code::BadMessage);
            }
            check_error(native::rd_kafka_group_result_error(*groups))?;
            let list = native::rd_kafka_group_result_partitions(*groups);
            if list.is_null() || (*list).elems.is_null() {
                return Err(Code::BadMessage);
            }
            let count = usize::try_from((*list).cnt).unwrap_or(0);
            std::slice::from_raw_parts((*list).elems, count).iter().map(|element| read(element)).collect()
        }
    }

    fn partition_counts(&self) -> Result<HashMap<String, KafkaResult<i32>>, Code> {
        // SAFETY: the event is valid until it is dropped, and owns all that is read here.
        unsafe {
            check_code(native::rd_kafka_event_error(self.0))?;
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
                let found = match check_error(native::rd_kafka_TopicDescription_error(*topic)) {
                    Ok(()) => {
                        let mut partitions = 0;
                        native::rd_kafka_TopicDescription_partitions(*topic, &raw mut partitions);
                        Ok(i32::try_from(partitions).unwrap_or(i32::MAX))
                    }
                    Err(code) if is_unknown_topic(code) => Ok(0),
                    Err(code) => Err(KafkaError::MetadataFetch(code)),
                };
                counts.insert(name.to_string_lossy().into_owned(), found);
            }
            Ok(counts)
        }
    }
}

impl Drop for AdminResponse {
    fn drop(&mut self) {
        // SAFETY: it came from the queue, and has no other owner.
        unsafe { native::rd_kafka_event_destroy(self.0) }
    }
}

/// # Safety
///
/// The pointers in `element` must be valid.
unsafe fn read(element: &native::rd_kafka_topic_partition_t) -> Result<CommittedOffset, Code> {
    check_code(element.err)?;
    // SAFETY: a topic is a text that ends in a zero byte.
    let topic = unsafe { CStr::from_ptr(element.topic) }.to_string_lossy().into_owned();
    let text = if element.metadata.is_null() {
        String::new()
    } else {
        // SAFETY: the metadata has this number of bytes.
        let bytes = unsafe { std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) };
        String::from_utf8_lossy(bytes).into_owned()
    };
    // A negative offset means that nothing is committed.
    let offset = (element.offset >= 0).then_some((element.offset, text));
    Ok(CommittedOffset { topic, partition: element.partition, offset })
}

fn check_code(code: RDKafkaRespErr) -> Result<(), Code> {
    if code.is_error() { Err(code.into()) } else { Ok(()) }
}

/// # Safety
///
/// `error` must be null or valid.
unsafe fn check_error(error: *const native::rd_kafka_error_t) -> Result<(), Code> {
    // SAFETY: it is not null, so it is valid.
    if error.is_null() { Ok(()) } else { check_code(unsafe { native::rd_kafka_error_code(error) }) }
}
