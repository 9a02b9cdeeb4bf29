//! A job on the wire: a CloudEvent 1.0 whose attributes travel in the broker's own headers and whose data is the
//! untouched body. So a JPEG stays a JPEG on the wire, and an outside producer needs no library of this project.
//!
//! | attribute | field of the job | if it is missing |
//! |---|---|---|
//! | `specversion` | `1.0` | the message cannot be read |
//! | `source`, `id` | together the job's id, see [`JobId::of_event`] | the message cannot be read |
//! | `type` | none; ours is [`TYPE`] | ignored |
//! | `time` | `created_at` | when the broker received the message |
//! | `datacontenttype` | the media type of the input | `application/octet-stream` |
//! | `expirytime` | `deadline_at` | no deadline |
//! | `traceparent` | `trace_parent` | none |
//! | `dataref` | an input in the blob store: its path there | the data is the input |
//! | `datarefsize`, `datarefsha256` | expected size in bytes and digest of that input | not checked |
//! | `datarefborrowed` | another program owns that input: it is not deleted with the job | true, unless the event is ours |
//! | `originsource`, `originid` | `origin`, for a job that is published again | the event is the origin, unless it is ours |
//! | `maxattempts` | `max_attempts` | [`MAX_ATTEMPTS`]; at most [`MOST_ATTEMPTS`] unless the event is ours |
//! | `retentionms` | `retention` | [`RETENTION`]; at most [`LONGEST_RETENTION`] unless the event is ours |
//!
//! The ending of a job is an event too, if the pool has a route for results; see [`Event::of_ending`].
//!
//! Sources: CloudEvents 1.0.2, its extensions `correlation`, `dataref`, `distributed-tracing` and `expirytime`, its JSON
//! format.

mod time;
mod trust;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{BlobRef, Body, Class, Ending, Input, Job, JobId, Origin, PoolName};

/// The `source` of jobs whose `id` is the job's own.
pub(crate) const SOURCE: &str = "/millrace";

/// The `type` of jobs we publish.
pub(crate) const TYPE: &str = "millrace.job";

/// The media type of an event that carries its attributes in its body.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// The `type` of the ending of a job with a result.
const SUCCEEDED: &str = "millrace.job.succeeded";

/// The longest media type that every broker can store in its own field, in bytes.
const LONGEST_MEDIA_TYPE: usize = 255;

const SPEC_VERSION: &str = "1.0";
const MAX_ATTEMPTS: u32 = 5;
const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// The most that an outside event may request.
const MOST_ATTEMPTS: u32 = 100;
const LONGEST_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

const UNKNOWN_MEDIA_TYPE: &str = "application/octet-stream";

/// An event: its attributes, without the prefix of a transport, and its data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    /// Names are unique and in lower case.
    pub attributes: Vec<(Cow<'static, str>, String)>,
    /// The data.
    pub data: Bytes,
}

/// Why a message is not a job, as a text for its sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:.500}")]
pub struct Unreadable(String);

impl Event {
    /// The event of a job. Pool and class are not in it: they follow from its queue.
    pub fn of(job: &Job) -> Self {
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
        if let Some(Origin { source, id }) = &job.origin {
            attributes.push(("originsource".into(), source.clone()));
            attributes.push(("originid".into(), id.clone()));
        }
        Self { data: data_of(&job.input.body, &mut attributes), attributes }
    }

