//! A job as a Kafka record: CloudEvents' Kafka protocol binding 1.0.2.
//!
//! In binary mode the attributes are headers `ce_NAME`, the media type is the header `content-type`, and the value is
//! the data. The trace of an event without the attribute `traceparent` is in the header of this name, as instrumented
//! producers write it. In structured mode, which the `content-type` shows, everything is in the value. The key is the job's id:
//! it spreads jobs evenly, and keeps the records of one job in order.

use bytes::Bytes;
use jiff::Timestamp;
use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};

use super::headers::{self, RawHeader};
use queue::driver::{Event, STRUCTURED, Unreadable, unreadable};
use queue::{Class, Job, PoolName};

const PREFIX: &str = "ce_";
const CONTENT_TYPE: &str = "content-type";
const DATA_CONTENT_TYPE: &str = "datacontenttype";
const TRACE_PARENT: &str = "traceparent";

/// The job in a record.
#[derive(Debug, Clone)]
pub(super) struct DecodedJob {
    pub(super) job: Job,
    /// Why the record is not a job. Then `job` stands for it, and holds its bytes.
    pub(super) unreadable: Option<Unreadable>,
}

/// The headers and the value of an event's record.
pub(super) fn write(event: Event) -> (OwnedHeaders, Bytes) {
    let mut headers = OwnedHeaders::new_with_capacity(event.attributes.len());
    for (name, value) in &event.attributes {
        let value = Some(value.as_bytes());
        headers = if name == DATA_CONTENT_TYPE {
            headers.insert(Header { key: CONTENT_TYPE, value })
        } else {
            headers.insert(Header { key: &format!("{PREFIX}{name}"), value })
        };
    }
    (headers, event.data)
}

/// Reads a record as a job of this pool and class. `is_named`: a route names its topic, so other programs write to it.
pub(super) fn read(pool: &PoolName, class: Class, is_named: bool, message: &BorrowedMessage<'_>) -> DecodedJob {
    let data = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    let headers = headers::of(message);
    let arrived_at = message.timestamp().to_millis().and_then(|at| Timestamp::from_millisecond(at).ok());
    let arrived_at = arrived_at.unwrap_or_else(Timestamp::now);
    let position = format!("{}/{}/{}", message.topic(), message.partition(), message.offset());
    job_of(pool, class, is_named, &headers, data, arrived_at, &position)
}

fn job_of(
    pool: &PoolName,
    class: Class,
    is_named: bool,
    headers: &[RawHeader],
    data: Bytes,
    arrived_at: Timestamp,
    position: &str,
) -> DecodedJob {
    let media_type = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE.as_bytes()));
    let media_type = media_type.and_then(|(_, value)| str::from_utf8(value).ok());
    let event = event_of(headers, media_type, &data).map(|event| with_trace(event, headers));
    let event = if is_named { event.and_then(Event::without_privileges) } else { event };
    match event.and_then(|event| event.into_job(pool, class, arrived_at)) {
        Ok(job) => DecodedJob { job, unreadable: None },
        Err(why) => {
            let job = unreadable(pool, class, position, media_type, data, arrived_at);
            DecodedJob { job, unreadable: Some(why) }
        }
    }
}

fn event_of(headers: &[RawHeader], media_type: Option<&str>, data: &Bytes) -> Result<Event, Unreadable> {
    if media_type.is_some_and(|media_type| media_type.to_ascii_lowercase().starts_with(STRUCTURED)) {
        return Event::from_structured(data);
    }
    let mut event = Event { attributes: Vec::with_capacity(headers.len()), data: data.clone() };
    for (header, value) in headers {
        let Ok(header) = str::from_utf8(header) else {
            let is_foreign = !header.to_ascii_lowercase().starts_with(PREFIX.as_bytes());
            if is_foreign {
                continue;
            }
            let header = header.escape_ascii();
            return Err(Unreadable::new(format_args!("{header}: the name of the header is not UTF-8")));
        };
        let header = header.to_ascii_lowercase();
        let name = match header.strip_prefix(PREFIX) {
            Some(name) => name.to_owned(),
            None if header == CONTENT_TYPE => DATA_CONTENT_TYPE.to_owned(),
            None => continue,
        };
        // A header may occur twice; the first one counts.
        if event.attributes.iter().all(|(earlier, _)| *earlier != name) {
            let value = str::from_utf8(value).map_err(|_| Unreadable::new(format_args!("{header}: is not UTF-8")))?;
            event.attributes.push((name.into(), value.to_owned()));
        }
    }
    Ok(event)
}

