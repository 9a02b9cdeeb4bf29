//! A job on the wire: a CloudEvent 1.0 whose attributes travel in the broker's own headers and whose data is the
//! untouched body, so that a JPEG is a JPEG on the wire and an outside producer needs no library of ours.
//!
//! | attribute | of the job | where it is missing |
//! |---|---|---|
//! | `specversion` | `1.0` | the message cannot be read |
//! | `source`, `id` | together the job's id, see [`job_id`] | the message cannot be read |
//! | `type` | nothing; ours is [`TYPE`] | passed over |
//! | `time` | `created_at` | when the broker got the message |
//! | `datacontenttype` | the media type of the input | `application/octet-stream` |
//! | `expirytime` | `deadline_at` | no deadline |
//! | `traceparent` | `trace_parent` | none |
//! | `dataref`, `datarefsize`, `datarefsha256` | an input in the blob store: key, bytes, digest | the data is the input |
//! | `maxattempts` | `max_attempts` | [`MAX_ATTEMPTS`] |
//! | `retentionms` | `retention` | [`RETENTION`] |
//!
//! Sources: CloudEvents 1.0.2, its extensions `dataref`, `distributed-tracing` and `expirytime`, its JSON format.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::{BlobRef, Body, Class, Input, Job, JobId, PoolName};

/// The `source` of jobs whose `id` is the job's own.
pub(crate) const SOURCE: &str = "/millrace";

/// The `type` of jobs we publish.
pub(crate) const TYPE: &str = "millrace.job";

/// The media type of an event that carries its attributes in its body.
pub(crate) const STRUCTURED: &str = "application/cloudevents+json";

const SPEC_VERSION: &str = "1.0";
const MAX_ATTEMPTS: u32 = 5;
const RETENTION: Duration = Duration::from_secs(24 * 3600);
const UNKNOWN_MEDIA_TYPE: &str = "application/octet-stream";

/// An event: attributes without any transport's prefix, and data.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Event {
    /// Names are unique and in lower case.
    pub(crate) attributes: Vec<(Cow<'static, str>, String)>,
    pub(crate) data: Bytes,
}

/// Why a message is not a job, in words for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(String);

impl Event {
    /// The event of a job. Pool and class are told by the queue it is put in.
    pub(crate) fn of(job: &Job) -> Self {
        let mut attributes: Vec<(Cow<'static, str>, String)> = vec![
            ("specversion".into(), SPEC_VERSION.to_owned()),
            ("source".into(), SOURCE.to_owned()),
            ("id".into(), job.id.to_string()),
            ("type".into(), TYPE.to_owned()),
            ("time".into(), job.created_at.to_string()),
            ("datacontenttype".into(), job.input.media_type.clone()),
            ("maxattempts".into(), job.max_attempts.to_string()),
            ("retentionms".into(), job.retention.as_millis().to_string()),
        ];
        if let Some(deadline) = job.deadline_at {
            attributes.push(("expirytime".into(), deadline.to_string()));
        }
        if let Some(trace_parent) = &job.trace_parent {
            attributes.push(("traceparent".into(), trace_parent.clone()));
        }
        let data = match &job.input.body {
            Body::Inline(bytes) => bytes.clone(),
            Body::Reference(blob) => {
                attributes.push(("dataref".into(), blob.key.clone()));
                attributes.push(("datarefsize".into(), blob.size_bytes.to_string()));
                attributes.push(("datarefsha256".into(), blob.sha256.clone()));
                Bytes::new()
            }
        };
        Self { attributes, data }
    }