    /// The event of an ending.
    ///
    /// Its `type` is `millrace.job.` and the state, and its `subject` is the job's id. Its `causationid` is the `id` of the
    /// event that requested the job (`causationsource` its `source`) or else the job's id. The data is the output, or the
    /// error as JSON (`type`, `message`). If it is published twice, `source` and `id` are the same. A job that is requeued
    /// and ends again has another event.
    pub fn of_ending(ending: &Ending) -> Self {
        let Ending { id, pool, state, finished_at, output, error, origin, trace_parent } = ending;
        let mut attributes: Vec<(Cow<'static, str>, String)> = vec![
            ("specversion".into(), SPEC_VERSION.to_owned()),
            ("source".into(), format!("{SOURCE}/pools/{pool}")),
            ("id".into(), format!("{id}.{}", finished_at.as_millisecond())),
            ("type".into(), format!("{TYPE}.{}", state.as_str())),
            ("subject".into(), id.to_string()),
            ("time".into(), finished_at.to_string()),
        ];
        match origin {
            Some(Origin { source, id: event_id }) => {
                attributes.push(("causationid".into(), event_id.clone()));
                attributes.push(("causationsource".into(), source.clone()));
            }
            None => attributes.push(("causationid".into(), id.to_string())),
        }
        attributes.extend(trace_parent.clone().map(|trace_parent| ("traceparent".into(), trace_parent)));
        let data = match (output, error) {
            (Some(output), _) => {
                attributes.push(("datacontenttype".into(), output.media_type.clone()));
                data_of(&output.body, &mut attributes)
            }
            (None, Some(error)) => {
                attributes.push(("datacontenttype".into(), "application/json".to_owned()));
                Bytes::from(serde_json::json!(error).to_string())
            }
            (None, None) => Bytes::new(),
        };
        Self { attributes, data }
    }

    /// The event in a body of type [`STRUCTURED`].
    pub fn from_structured(body: &[u8]) -> Result<Self, Unreadable> {
        let event: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(body).map_err(|error| Unreadable(format!("not a structured event: {error}")))?;
        let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
        let (mut attributes, mut data) = (Vec::with_capacity(event.len()), Bytes::new());
        let media_type = event.get("datacontenttype").and_then(|raw| text(raw));
        let is_json = media_type.as_deref().is_none_or(is_json);
        for (name, raw) in event {
            match name.as_str() {
                // A text whose media type is not JSON is the data itself. Otherwise the data is the JSON text, unchanged.
                "data" => match text(&raw).filter(|_| !is_json) {
                    Some(text) => data = Bytes::from(text),
                    None => data = Bytes::from(raw.get().to_owned()),
                },
                "data_base64" => {
                    use base64::Engine as _;
                    let decoded = text(&raw).map(|text| base64::engine::general_purpose::STANDARD.decode(text));
                    let wrong = || Unreadable("data_base64: is not base64".to_owned());
                    data = Bytes::from(decoded.and_then(Result::ok).ok_or_else(wrong)?);
                }
                _ => match serde_json::from_str(raw.get()) {
                    Ok(Value::Null) => {}
                    Ok(Value::String(text)) => attributes.push((name.into(), text)),
                    Ok(Value::Number(_) | Value::Bool(_)) => attributes.push((name.into(), raw.get().to_owned())),
                    _ => return Err(Unreadable(format!("{name}: is not a text, number or boolean"))),
                },
            }
        }
        if media_type.is_none() {
            attributes.push(("datacontenttype".into(), "application/json".to_owned()));
        }
        Ok(Self { attributes, data })
    }

