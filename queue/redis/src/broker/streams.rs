//! Where a pool's jobs wait, and the scripts that work there.

use std::fmt;

use redis::Script;

use crate::connection::Redis;
use queue::{Class, PoolName};

/// The group that all workers of a pool read in.
pub(super) const GROUP: &str = "workers";

/// How many streams a pool has: two per class.
pub(super) const COUNT: usize = 2 * Class::ALL.len();

/// The keys of one pool.
#[derive(Clone)]
pub(super) struct Streams {
    /// The streams, the most urgent first; then who is alive; then when the dead were last looked for.
    pub(super) keys: Vec<String>,
}

/// One of a pool's streams, as scripts number them: odd where entries were given back, even where they are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StreamNumber(pub(super) usize);

/// The name of an entry: no other ever has it, and one that is given back gets a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EntryName {
    pub(super) stream: StreamNumber,
    pub(super) id: String,
}

impl StreamNumber {
    pub(super) fn class(self) -> Class {
        Class::ALL[(self.0 - 1) / 2]
    }

    pub(super) fn is_of_given_back(self) -> bool {
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

/// Where jobs of a class are published.
pub(super) fn published(redis: &Redis, pool: &PoolName, class: Class) -> String {
    redis.key(&format!("stream:{pool}:{}", class.as_str()))
}

/// What is done on the server, each in one step. All take the keys of [`Streams`].
pub(super) struct Scripts {
    /// Consumer, most entries, offset of the clock → a list of streams and their entries.
    pub(super) take: Script,
    /// Stream, id and `done`, `again` or `untouched` of each.
    pub(super) settle: Script,
    /// Consumer, most entries, offset → stream and id of what it holds.
    pub(super) beat: Script,
    /// Consumer.
    pub(super) leave: Script,
    /// Milliseconds of silence that are death, milliseconds between two sweeps, most entries, offset → entries given back.
    pub(super) sweep: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |own: &str| Script::new(&format!("{}\n{own}", include_str!("shared.lua")));
        Self {
            take: script(include_str!("take.lua")),
            settle: script(include_str!("settle.lua")),
            beat: script(include_str!("beat.lua")),
            leave: script(include_str!("leave.lua")),
            sweep: script(include_str!("sweep.lua")),
        }
    }
}

/// → what waits, what is held and the first id of what waits, of each stream.
pub(super) fn depth() -> Script {
    Script::new(include_str!("depth.lua"))
}
