//! A job as a message: a CloudEvent in the binary mode of the AMQP binding. An attribute is a header
//! `cloudEvents:NAME` (or `cloudEvents_NAME`, as JMS clients write it), `datacontenttype` is the property
//! `content-type`, and the data is the body. A body of type `application/cloudevents+json` is read too.
//!
//! The trace of an event without the attribute `traceparent` is in the header of this name, as instrumented producers write
//! it.
//!
//! The properties `message-id` (the job's id) and `timestamp` only help to inspect a queue by hand.

use bytes::Bytes;
use jiff::Timestamp;
use lapin::protocol::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use sha2::{Digest, Sha256};

use super::queues::{self, Source};
use queue::driver::{Event, STRUCTURED, Unreadable, unreadable};
use queue::{Ending, Error, ErrorKind, Job, JobId, PoolName, Result};

const PREFIXES: [&str; 2] = ["cloudEvents:", "cloudEvents_"];
const CONTENT_TYPE: &str = "datacontenttype";
const TRACE_PARENT: &str = "traceparent";

/// The delivery mode of a message that survives a restart of the server.
const PERSISTENT: u8 = 2;

/// An event, ready to be sent.
pub(super) struct Message {
    pub(super) queue: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

impl Message {
    /// The message of a job, for the queue of its pool and class.
    pub(super) fn of_job(job: &Job, prefix: &str) -> Result<Self> {
        Self::new(queues::name(prefix, &job.pool, job.class)?, Event::of(job), &job.id, job.created_at)
    }

    /// The message of an ending, for this queue.
    pub(super) fn of_ending(ending: &Ending, queue: ShortString) -> Result<Self> {
        Self::new(queue, Event::of_ending(ending), &ending.id, ending.finished_at)
    }

    fn new(queue: ShortString, event: Event, job: &JobId, at: Timestamp) -> Result<Self> {
        let mut headers = FieldTable::default();
        let mut properties = BasicProperties::default();
        for (name, value) in event.attributes {
            if name == CONTENT_TYPE {
                let refused = |error| {
                    let message = format_args!("job {job}: the media type is too long for the broker: {error}");
                    Error::new(ErrorKind::Refused, message)
                };
                properties = properties.with_content_type(ShortString::try_new(value).map_err(refused)?);
            } else {
                headers.insert(queues::short(&format!("{}{name}", PREFIXES[0]))?, AMQPValue::LongString(value.into()));
            }
        }
        let properties = properties
            .with_headers(headers)
            .with_delivery_mode(PERSISTENT)
            .with_message_id(queues::short(job.as_str())?)
            .with_timestamp(u64::try_from(at.as_second()).unwrap_or(0));
        Ok(Self { queue, properties, body: event.data })
    }
}

/// Reads the job in a message of `source`. If it cannot be read, returns a job that stands for it, and the reason.
pub(super) fn read(
    source: &Source,
    pool: &PoolName,
    properties: &BasicProperties,
    body: Bytes,
) -> (Job, Option<Unreadable>) {
    let class = source.class;
    let sent_at = properties.timestamp().and_then(|seconds| i64::try_from(seconds).ok());
    let arrived_at = sent_at.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or_else(Timestamp::now);
    let event = event(properties, &body).map(|event| with_trace(event, properties));
    let event = if source.is_named { event.and_then(Event::without_privileges) } else { event };
    match event.and_then(|event| event.into_job(pool, class, arrived_at)) {
        Ok(job) => (job, None),
        Err(reason) => {
            let media_type = properties.content_type().as_ref().map(ShortString::as_str);
            let position = position(source.queue.as_str(), properties, &body);
            (unreadable(pool, class, &position, media_type, body, arrived_at), Some(reason))
        }
    }
}

fn event(properties: &BasicProperties, body: &Bytes) -> Result<Event, Unreadable> {
    let content_type = properties.content_type().as_ref().map(ShortString::as_str);
    if content_type.is_some_and(is_structured) {
        return Event::from_structured(body);
    }
    let mut event = Event { attributes: Vec::new(), data: body.clone() };
    if let Some(content_type) = content_type {
        event.attributes.push((CONTENT_TYPE.into(), content_type.to_owned()));
    }
    let headers = properties.headers().as_ref().map(FieldTable::inner).into_iter().flatten();
    for (header, value) in headers {
        let Some(name) = PREFIXES.iter().find_map(|prefix| header.as_str().strip_prefix(prefix)) else { continue };
        let name = name.to_lowercase();
        if event.attributes.iter().any(|(earlier, _)| *earlier == name) {
            continue;
        }
        event.attributes.push((name.into(), text(header.as_str(), value)?));
    }
    Ok(event)
}

fn with_trace(mut event: Event, properties: &BasicProperties) -> Event {
    let header = properties.headers().as_ref().and_then(|headers| headers.inner().get(TRACE_PARENT));
    if let Some(value) = header.and_then(|value| text(TRACE_PARENT, value).ok())
        && event.attributes.iter().all(|(name, _)| *name != TRACE_PARENT)
    {
        event.attributes.push((TRACE_PARENT.into(), value));
    }
    event
}

/// Whether a media type is that of a structured event, apart from its parameters.
fn is_structured(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(STRUCTURED))
}