    /// The job that the event requests.
    pub fn into_job(self, pool: &PoolName, class: Class, arrived_at: Timestamp) -> Result<Job, Unreadable> {
        let of = |name: &str| self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let required = |name: &str| {
            of(name).filter(|value| !value.is_empty()).ok_or_else(|| Unreadable(format!("{name}: is missing")))
        };
        match required("specversion")? {
            SPEC_VERSION => {}
            other => return Err(Unreadable(format!("specversion: {other:?} is not {SPEC_VERSION}"))),
        }
        let (source, event_id) = (required("source")?, required("id")?);
        // An ending without a result, published by this project. It contains no input to run.
        if let Some(kind) = of("type").filter(|kind| kind.starts_with("millrace.job.") && *kind != SUCCEEDED) {
            return Err(Unreadable(format!("type: {kind:?} is the ending of a job without a result")));
        }
        let media_type = of("datacontenttype").unwrap_or(UNKNOWN_MEDIA_TYPE);
        if media_type.len() > LONGEST_MEDIA_TYPE {
            return Err(Unreadable(format!("datacontenttype: is longer than {LONGEST_MEDIA_TYPE} bytes")));
        }
        let body = match of("dataref") {
            Some(uri) if uri.contains(':') => {
                // The query of a URL may hold a signature.
                let uri = uri.split(['?', '#']).next().unwrap_or_default();
                return Err(Unreadable(format!("dataref: {uri:?} is not a path in the blob store")));
            }
            Some(path) => {
                let size = of("datarefsize").map(|text| read("datarefsize", text, "a number of bytes"));
                let sha256 = of("datarefsha256").map(str::to_ascii_lowercase);
                // The program that stored the object owns it, unless Millrace publishes one of its own jobs again.
                let is_borrowed = source != SOURCE || of("datarefborrowed").is_some();
                Body::Reference(BlobRef { key: path.to_owned(), size_bytes: size.transpose()?, sha256, is_borrowed })
            }
            None => Body::Inline(self.data.clone()),
        };
        let event = |source: &str, id: &str| Origin { source: source.to_owned(), id: id.to_owned() };
        let origin = match (of("originsource"), of("originid")) {
            (Some(source), Some(id)) => Some(event(source, id)),
            _ => (source != SOURCE).then(|| event(source, event_id)),
        };
        let time = |name: &str| of(name).map(|text| time::read(name, text)).transpose();
        let max_attempts = of("maxattempts").map(|text| read("maxattempts", text, "a number of at least 1"));
        let retention = of("retentionms").map(|text| read("retentionms", text, "a number of milliseconds"));
        let (most_attempts, longest_retention) =
            if source == SOURCE { (u32::MAX, Duration::MAX) } else { (MOST_ATTEMPTS, LONGEST_RETENTION) };
        Ok(Job {
            id: JobId::of_event(pool, source, event_id).map_err(Unreadable::new)?,
            pool: pool.clone(),
            class,
            input: Input { media_type: media_type.to_owned(), body },
            created_at: milliseconds(time("time")?.unwrap_or(arrived_at)),
            deadline_at: time("expirytime")?.map(milliseconds),
            max_attempts: max_attempts.transpose()?.map_or(MAX_ATTEMPTS, NonZeroU32::get).min(most_attempts),
            retention: retention.transpose()?.map_or(RETENTION, Duration::from_millis).min(longest_retention),
            trace_parent: of("traceparent").map(str::to_owned),
            origin,
        })
    }
}

impl Unreadable {
    /// The message is unreadable for this reason.
    pub fn new(reason: impl std::fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

/// The job that represents a message that cannot be read. It has a record like any job, and ends as dead with the bytes
/// of the message. `position` is the broker's own name for the message: every delivery of the message is the same job.
pub fn unreadable(
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
        origin: None,
    }
}

impl JobId {
    /// The id of the job that an event requests in a pool. The pair (`source`, `id`) identifies an event, and each pool
    /// that receives the event has a job of its own. So the id is `event-` and the first 32 hexadecimal digits of
    /// SHA-256(pool, line feed, source, line feed, id). For the source `/millrace` the event's `id` is the job's id; then it
    /// may be invalid.
    pub fn of_event(pool: &PoolName, source: &str, id: &str) -> crate::Result<Self> {
        if source == SOURCE { id.parse() } else { Ok(derived("event", &[pool.as_str(), source, id])) }
    }
}

/// Whether a structured event carries data of this media type as JSON (section 3.1.1 of the JSON format).
fn is_json(media_type: &str) -> bool {
    let subtype = media_type.split(';').next().and_then(|essence| essence.trim().split_once('/'));
    subtype.is_some_and(|(_, subtype)| {
        let subtype = subtype.to_ascii_lowercase();
        subtype == "json" || subtype.ends_with("+json")
    })
}

/// The data of an inline body; for a reference, empty data and the attributes that refer to it.
fn data_of(body: &Body, attributes: &mut Vec<(Cow<'static, str>, String)>) -> Bytes {
    match body {
        Body::Inline(bytes) => bytes.clone(),
        Body::Reference(blob) => {
            attributes.push(("dataref".into(), blob.key.clone()));
            attributes.extend(blob.size_bytes.map(|size| ("datarefsize".into(), size.to_string())));
            attributes.extend(blob.is_borrowed.then(|| ("datarefborrowed".into(), "true".to_owned())));
            attributes.extend(blob.sha256.clone().map(|sha256| ("datarefsha256".into(), sha256)));
            Bytes::new()
        }
    }
}

fn derived(kind: &str, of: &[&str]) -> JobId {
    let text = format!("{kind}-{}", hex::encode(&Sha256::digest(of.join("\n"))[..16]));
    // Lower-case letters, digits and a hyphen always form a valid id. A new random id would prevent the detection of
    // duplicates.
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
    use std::collections::HashMap;

    use super::*;
    use crate::{JobError, JobState, Output};

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
            origin: Some(Origin { source: "/cameras/7".to_owned(), id: "4711".to_owned() }),
        }
    }

