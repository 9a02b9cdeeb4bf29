//! The keys of a pool's streams, and the scripts that use them.

use std::fmt;

use redis::Script;

use crate::connection::Redis;
use queue::{Class, PoolName};

/// The consumer group of all workers of a pool.
pub(super) const GROUP: &str = "workers";

/// The number of streams of a pool: two per class.
pub(super) const COUNT: usize = 2 * Class::ALL.len();

/// The keys of one pool.
#[derive(Clone)]
pub(super) struct Streams {
    /// The streams, the most urgent first; then the heartbeats; then the time of the last search for expired consumers.
    pub(super) keys: Vec<String>,
}

/// The number of a stream in the scripts: odd for a stream of requeued entries, even for one of published entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StreamNumber(pub(super) usize);

/// The name of an entry. No other entry ever has this name. Requeueing gives an entry a new name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EntryName {
    pub(super) stream: StreamNumber,
    pub(super) id: String,
}

impl StreamNumber {
    pub(super) fn class(self) -> Class {
        Class::ALL[(self.0 - 1) / 2]
    }

    pub(super) fn holds_requeued_entries(self) -> bool {
        self.0 % 2 == 1
    }
}

impl fmt::Display for StreamNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Streams {
    pub(super) fn of(redis: &Redis, pool: &PoolName) -> Self {
        let mut keys = Vec::with_capacity(COUNT + 2);
        for class in Class::ALL {
            keys.push(redis.key(&format!("returned:{pool}:{}", class.as_str())));
            keys.push(published(redis, pool, class));
        }
        keys.push(redis.key(&format!("consumers:{pool}")));
        keys.push(redis.key(&format!("swept:{pool}")));
        Self { keys }
    }

    pub(super) fn all(&self) -> &[String] {
        &self.keys[..COUNT]
    }
}

/// The stream to which jobs of a class are published.
pub(crate) fn published(redis: &Redis, pool: &PoolName, class: Class) -> String {
    redis.key(&format!("stream:{pool}:{}", class.as_str()))
}

/// The scripts of a consumer. Each runs as one step, and takes the keys of [`Streams`].
pub(super) struct Scripts {
    /// Consumer, most entries, offset of the clock, number of bytes at which it stops → a list of streams and their entries.
    pub(super) take: Script,
    /// Of each entry its stream, its id, and `ack`, `requeue` or `requeue_unseen`.
    pub(super) settle: Script,
    /// Consumer, most entries, offset → stream and id of each entry that the consumer holds.
    pub(super) heartbeat: Script,
    /// Consumer.
    pub(super) leave: Script,
    /// Milliseconds after which a heartbeat expires, milliseconds between two searches, most entries, offset → number of
    /// reclaimed entries.
    pub(super) reclaim: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |own: &str| Script::new(&format!("{}\n{own}", include_str!("shared.lua")));
        Self {
            take: script(include_str!("take.lua")),
            settle: script(include_str!("settle.lua")),
            heartbeat: script(include_str!("heartbeat.lua")),
            leave: script(include_str!("leave.lua")),
            reclaim: script(include_str!("reclaim.lua")),
        }
    }
}

/// → the number of waiting and of held entries of each stream, and the id of its first waiting entry.
pub(super) fn depth() -> Script {
    Script::new(include_str!("depth.lua"))
}