fn text(header: &str, value: &AMQPValue) -> Result<String, Unreadable> {
    let wrong = |rule: &str| Unreadable::new(format_args!("{header}: is not {rule}"));
    Ok(match value {
        AMQPValue::LongString(text) => {
            std::str::from_utf8(text.as_bytes()).map_err(|_| wrong("text in UTF-8"))?.to_owned()
        }
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(value) => value.to_string(),
        AMQPValue::ShortShortUInt(value) => value.to_string(),
        AMQPValue::ShortInt(value) => value.to_string(),
        AMQPValue::ShortUInt(value) => value.to_string(),
        AMQPValue::LongInt(value) => value.to_string(),
        AMQPValue::LongUInt(value) => value.to_string(),
        AMQPValue::LongLongInt(value) => value.to_string(),
        AMQPValue::Timestamp(seconds) => {
            let time = i64::try_from(*seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
            time.ok_or_else(|| wrong("a time"))?.to_string()
        }
        _ => return Err(wrong("a text, number, boolean or time")),
    })
}

/// Identifies a message, also when it is delivered again. AMQP has no such identifier.
fn position(queue: &str, properties: &BasicProperties, body: &[u8]) -> String {
    let mut digest = Sha256::new();
    for (name, value) in properties.headers().as_ref().map(FieldTable::inner).into_iter().flatten() {
        // Other headers, such as `x-delivery-count`, are set by the server and change.
        if PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix)) {
            digest.update(format!("{name}\n{value:?}\n"));
        }
    }
    digest.update(body);
    let id = properties.message_id().as_ref().map_or("", ShortString::as_str);
    format!("{queue}/{id}/{}", hex::encode(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_of_an_event_is_in_its_attribute_or_in_the_header_of_an_instrumented_producer() {
        let trace_of = |headers: &[(&str, AMQPValue)]| {
            let mut table = FieldTable::default();
            for (name, value) in headers {
                table.insert(queues::short(name).unwrap(), value.clone());
            }
            let properties = BasicProperties::default().with_headers(table);
            let event = with_trace(event(&properties, &Bytes::new()).unwrap(), &properties);
            let found = event.attributes.into_iter().find(|(name, _)| name == TRACE_PARENT);
            found.map(|(_, value)| value)
        };
        let text = |text: &str| AMQPValue::LongString(text.into());
        assert_eq!(trace_of(&[]), None);
        assert_eq!(trace_of(&[("traceparent", AMQPValue::LongString(vec![0xff].into()))]), None);
        assert_eq!(trace_of(&[("traceparent", text("00-a"))]).as_deref(), Some("00-a"));
        let both = [("traceparent", text("00-a")), ("cloudEvents:traceparent", text("00-b"))];
        assert_eq!(trace_of(&both).as_deref(), Some("00-b"));
    }
}