    #[test]
    fn a_job_goes_through_an_event_unchanged() {
        let blob = BlobRef {
            key: "input/x/1".to_owned(),
            size_bytes: Some(1 << 33),
            sha256: Some("ab".repeat(32)),
            is_borrowed: false,
        };
        let unchecked = BlobRef { key: "shots/1.jpg".to_owned(), size_bytes: None, sha256: None, is_borrowed: true };
        let unchecked = Job { origin: None, ..job(Body::Reference(unchecked)) };
        let plain = Job { deadline_at: None, trace_parent: None, ..job(Body::Inline(Bytes::new())) };
        for job in [job(Body::Inline(Bytes::from_static(&[0xff, 0]))), job(Body::Reference(blob)), unchecked, plain] {
            assert_eq!(Event::of(&job).into_job(&job.pool, job.class, at(0)).unwrap(), job);
        }
    }

    #[test]
    fn an_outside_event_needs_no_attribute_of_ours() {
        let attributes = [("specversion", "1.0"), ("source", "/cameras/7"), ("id", "4711"), ("type", "shot")];
        let job = event(&attributes).into_job(&pool(), Class::Standard, at(1_800_000_000)).unwrap();
        assert_eq!(job.id.as_str(), "event-992a1a4739fe5b7ac07e985344fd395a");
        assert_eq!((job.created_at, job.deadline_at, job.max_attempts), (at(1_800_000_000), None, MAX_ATTEMPTS));
        assert_eq!(job.origin, Some(Origin { source: "/cameras/7".to_owned(), id: "4711".to_owned() }));
        assert_eq!(job.input.media_type, UNKNOWN_MEDIA_TYPE);
        assert_eq!(job.input.body, Body::Inline(Bytes::from_static(b"\xff\xd8data")));
    }

    #[test]
    fn an_outside_event_cannot_request_endless_attempts_or_print_a_signature() {
        let mut attributes = vec![("specversion", "1.0"), ("source", "/s"), ("id", "1"), ("maxattempts", "4000000000")];
        attributes.push(("retentionms", "18446744073709551615"));
        let job = event(&attributes).into_job(&pool(), Class::Standard, at(0)).unwrap();
        assert_eq!((job.max_attempts, job.retention), (MOST_ATTEMPTS, LONGEST_RETENTION));
        let url = format!("https://bucket/1?signature=secret{}", "x".repeat(9999));
        attributes.push(("dataref", &url));
        let reason = event(&attributes).into_job(&pool(), Class::Standard, at(0)).unwrap_err().to_string();
        assert_eq!(reason, "dataref: \"https://bucket/1\" is not a path in the blob store");
        assert_eq!(Unreadable::new("x".repeat(9999)).to_string().len(), 500);
    }

