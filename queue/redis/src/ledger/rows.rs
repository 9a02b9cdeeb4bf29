//! Reads a job's record: a hash, and the strings with its input and output.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;

use queue::ledger::{Attempt, Finished, JobRecord, JobState};
use queue::{BlobRef, Body, Class, Error, ErrorKind, Input, Job, JobError, JobId, Origin, Output, Result, WorkerId};

/// The fields of a hash, by name.
pub(super) type Fields = HashMap<String, Vec<u8>>;

/// A hash, and the bytes of the output or input that belongs to it.
pub(super) type Row = (Fields, Option<Vec<u8>>);

/// The record of a job with its output. `None` where the hash is empty: Redis returns that for a missing key.
pub(super) fn record(id: &JobId, (fields, output): Row) -> Result<Option<JobRecord>> {
    if fields.is_empty() {
        return Ok(None);
    }
    let row = RowReader { id, fields: &fields };
    let error = match (row.text("error_type")?, row.text("error_message")?) {
        (Some(kind), Some(message)) => Some(JobError { kind, message }),
        _ => None,
    };
    let output = match row.text("output_type")? {
        Some(media_type) => Some(Output { media_type, body: row.body("output_blob", output)? }),
        None => None,
    };
    Ok(Some(JobRecord {
        id: id.clone(),
        pool: row.required("pool")?,
        class: row.class()?,
        state: state(row.required("state")?)?,
        attempts: row.required("attempts")?,
        max_attempts: row.required("max_attempts")?,
        created_at: row.required_time("created_at")?,
        deadline_at: row.time("deadline_at")?,
        started_at: row.time("started_at")?,
        finished_at: row.time("finished_at")?,
        worker: row.text("worker")?.map(WorkerId::new),
        error,
        output,
        history: Vec::new(),
    }))
}

/// A job's failed attempts, from the JSON that the scripts wrote.
pub(super) fn history(id: &JobId, attempts: &[Vec<u8>]) -> Result<Vec<Attempt>> {
    #[derive(Deserialize)]
    struct StoredAttempt {
        number: u32,
        worker: String,
        started_at: i64,
        ended_at: i64,
        #[serde(flatten)]
        error: JobError,
    }
    let read = |json: &Vec<u8>| {
        let read: StoredAttempt = serde_json::from_slice(json).ok()?;
        Some(Attempt {
            number: read.number,
            worker: WorkerId::new(read.worker),
            started_at: Timestamp::from_millisecond(read.started_at).ok()?,
            ended_at: Timestamp::from_millisecond(read.ended_at).ok()?,
            error: read.error,
        })
    };
    let corrupt = |json: &Vec<u8>| {
        let value = String::from_utf8_lossy(json);
        Error::new(ErrorKind::Corrupt, format_args!("redis holds {value:?} as an attempt at job {id}"))
    };
    attempts.iter().map(|json| read(json).ok_or_else(|| corrupt(json))).collect()
}

/// The input of a job, from its media type, its blob reference and its bytes.
pub(super) fn input(id: &JobId, media_type: String, blob: Option<Vec<u8>>, bytes: Option<Vec<u8>>) -> Result<Input> {
    let body = match (blob, bytes) {
        (Some(json), _) => Body::Reference(self::blob(&json)?),
        (None, Some(bytes)) => Body::Inline(Bytes::from(bytes)),
        (None, None) => {
            return Err(Error::new(ErrorKind::Corrupt, format_args!("redis has no input of job {id}")));
        }
    };
    Ok(Input { media_type, body })
}

/// The job of a record, as it was submitted.
pub(super) fn job(id: &JobId, (fields, input): Row) -> Result<Job> {
    let row = RowReader { id, fields: &fields };
    Ok(Job {
        id: id.clone(),
        pool: row.required("pool")?,
        class: row.class()?,
        input: Input { media_type: row.required("media_type")?, body: row.body("blob", input)? },
        created_at: row.required_time("created_at")?,
        deadline_at: row.time("deadline_at")?,
        max_attempts: row.required("max_attempts")?,
        retention: Duration::from_millis(row.required("retention")?),
        trace_parent: row.text("trace_parent")?,
        origin: row.origin()?,
    })
}

