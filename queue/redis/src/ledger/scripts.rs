//! The scripts and their arguments. One script call handles a whole batch.

use std::sync::LazyLock;

use redis::{Cmd, FromRedisValue, Script};

use crate::broker::{entry, streams};
use crate::connection::Redis;
use queue::driver::{BodyColumns, input_digest, origin_column};
use queue::{Error, ErrorKind, Job, JobErrorKind, Result};

/// The most items of one script call, and about the most bytes of their bodies. The server does nothing else while a
/// script runs.
pub(super) const CHUNK_ITEMS: usize = 256;
pub(super) const CHUNK_BYTES: usize = 8 << 20;

/// The names of the error kinds as the Lua table `ERROR`, so that the scripts use the list of the crate `queue`.
static ERROR: LazyLock<String> = LazyLock::new(|| {
    let entries = JobErrorKind::ALL.map(|kind| format!("{0} = '{0}'", kind.as_str()));
    format!("local ERROR = {{ {} }}", entries.join(", "))
});

const CALL: &str = include_str!("call.lua");
const JOB: &str = include_str!("job.lua");
const CONFIRM: &str = include_str!("confirm.lua");
const OPEN: &str = include_str!("open.lua");
const DELETE_JOB: &str = include_str!("delete_job.lua");
const END_UNREADABLE: &str = include_str!("end_unreadable.lua");

pub(super) static SUBMIT: LazyLock<Script> =
    LazyLock::new(|| script_that_needs_memory(&[CONFIRM, OPEN, include_str!("submit.lua")]));
pub(super) static PUBLISHED: LazyLock<Script> =
    LazyLock::new(|| lean_script(&[CONFIRM, include_str!("published.lua")]));
pub(super) static CLAIM: LazyLock<Script> =
    LazyLock::new(|| script(&[OPEN, END_UNREADABLE, include_str!("claim.lua")]));
pub(super) static BEGIN: LazyLock<Script> = LazyLock::new(|| script(&[include_str!("begin.lua")]));
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| script(&[include_str!("renew.lua")]));
pub(super) static FINISH: LazyLock<Script> = LazyLock::new(|| script(&[CONFIRM, include_str!("finish.lua")]));
pub(super) static CANCEL: LazyLock<Script> = LazyLock::new(|| script(&[include_str!("cancel.lua")]));
pub(super) static GET: LazyLock<Script> = LazyLock::new(|| read_only_script(&[include_str!("get.lua")]));
pub(super) static DUE: LazyLock<Script> = LazyLock::new(|| script(&[END_UNREADABLE, include_str!("due.lua")]));
pub(super) static END_UNREADABLE_JOBS: LazyLock<Script> =
    LazyLock::new(|| script(&[END_UNREADABLE, include_str!("end_unreadable_jobs.lua")]));
pub(super) static HOLD_UPKEEP: LazyLock<Script> = LazyLock::new(|| script(&[include_str!("hold_upkeep.lua")]));
pub(super) static PURGE: LazyLock<Script> = LazyLock::new(|| script(&[DELETE_JOB, include_str!("purge.lua")]));
pub(super) static INPUT: LazyLock<Script> = LazyLock::new(|| read_only_script(&[include_str!("input.lua")]));
pub(super) static USAGE: LazyLock<Script> = LazyLock::new(|| read_only_script(&[include_str!("usage.lua")]));
pub(super) static DEAD: LazyLock<Script> = LazyLock::new(|| read_only_script(&[include_str!("dead.lua")]));
pub(super) static REQUEUE: LazyLock<Script> = LazyLock::new(|| script(&[include_str!("requeue.lua")]));
pub(super) static FORGET: LazyLock<Script> = LazyLock::new(|| script(&[DELETE_JOB, include_str!("forget.lua")]));
pub(super) static PURGE_DEAD: LazyLock<Script> =
    LazyLock::new(|| script(&[DELETE_JOB, include_str!("purge_dead.lua")]));

/// A script that runs even when memory is full. Otherwise no job could be finished and deleted to free memory.
fn script(parts: &[&str]) -> Script {
    Script::new(&[&["#!lua flags=allow-oom", CALL, &ERROR, JOB], parts].concat().join("\n"))
}

/// Like [`script`], without the functions that end jobs and requeue them. The server would make them at every call.
fn lean_script(parts: &[&str]) -> Script {
    Script::new(&[&["#!lua flags=allow-oom", CALL], parts].concat().join("\n"))
}

