//! A job's record as Redis holds it: a hash of narrow fields, and its input and output beside it.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use queue::ledger::{Attempt, JobRecord, JobState};
use queue::{BlobRef, Body, Class, Error, ErrorKind, Input, Job, JobError, JobId, Origin, Output, Result, WorkerId};

/// Fields of a hash, by name.
pub(super) type Fields = HashMap<String, Vec<u8>>;

/// A hash and the bytes of the output or input beside it.
pub(super) type Row = (Fields, Option<Vec<u8>>);

/// What tells an input from another. References are compared by the digest of their bytes: each submission has its own
/// blob.
pub(super) fn digest(input: &Input) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(input.media_type.as_bytes());
    match &input.body {
        Body::Inline(bytes) => {
            digest.update([0]);
            digest.update(bytes);
        }
        Body::Reference(blob) => {
            digest.update([1]);
            digest.update(blob.identity().as_bytes());
        }
    }
    digest.finalize().into()
}

/// The record of a job with its output; `None` where the hash is empty, which is how Redis shows that there is none.
pub(super) fn record(id: &JobId, (fields, output): Row) -> Result<Option<JobRecord>> {
    if fields.is_empty() {
        return Ok(None);
    }
    let row = Reader { id, fields: &fields };
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

/// What is remembered of a job's failed attempts, as the scripts wrote it.
pub(super) fn history(id: &JobId, attempts: &[Vec<u8>]) -> Result<Vec<Attempt>> {
    #[derive(Deserialize)]
    struct Remembered {
        number: u32,
        worker: String,
        started_at: i64,
        ended_at: i64,
        #[serde(flatten)]
        error: JobError,
    }
    let read = |json: &Vec<u8>| {
        let read: Remembered = serde_json::from_slice(json).ok()?;
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
            return Err(Error::new(ErrorKind::Corrupt, format_args!("redis holds job {id} without its input")));
        }
    };
    Ok(Input { media_type, body })
}

/// The job of a record, as it was submitted.
pub(super) fn job(id: &JobId, (fields, input): Row) -> Result<Job> {
    let row = Reader { id, fields: &fields };
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

/// A state as the scripts know it: its place in [`JobState::ALL`].
pub(super) fn state(code: i64) -> Result<JobState> {
    let state = usize::try_from(code).ok().and_then(|code| JobState::ALL.get(code));
    state.copied().ok_or_else(|| Error::new(ErrorKind::Corrupt, format_args!("redis holds {code} as a state")))
}

/// Blob references of jobs that are forgotten. This is the last that is heard of them, so one that cannot be read is only
/// room lost.
pub(super) fn blobs_of_the_forgotten(references: &[Vec<u8>]) -> Vec<BlobRef> {
    let readable =
        |json: &Vec<u8>| blob(json).inspect_err(|error| tracing::error!(%error, "a blob is not deleted")).ok();
    references.iter().filter_map(readable).collect()
}

/// A blob reference as the hash holds it.
pub(super) fn blob(json: &[u8]) -> Result<BlobRef> {
    serde_json::from_slice(json)
        .map_err(|error| Error::caused(ErrorKind::Corrupt, "redis holds a blob reference", error))
}

struct Reader<'a> {
    id: &'a JobId,
    fields: &'a Fields,
}

impl Reader<'_> {
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
        let place: usize = self.required("class")?;
        Class::ALL.get(place).copied().ok_or_else(|| self.corrupt("class", place.to_string().as_bytes()))
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
        Error::new(ErrorKind::Corrupt, format_args!("redis holds job {} without its {field}", self.id))
    }
}