fn with_trace(mut event: Event, headers: &[RawHeader]) -> Event {
    let header = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(TRACE_PARENT.as_bytes()));
    if let Some(value) = header.and_then(|(_, value)| str::from_utf8(value).ok())
        && event.attributes.iter().all(|(name, _)| *name != TRACE_PARENT)
    {
        event.attributes.push((TRACE_PARENT.into(), value.to_owned()));
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &[u8])], data: &'static [u8]) -> DecodedJob {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), *value)).collect();
        read_raw(&headers, data)
    }

    fn read_raw(headers: &[(&[u8], &[u8])], data: &'static [u8]) -> DecodedJob {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let pool = "resnet50".parse().unwrap();
        job_of(&pool, Class::Standard, false, &headers, Bytes::from_static(data), Timestamp::UNIX_EPOCH, "topic/0/7")
    }

    #[test]
    fn a_binary_event_of_an_outside_producer_is_a_job() {
        let headers: [(&str, &[u8]); 5] = [
            ("ce_specversion", b"1.0"),
            ("ce_source", b"/cameras/7"),
            ("CE_ID", b"4711"),
            ("content-type", b"image/jpeg"),
            ("other", b"\xff"),
        ];
        let read = read(&headers, b"\xff\xd8");
        assert_eq!(read.unreadable, None);
        assert_eq!(read.job.input.media_type, "image/jpeg");
        assert_eq!(read.job.input.body, queue::Body::Inline(Bytes::from_static(b"\xff\xd8")));
    }

    #[test]
    fn a_structured_event_is_a_job() {
        let body = br#"{"specversion":"1.0","source":"/s","id":"1","type":"t","data":{"a":1}}"#;
        let read = read(&[("Content-Type", b"application/cloudevents+json; charset=UTF-8")], body);
        assert_eq!(read.unreadable, None);
        assert_eq!(read.job.input.media_type, "application/json");
    }

    #[test]
    fn the_trace_of_an_event_is_in_its_attribute_or_in_the_header_of_an_instrumented_producer() {
        let event: [(&str, &[u8]); 3] = [("ce_specversion", b"1.0"), ("ce_source", b"/s"), ("ce_id", b"1")];
        let with = |more: &[(&str, &'static [u8])]| read(&[&event[..], more].concat(), b"data").job.trace_parent;
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("traceparent", b"\xff")]), None);
        assert_eq!(with(&[("Traceparent", b"00-a")]).as_deref(), Some("00-a"));
        assert_eq!(with(&[("traceparent", b"00-a"), ("ce_traceparent", b"00-b")]).as_deref(), Some("00-b"));
        let body = br#"{"specversion":"1.0","source":"/s","id":"1","type":"t","data":{"a":1}}"#;
        let structured = read(&[("content-type", STRUCTURED.as_bytes()), ("traceparent", b"00-a")], body);
        assert_eq!(structured.job.trace_parent.as_deref(), Some("00-a"));
    }

    #[test]
    fn a_record_that_is_no_event_keeps_its_bytes_and_gives_the_reason() {
        let read = read(&[("ce_specversion", b"\xff"), ("content-type", b"text/plain")], b"hello");
        assert_eq!(read.unreadable.unwrap().to_string(), "ce_specversion: is not UTF-8");
        assert_eq!(read.job.input.media_type, "text/plain");
        assert_eq!(read.job.input.body, queue::Body::Inline(Bytes::from_static(b"hello")));
        assert_eq!(read.job.max_attempts, 1);
    }

    #[test]
    fn the_name_of_a_header_may_be_any_bytes() {
        let event: [(&[u8], &[u8]); 3] = [(b"ce_specversion", b"1.0"), (b"ce_source", b"/s"), (b"ce_id", b"1")];
        let with = |name: &'static [u8]| read_raw(&[&event[..], &[(name, b"x")]].concat(), b"data");
        assert_eq!(with(b"caf\xe9").unreadable, None);
        let read = with(b"CE_caf\xe9");
        let reason = "CE_caf\\xe9: the name of the header is not UTF-8";
        assert_eq!(read.unreadable.unwrap().to_string(), reason);
        assert_eq!(read.job.input.body, queue::Body::Inline(Bytes::from_static(b"data")));
    }
}