    /// The event in a body of type [`STRUCTURED`].
    pub(crate) fn from_structured(body: &[u8]) -> Result<Self, Unreadable> {
        let event: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(body).map_err(|error| Unreadable(format!("not a structured event: {error}")))?;
        let (mut attributes, mut data, mut has_type) = (Vec::new(), Bytes::new(), false);
        for (name, value) in event {
            match (name.as_str(), value) {
                (_, serde_json::Value::Null) => {}
                // The JSON format leaves data that is text as it is, whatever its media type.
                ("data", serde_json::Value::String(text)) => data = Bytes::from(text),
                ("data", value) => data = Bytes::from(value.to_string()),
                ("data_base64", serde_json::Value::String(text)) => {
                    use base64::Engine as _;
                    let decoded = base64::engine::general_purpose::STANDARD.decode(text);
                    data = Bytes::from(
                        decoded.map_err(|error| Unreadable(format!("data_base64: is not base64: {error}")))?,
                    );
                }
                (_, serde_json::Value::String(text)) => {
                    has_type |= name == "datacontenttype";
                    attributes.push((name.into(), text));
                }
                (_, value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => {
                    attributes.push((name.into(), value.to_string()));
                }
                _ => return Err(Unreadable(format!("{name}: is not a text, number or boolean"))),
            }
        }
        if !has_type {
            attributes.push(("datacontenttype".into(), "application/json".to_owned()));
        }
        Ok(Self { attributes, data })
    }

    /// The job that the event asks for.
    pub(crate) fn into_job(self, pool: &PoolName, class: Class, arrived_at: Timestamp) -> Result<Job, Unreadable> {
        let of = |name: &str| self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let required = |name: &str| {
            of(name).filter(|value| !value.is_empty()).ok_or_else(|| Unreadable(format!("{name}: is missing")))
        };
        match required("specversion")? {
            SPEC_VERSION => {}
            other => return Err(Unreadable(format!("specversion: {other:?} is not {SPEC_VERSION}"))),
        }
        let body = match of("dataref") {
            Some(key) => Body::Reference(BlobRef {
                key: key.to_owned(),
                size_bytes: read("datarefsize", required("datarefsize")?, "a number of bytes")?,
                sha256: required("datarefsha256")?.to_owned(),
            }),
            None => Body::Inline(self.data.clone()),
        };
        let time = |name: &str| of(name).map(|text| read::<Timestamp>(name, text, "an RFC 3339 time")).transpose();
        let max_attempts = of("maxattempts").map(|text| read("maxattempts", text, "a number of at least 1"));
        let retention = of("retentionms").map(|text| read("retentionms", text, "a number of milliseconds"));
        Ok(Job {
            id: job_id(required("source")?, required("id")?)?,
            pool: pool.clone(),
            class,
            input: Input { media_type: of("datacontenttype").unwrap_or(UNKNOWN_MEDIA_TYPE).to_owned(), body },
            created_at: milliseconds(time("time")?.unwrap_or(arrived_at)),
            deadline_at: time("expirytime")?.map(milliseconds),
            max_attempts: max_attempts.transpose()?.map_or(MAX_ATTEMPTS, std::num::NonZeroU32::get),
            retention: retention.transpose()?.map_or(RETENTION, Duration::from_millis),
            trace_parent: of("traceparent").map(str::to_owned),
        })
    }
}

impl Unreadable {
    pub(crate) fn new(reason: impl std::fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

/// What stands for a message that cannot be read, so that it is accounted for like any job and ends as dead with its
/// bytes. `position` is the broker's own name for the message: the same message is the same job however often it comes.
pub(crate) fn unreadable(
    pool: &PoolName,
    class: Class,
    position: &str,
    media_type: Option<&str>,
    bytes: Bytes,
    arrived_at: Timestamp,
) -> Job {
    Job {
        id: derived("unreadable", &[pool.as_str(), position]),
        pool: pool.clone(),
        class,
        input: Input { media_type: media_type.unwrap_or(UNKNOWN_MEDIA_TYPE).to_owned(), body: Body::Inline(bytes) },
        created_at: milliseconds(arrived_at),
        deadline_at: None,
        max_attempts: 1,
        retention: RETENTION,
        trace_parent: None,
    }
}

/// The id of the job that an event asks for. (`source`, `id`) is what makes an event unique, so both are in it: for
/// sources other than [`SOURCE`] it is `event-` and the first 32 hexadecimal digits of SHA-256(source, line feed, id).
pub(crate) fn job_id(source: &str, id: &str) -> Result<JobId, Unreadable> {
    if source == SOURCE {
        return id.parse().map_err(Unreadable::new);
    }
    Ok(derived("event", &[source, id]))
}

fn derived(kind: &str, of: &[&str]) -> JobId {
    let digest = Sha256::digest(of.join("\n"));
    let mut text = format!("{kind}-");
    for byte in &digest[..16] {
        let _ = write!(text, "{byte:02x}");
    }
    // Lower-case letters, digits and a hyphen are always an id; a fresh one would only cost the duplicate's detection.
    text.parse().unwrap_or_else(|_| JobId::generate())
}

fn read<T: FromStr>(name: &str, text: &str, rule: &str) -> Result<T, Unreadable> {
    text.parse().map_err(|_| Unreadable(format!("{name}: {text:?} is not {rule}")))
}

/// All times of a job are whole milliseconds.
fn milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> PoolName {
        "resnet50".parse().unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn event(attributes: &[(&'static str, &str)]) -> Event {
        let attributes = attributes.iter().map(|(name, value)| ((*name).into(), (*value).to_owned())).collect();
        Event { attributes, data: Bytes::from_static(b"\xff\xd8data") }
    }

    fn job(body: Body) -> Job {
        Job {
            id: "a.b-1".parse().unwrap(),
            pool: pool(),
            class: Class::Batch,
            input: Input { media_type: "image/jpeg; name=\"größer\"".to_owned(), body },
            created_at: Timestamp::from_millisecond(1_712_345_678_901).unwrap(),
            deadline_at: Some(Timestamp::from_millisecond(1_912_345_678_001).unwrap()),
            max_attempts: u32::MAX,
            retention: Duration::from_millis(86_400_001),
            trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        }
    }

    #[test]
    fn a_job_goes_through_an_event_unchanged() {
        let blob = BlobRef { key: "input/x/1".to_owned(), size_bytes: 1 << 33, sha256: "ab".repeat(32) };
        let plain = Job { deadline_at: None, trace_parent: None, ..job(Body::Inline(Bytes::new())) };
        for job in [job(Body::Inline(Bytes::from_static(&[0xff, 0]))), job(Body::Reference(blob)), plain] {
            assert_eq!(Event::of(&job).into_job(&job.pool, job.class, at(0)).unwrap(), job);
        }
    }

    #[test]
    fn an_outside_event_needs_no_attribute_of_ours() {
        let attributes = [("specversion", "1.0"), ("source", "/cameras/7"), ("id", "4711"), ("type", "shot")];
        let job = event(&attributes).into_job(&pool(), Class::Standard, at(1_800_000_000)).unwrap();
        assert_eq!(job.id.as_str(), "event-e1eadf07b4283c4e42668929e80037a5");
        assert_eq!((job.created_at, job.deadline_at, job.max_attempts), (at(1_800_000_000), None, MAX_ATTEMPTS));
        assert_eq!(job.input.media_type, UNKNOWN_MEDIA_TYPE);
        assert_eq!(job.input.body, Body::Inline(Bytes::from_static(b"\xff\xd8data")));
    }

    #[test]
    fn the_same_id_of_another_source_is_another_job() {
        let ids = [("/a", "1"), ("/b", "1"), ("/a", "2"), ("/millrace", "1")].map(|(source, id)| job_id(source, id));
        assert_eq!(job_id("/a", "1"), ids[0]);
        assert_eq!(ids.into_iter().map(Result::unwrap).collect::<std::collections::HashSet<_>>().len(), 4);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let sound = [("specversion", "1.0"), ("source", "/millrace"), ("id", "1")];
        for (name, value, reason) in [
            ("specversion", "0.3", "specversion: \"0.3\" is not 1.0"),
            ("source", "", "source: is missing"),
            ("id", "a b", "id: \"a b\" is not 1 to 128"),
            ("time", "yesterday", "time: \"yesterday\" is not an RFC 3339 time"),
            ("expirytime", "1", "expirytime: \"1\" is not an RFC 3339 time"),
            ("maxattempts", "0", "maxattempts: \"0\" is not a number of at least 1"),
            ("retentionms", "-1", "retentionms: \"-1\" is not a number of milliseconds"),
            ("dataref", "input/1", "datarefsize: is missing"),
        ] {
            let mut attributes: Vec<_> = sound.into_iter().filter(|(known, _)| *known != name).collect();
            attributes.push((name, value));
            let error = event(&attributes).into_job(&pool(), Class::Standard, at(0)).unwrap_err();
            assert!(error.to_string().starts_with(reason), "{error}");
        }
    }

    #[test]
    fn a_structured_event_carries_text_json_or_base64() {
        let of = |rest: &str| {
            let json = format!(r#"{{"specversion":"1.0","source":"/s","id":"1","type":"t","maxattempts":2,{rest}}}"#);
            Event::from_structured(json.as_bytes())?.into_job(&pool(), Class::Standard, at(0))
        };
        let body = |job: &Job| job.input.body.clone();
        let text = of(r#""datacontenttype":"text/plain","data":"hi""#).unwrap();
        assert_eq!((text.input.media_type.as_str(), text.max_attempts), ("text/plain", 2));
        assert_eq!(body(&text), Body::Inline(Bytes::from_static(b"hi")));
        let json = of(r#""data":{"a":[1]}"#).unwrap();
        assert_eq!(json.input.media_type, "application/json");
        assert_eq!(body(&json), Body::Inline(Bytes::from_static(br#"{"a":[1]}"#)));
        let bytes = of(r#""datacontenttype":"image/jpeg","data_base64":"/9g=""#).unwrap();
        assert_eq!(body(&bytes), Body::Inline(Bytes::from_static(&[0xff, 0xd8])));
        for broken in [r#""data_base64":"?""#, r#""time":[1]"#, r#""data""#] {
            assert!(of(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn an_unreadable_message_is_the_same_job_each_time() {
        let of =
            |position: &str| unreadable(&pool(), Class::Standard, position, None, Bytes::from_static(b"?"), at(0)).id;
        assert_eq!(of("topic/0/17"), of("topic/0/17"));
        assert_ne!(of("topic/0/17"), of("topic/0/18"));
    }
}