/// The answer for an attempt whose job has the state `code` since `now`, in milliseconds since the Unix epoch.
pub(super) fn finished(code: i64, now: i64) -> Result<Finished> {
    let state = state(code)?;
    let time = || {
        Timestamp::from_millisecond(now)
            .map_err(|_| Error::new(ErrorKind::Corrupt, format_args!("redis returned {now} as its time")))
    };
    Ok(Finished::Recorded { state, finished_at: state.has_ended().then(time).transpose()? })
}

/// The state with a code of the scripts: its index in [`JobState::ALL`].
pub(super) fn state(code: i64) -> Result<JobState> {
    let state = usize::try_from(code).ok().and_then(|code| JobState::ALL.get(code));
    state.copied().ok_or_else(|| Error::new(ErrorKind::Corrupt, format_args!("redis holds {code} as a state")))
}

/// The blob references of deleted jobs. An unreadable one is logged and left out: its blob stays and only takes space.
pub(super) fn blobs_of_deleted(references: &[Vec<u8>]) -> Vec<BlobRef> {
    let readable = |json: &Vec<u8>| {
        blob(json)
            .inspect_err(|error| tracing::error!(%error, "cannot read a blob reference; its blob is not deleted"))
            .ok()
    };
    references.iter().filter_map(readable).collect()
}

/// A blob reference, from the JSON in the hash.
pub(super) fn blob(json: &[u8]) -> Result<BlobRef> {
    serde_json::from_slice(json)
        .map_err(|error| Error::caused(ErrorKind::Corrupt, "redis holds an invalid blob reference", error))
}

struct RowReader<'a> {
    id: &'a JobId,
    fields: &'a Fields,
}

impl RowReader<'_> {
    fn text(&self, field: &'static str) -> Result<Option<String>> {
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).map_err(|_| self.corrupt(field, bytes));
        self.fields.get(field).map(text).transpose()
    }

    fn required<T: FromStr>(&self, field: &'static str) -> Result<T> {
        let text = self.text(field)?.ok_or_else(|| self.missing(field))?;
        text.parse().map_err(|_| self.corrupt(field, text.as_bytes()))
    }

    fn time(&self, field: &'static str) -> Result<Option<Timestamp>> {
        self.fields.contains_key(field).then(|| self.required_time(field)).transpose()
    }

    fn required_time(&self, field: &'static str) -> Result<Timestamp> {
        let milliseconds: i64 = self.required(field)?;
        Timestamp::from_millisecond(milliseconds).map_err(|_| self.corrupt(field, milliseconds.to_string().as_bytes()))
    }

    fn class(&self) -> Result<Class> {
        let index: usize = self.required("class")?;
        Class::ALL.get(index).copied().ok_or_else(|| self.corrupt("class", index.to_string().as_bytes()))
    }

    fn origin(&self) -> Result<Option<Origin>> {
        let read = |text: String| serde_json::from_str(&text).map_err(|_| self.corrupt("origin", text.as_bytes()));
        self.text("origin")?.map(read).transpose()
    }

    fn body(&self, reference: &'static str, bytes: Option<Vec<u8>>) -> Result<Body> {
        match (self.fields.get(reference), bytes) {
            (Some(json), _) => Ok(Body::Reference(blob(json)?)),
            (None, Some(bytes)) => Ok(Body::Inline(Bytes::from(bytes))),
            (None, None) => Err(self.missing("body")),
        }
    }

    fn corrupt(&self, field: &str, value: &[u8]) -> Error {
        let value = String::from_utf8_lossy(value);
        Error::new(ErrorKind::Corrupt, format_args!("redis holds {value:?} as {field} of job {}", self.id))
    }

    fn missing(&self, field: &str) -> Error {
        Error::new(ErrorKind::Corrupt, format_args!("redis has no {field} of job {}", self.id))
    }
}
