//! A job as an entry of a stream: fields `ce_NAME` for the attributes of its event, and `data`.
//!
//! A structured event is accepted too: a field `content-type` that begins with `application/cloudevents+json`, and
//! `data`. A requeued entry begins with two additional fields. `first_id` is its id when it was published.
//! `redelivered` is `0` if no consumer has seen it.

use bytes::Bytes;
use jiff::Timestamp;
use redis::{Cmd, FromRedisValue as _, Value, cmd};

use super::streams::{EntryName, StreamNumber};
use queue::driver::{Event, STRUCTURED, Unreadable, unreadable};
use queue::{Error, ErrorKind, Job, PoolName, Result};

const PREFIX: &str = "ce_";
const DATA: &str = "data";
const CONTENT_TYPE: &str = "content-type";

/// The number of additional fields at the beginning of a requeued entry.
const REQUEUED_FIELDS: usize = 2;

pub(super) struct Entry {
    pub(super) name: EntryName,
    /// A consumer may have seen it before.
    pub(super) redelivered: bool,
    first_id: String,
    fields: Vec<(Vec<u8>, Bytes)>,
}

/// The command that adds a job to a stream.
pub(super) fn add(key: &str, job: &Job) -> Cmd {
    let event = Event::of(job);
    let mut command = cmd("XADD");
    command.arg(key).arg("*").arg(DATA).arg(&event.data[..]);
    for (name, value) in &event.attributes {
        command.arg(format!("{PREFIX}{name}")).arg(value);
    }
    command
}

/// The fields of the entry of a job, except `data`: names and values in turn.
pub(crate) fn fields(job: &Job) -> Vec<(String, String)> {
    let attributes = Event::of(job).attributes.into_iter();
    attributes.map(|(name, value)| (format!("{PREFIX}{name}"), value)).collect()
}

impl Entry {
    /// The entries of one stream, read from the server's answer.
    pub(super) fn list(stream: StreamNumber, entries: Value) -> Result<Vec<Self>> {
        array(entries)?.into_iter().map(|entry| Self::read(stream, entry)).collect()
    }

    fn read(stream: StreamNumber, entry: Value) -> Result<Self> {
        let mut parts = array(entry)?.into_iter();
        let (Some(id), Some(fields)) = (parts.next(), parts.next()) else {
            return Err(corrupt("an entry without an id or without fields"));
        };
        let id = text(id)?;
        let mut values = array(fields)?.into_iter();
        let mut fields = Vec::with_capacity(values.len() / 2);
        while let (Some(name), Some(value)) = (values.next(), values.next()) {
            fields.push((bytes(name)?, Bytes::from(bytes(value)?)));
        }
        let (mut first_id, mut redelivered) = (id.clone(), false);
        if stream.holds_requeued_entries() && fields.len() >= REQUEUED_FIELDS {
            let mut additional = fields.drain(..REQUEUED_FIELDS);
            if let (Some((_, id)), Some((_, flag))) = (additional.next(), additional.next()) {
                first_id = String::from_utf8_lossy(&id).into_owned();
                redelivered = flag != "0";
            }
        }
        Ok(Self { name: EntryName { stream, id }, redelivered, first_id, fields })
    }

    /// The job. If the entry is not a job, returns a job in its place, and the reason. `key` is the stream to which the
    /// entry was published.
    pub(super) fn into_job(self, pool: &PoolName, key: &str) -> (Job, Option<Unreadable>) {
        let class = self.name.stream.class();
        let arrived_at = published_at(&self.first_id).unwrap_or_else(Timestamp::now);
        let data = self.field(DATA).cloned().unwrap_or_default();
        match self.event(&data).and_then(|event| event.into_job(pool, class, arrived_at)) {
            Ok(job) => (job, None),
            Err(reason) => {
                let position = format!("{key}/{}", self.first_id);
                let media_type = self.field(CONTENT_TYPE).or_else(|| self.field("ce_datacontenttype"));
                let media_type = media_type.and_then(|value| std::str::from_utf8(value).ok());
                (unreadable(pool, class, &position, media_type, data, arrived_at), Some(reason))
            }
        }
    }

    fn event(&self, data: &Bytes) -> Result<Event, Unreadable> {
        if self.field(CONTENT_TYPE).is_some_and(|value| value.starts_with(STRUCTURED.as_bytes())) {
            return Event::from_structured(data);
        }
        let mut attributes = Vec::with_capacity(self.fields.len());
        for (name, value) in &self.fields {
            let Some(name) = name.strip_prefix(PREFIX.as_bytes()) else { continue };
            let name = String::from_utf8_lossy(name).to_lowercase();
            let value = std::str::from_utf8(value)
                .map_err(|error| Unreadable::new(format_args!("{name}: is not UTF-8: {error}")))?;
            attributes.push((name.into(), value.to_owned()));
        }
        Ok(Event { attributes, data: data.clone() })
    }

    fn field(&self, name: &str) -> Option<&Bytes> {
        self.fields.iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value)
    }
}

/// The time in an id: when the server received the entry.
pub(super) fn published_at(id: &str) -> Option<Timestamp> {
    Timestamp::from_millisecond(id.split('-').next()?.parse().ok()?).ok()
}

pub(super) fn array(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        other => Err(corrupt(format_args!("{other:?} instead of a list"))),
    }
}

pub(super) fn text(value: Value) -> Result<String> {
    String::from_redis_value(value).map_err(corrupt)
}

fn bytes(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        other => Err(corrupt(format_args!("{other:?} instead of bytes"))),
    }
}

fn corrupt(found: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format_args!("redis: a stream returned {found}"))
}
