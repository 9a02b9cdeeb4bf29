//! The scripts, and how their arguments are written. Each runs as a whole or not at all, and once per batch.

use std::sync::LazyLock;

use redis::{FromRedisValue, Script};

use crate::connection::Redis;
use queue::driver::{BodyColumns, origin_column};
use queue::{Job, JobErrorKind, Result};

use super::rows;

/// The most items of one script, and about the most bytes of bodies that go with them: the server does nothing else
/// while a script runs.
pub(super) const PIECE_ITEMS: usize = 256;
pub(super) const PIECE_BYTES: usize = 8 << 20;

/// The names of the kinds of errors, as the table `ERROR`: the scripts use the list of the crate `queue`.
static ERROR: LazyLock<String> = LazyLock::new(|| {
    let entries = JobErrorKind::ALL.map(|kind| format!("{0} = '{0}'", kind.as_str()));
    format!("local ERROR = {{ {} }}", entries.join(", "))
});

const SHARED: &str = include_str!("job.lua");
const OPEN: &str = include_str!("open.lua");
const FORGET_JOB: &str = include_str!("forget_job.lua");

pub(super) static SUBMIT: LazyLock<Script> =
    LazyLock::new(|| script_that_needs_room(&[OPEN, include_str!("submit.lua")]));
pub(super) static PUBLISHED: LazyLock<Script> = LazyLock::new(|| script(&[include_str!("published.lua")]));
pub(super) static CLAIM: LazyLock<Script> = LazyLock::new(|| script(&[OPEN, include_str!("claim.lua")]));
pub(super) static BEGIN: LazyLock<Script> = LazyLock::new(|| script(&[include_str!("begin.lua")]));
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| script(&[include_str!("renew.lua")]));
pub(super) static FINISH: LazyLock<Script> = LazyLock::new(|| script(&[include_str!("finish.lua")]));
pub(super) static CANCEL: LazyLock<Script> = LazyLock::new(|| script(&[include_str!("cancel.lua")]));
pub(super) static GET: LazyLock<Script> = LazyLock::new(|| script_that_reads(&[include_str!("get.lua")]));
pub(super) static DUE: LazyLock<Script> = LazyLock::new(|| script(&[include_str!("due.lua")]));
pub(super) static PURGE: LazyLock<Script> = LazyLock::new(|| script(&[FORGET_JOB, include_str!("purge.lua")]));
pub(super) static INPUT: LazyLock<Script> = LazyLock::new(|| script_that_reads(&[include_str!("input.lua")]));
pub(super) static DEAD: LazyLock<Script> = LazyLock::new(|| script_that_reads(&[include_str!("dead.lua")]));
pub(super) static REQUEUE: LazyLock<Script> = LazyLock::new(|| script(&[include_str!("requeue.lua")]));
pub(super) static FORGET: LazyLock<Script> = LazyLock::new(|| script(&[FORGET_JOB, include_str!("forget.lua")]));
pub(super) static PURGE_DEAD: LazyLock<Script> =
    LazyLock::new(|| script(&[FORGET_JOB, include_str!("purge_dead.lua")]));

/// A script that runs when memory is full too, or what is there could not be worked off to make room.
fn script(parts: &[&str]) -> Script {
    Script::new(&[&["#!lua flags=allow-oom", &ERROR, SHARED], parts].concat().join("\n"))
}

/// A script that runs whatever keeps the server from taking writes.
fn script_that_reads(parts: &[&str]) -> Script {
    Script::new(&[&["#!lua flags=no-writes", &ERROR, SHARED], parts].concat().join("\n"))
}

/// A script whose first write fails when memory is full; then it has changed nothing.
fn script_that_needs_room(parts: &[&str]) -> Script {
    Script::new(&[&[&**ERROR, SHARED], parts].concat().join("\n"))
}

/// The arguments of one call.
pub(super) struct Call<'a> {
    redis: &'a Redis,
    arguments: Vec<Vec<u8>>,
}

impl<'a> Call<'a> {
    pub(super) fn new(redis: &'a Redis) -> Self {
        let arguments = vec![redis.key("").into_bytes(), redis.clock().offset_milliseconds().to_string().into_bytes()];
        Self { redis, arguments }
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
        self.arguments.push(argument.as_ref().to_vec());
    }

    pub(super) fn add_number(&mut self, number: impl Into<i128>) {
        self.add(number.into().to_string());
    }

    /// Adds the thirteen arguments that open a record.
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
        self.add(rows::digest(&job.input));
        self.add(&job.input.media_type);
        self.add(blob.unwrap_or_default());
        self.add(body.unwrap_or_default());
        self.add(origin_column(job.origin.as_ref()).unwrap_or_default());
    }

    /// Runs `script` with them.
    pub(super) async fn run<T: FromRedisValue>(self, doing: &str, script: &Script) -> Result<T> {
        let keys = [self.redis.key("due"), self.redis.key("over")];
        self.redis.script(doing, script, &keys, self.arguments).await
    }
}

/// Cuts a batch into pieces that a script may take at once, given how many bytes go with each item.
pub(super) fn pieces<T>(mut items: &[T], bytes_of: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut pieces = Vec::new();
    while !items.is_empty() {
        let mut bytes = 0;
        let fits = |item: &&T| {
            bytes += bytes_of(item);
            bytes <= PIECE_BYTES
        };
        let count = items.iter().take(PIECE_ITEMS).take_while(fits).count().max(1);
        let (piece, rest) = items.split_at(count);
        pieces.push(piece);
        items = rest;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_by_number_and_by_bytes() {
        let lengths =
            |items: &[usize]| pieces(items, |bytes| *bytes).iter().map(|piece| piece.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[1; 600]), [256, 256, 88]);
        assert_eq!(lengths(&[PIECE_BYTES / 2, PIECE_BYTES / 2, 1, PIECE_BYTES * 2, 1]), [2, 1, 1, 1]);
    }
}