    #[test]
    fn the_same_id_of_another_source_is_another_job() {
        let ids = [("/a", "1"), ("/b", "1"), ("/a", "2"), ("/millrace", "1")]
            .map(|(source, id)| JobId::of_event(&pool(), source, id).unwrap());
        assert_eq!(JobId::of_event(&pool(), "/a", "1").unwrap(), ids[0]);
        assert_ne!(JobId::of_event(&"other".parse().unwrap(), "/a", "1").unwrap(), ids[0]);
        assert_eq!(ids.into_iter().collect::<std::collections::HashSet<_>>().len(), 4);
    }

    #[test]
    fn a_wrong_attribute_is_named() {
        let sound = [("specversion", "1.0"), ("source", "/millrace"), ("id", "1")];
        for (name, value, reason) in [
            ("specversion", "0.3", "specversion: \"0.3\" is not 1.0"),
            ("source", "", "source: is missing"),
            ("id", "a b", "id: \"a b\" is not 1 to 128"),
            ("time", "yesterday", "time: \"yesterday\" is not an RFC 3339 time"),
            ("expirytime", "1", "expirytime: \"1\" is not an RFC 3339 time"),
            ("maxattempts", "0", "maxattempts: \"0\" is not a number of at least 1"),
            ("retentionms", "-1", "retentionms: \"-1\" is not a number of milliseconds"),
            ("dataref", "s3://bucket/1", "dataref: \"s3://bucket/1\" is not a path in the blob store"),
            ("type", "millrace.job.dead", "type: \"millrace.job.dead\" is the ending of a job without a result"),
            ("datarefsize", "big", "datarefsize: \"big\" is not a number of bytes"),
        ] {
            let mut attributes: Vec<_> = vec![("dataref", "path")];
            attributes.extend(sound);
            attributes.retain(|(known, _)| *known != name);
            attributes.push((name, value));
            let error = event(&attributes).into_job(&pool(), Class::Standard, at(0)).unwrap_err();
            assert!(error.to_string().starts_with(reason), "{error}");
        }
    }

    #[test]
    fn an_ending_names_its_cause_and_carries_the_output_or_the_error() {
        let event = |state, output, error, origin| {
            let event = Event::of_ending(&Ending {
                id: "a.b-1".parse().unwrap(),
                pool: pool(),
                state,
                finished_at: at(2),
                output,
                error,
                origin,
                trace_parent: None,
            });
            let attributes: HashMap<String, String> =
                event.attributes.into_iter().map(|(name, value)| (name.into_owned(), value)).collect();
            (attributes, event.data)
        };
        let output = Output { media_type: "text/plain".to_owned(), body: Body::Inline(Bytes::from_static(b"7")) };
        let origin = Origin { source: "/cameras/7".to_owned(), id: "4711".to_owned() };
        let (succeeded, data) = event(JobState::Succeeded, Some(output), None, Some(origin));
        for (name, value) in [
            ("id", "a.b-1.2000"),
            ("source", "/millrace/pools/resnet50"),
            ("type", "millrace.job.succeeded"),
            ("subject", "a.b-1"),
            ("causationid", "4711"),
            ("causationsource", "/cameras/7"),
            ("datacontenttype", "text/plain"),
        ] {
            assert_eq!(succeeded[name], value, "{name}");
        }
        assert_eq!(data.as_ref(), b"7");

        let error = JobError { kind: "bad_input".to_owned(), message: "no".to_owned() };
        let (failed, data) = event(JobState::Failed, None, Some(error), None);
        assert_eq!((failed["type"].as_str(), failed["causationid"].as_str()), ("millrace.job.failed", "a.b-1"));
        let data: Value = serde_json::from_slice(&data).unwrap();
        assert_eq!(data, serde_json::json!({"type": "bad_input", "message": "no"}));
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
        let quoted = of(r#""datacontenttype":"application/json; charset=utf-8","data":"a sentence""#).unwrap();
        assert_eq!(body(&quoted), Body::Inline(Bytes::from_static(br#""a sentence""#)));
        let exact = of(r#""data":{"n":123456789012345678901234567890}"#).unwrap();
        assert_eq!(body(&exact), Body::Inline(Bytes::from_static(br#"{"n":123456789012345678901234567890}"#)));
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