/// A script that runs even while the server rejects writes.
fn read_only_script(parts: &[&str]) -> Script {
    Script::new(&[&["#!lua flags=no-writes", CALL], parts].concat().join("\n"))
}

/// A script whose first write fails when memory is full. It has changed nothing then.
fn script_that_needs_memory(parts: &[&str]) -> Script {
    Script::new(&[&[CALL], parts].concat().join("\n"))
}

/// One call of a script, with its arguments.
pub(super) struct Call<'a> {
    redis: &'a Redis,
    script: &'a Script,
    command: Cmd,
}

impl<'a> Call<'a> {
    pub(super) fn new(redis: &'a Redis, script: &'a Script) -> Self {
        Self::with_capacity(redis, script, 16, 512)
    }

    /// A call with room for this number of arguments, and of bytes in them.
    pub(super) fn with_capacity(redis: &'a Redis, script: &'a Script, arguments: usize, bytes: usize) -> Self {
        let mut command = Cmd::with_capacity(arguments, bytes);
        command.arg("EVALSHA").arg(script.get_hash()).arg(2).arg(redis.key("due")).arg(redis.key("over"));
        command.arg(redis.key("")).arg(redis.clock().offset_milliseconds());
        Self { redis, script, command }
    }

    /// Adds a text or bytes.
    pub(super) fn with(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.add(argument);
        self
    }

    /// Adds a whole number.
    pub(super) fn with_number(self, number: impl Into<i128>) -> Self {
        self.with(number.into().to_string())
    }

    pub(super) fn add(&mut self, argument: impl AsRef<[u8]>) {
        self.command.arg(argument.as_ref());
    }

    pub(super) fn add_number(&mut self, number: impl Into<i128>) {
        self.add(number.into().to_string());
    }

    /// Adds the thirteen arguments from which a record is opened.
    pub(super) fn add_job(&mut self, job: &Job) {
        let BodyColumns { body, blob } = BodyColumns::of(&job.input.body);
        self.add(job.id.as_str());
        self.add(job.pool.as_str());
        self.add_number(job.class as u8);
        self.add_number(job.max_attempts);
        self.add_number(job.created_at.as_millisecond());
        self.add(job.deadline_at.map(|deadline| deadline.as_millisecond().to_string()).unwrap_or_default());
        self.add_number(queue::driver::milliseconds_of(job.retention));
        self.add(job.trace_parent.as_deref().unwrap_or_default());
        self.add(input_digest(&job.input));
        self.add(&job.input.media_type);
        self.add(blob.unwrap_or_default());
        self.add(body.unwrap_or_default());
        self.add(origin_column(job.origin.as_ref()).unwrap_or_default());
    }

    /// Adds the entry of a published job: the number of further arguments, the stream, the fields except `data`.
    pub(super) fn add_entry(&mut self, job: &Job) {
        let fields = entry::fields(job);
        self.add_number(1 + 2 * fields.len() as u32);
        self.add(streams::published(self.redis, &job.pool, job.class));
        for (name, value) in fields {
            self.add(name);
            self.add(value);
        }
    }

    /// Runs the script. `action` names its purpose in an error.
    pub(super) async fn run<T: FromRedisValue>(self, action: &str) -> Result<T> {
        self.redis.evaluate(action, self.script, &self.command).await
    }
}

/// Checks that there is one answer per item.
pub(super) fn same_length<T>(items: usize, answers: &[T]) -> Result<()> {
    if items == answers.len() {
        return Ok(());
    }
    let message = format!("redis returned {} answers for {items} items", answers.len());
    Err(Error::new(ErrorKind::Corrupt, message))
}

/// Splits a batch into chunks for one script call each. `bytes_of` is the number of bytes of an item's body.
pub(super) fn chunks<T>(mut items: &[T], bytes_of: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut chunks = Vec::new();
    while !items.is_empty() {
        let mut bytes = 0;
        let fits = |item: &&T| {
            bytes += bytes_of(item);
            bytes <= CHUNK_BYTES
        };
        let count = items.iter().take(CHUNK_ITEMS).take_while(fits).count().max(1);
        let (chunk, rest) = items.split_at(count);
        chunks.push(chunk);
        items = rest;
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_split_by_number_and_by_bytes() {
        let lengths =
            |items: &[usize]| chunks(items, |bytes| *bytes).iter().map(|chunk| chunk.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[1; 600]), [256, 256, 88]);
        assert_eq!(lengths(&[CHUNK_BYTES / 2, CHUNK_BYTES / 2, 1, CHUNK_BYTES * 2, 1]), [2, 1, 1, 1]);
    }
}
