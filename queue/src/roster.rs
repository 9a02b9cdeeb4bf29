//! The workers alive, and what the last ones measured.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{PoolName, Result};

/// The workers alive, each known by its last beat; and of each pool what was measured last, which outlives its workers.
#[async_trait]
pub trait Roster: Send + Sync {
    /// Enters a worker, or renews it: it counts as alive until `alive` from now. What it has measured is what its pool is
    /// remembered by from here on; a worker that has measured nothing yet changes nothing of that.
    async fn beat(&self, worker: &WorkerRecord, alive: Duration) -> Result<()>;

    /// Strikes a worker out. Striking out an unknown one changes nothing.
    async fn leave(&self, id: &WorkerId) -> Result<()>;

    /// The workers alive of each of `pools`: one list per pool, in order, each sorted by id. One round trip for any
    /// number of pools, and those without workers cost next to nothing. A pool that is named twice is answered twice.
    async fn workers(&self, pools: &[PoolName]) -> Result<Vec<Vec<WorkerRecord>>>;

    /// What was measured last in each of `pools`, in order, whatever has become of the worker that did: it may have left,
    /// or vanished long ago. `None`: no worker of the pool has ever run a batch. One round trip for any number of pools; a
    /// pool that is named twice is answered twice.
    async fn measured(&self, pools: &[PoolName]) -> Result<Vec<Option<Measured>>>;
}

/// Names a worker process: unique over all starts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(String);

impl WorkerId {
    /// A worker named by whoever starts it.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a worker says of itself.
///
/// The seconds of a batch are the time for which the worker was busy with it: until the batch had run, from the later
/// of two moments: the batch before it had run on the same model instance, or the first of its items was received. So
/// decoding, and whatever else the device waits for, is in it as far as it holds the device up. Waiting for jobs is
/// not, nor is the writing of results.
///
/// The averages tell what the batches were like, which are small while there is little to do. The curve
/// (`batch_base_seconds`, `batch_item_seconds`, `batch_limit_items`) tells what the worker could do: in full batches,
/// at most `limit / (base + limit × item)` items per second. It speaks of the worker as a whole. Several model
/// instances count as one that takes the batches of all at once: of k instances that take t each for up to m items,
/// k × m items take t. Instances that are in each other's way take longer when all are at work; the curve follows then.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRecord {
    /// Its name.
    pub id: WorkerId,
    /// The pool it works for.
    pub pool: PoolName,
    /// What it does.
    pub state: WorkerState,
    /// When it started.
    pub started_at: Timestamp,
    /// Items per batch of one instance, measured (an average of the recent ones); 0 before the first.
    pub batch_items: f64,
    /// Seconds per batch of one instance, measured likewise; 0 before the first.
    pub batch_seconds: f64,
    /// What a batch takes whatever its size, in seconds, measured: a batch of n items takes this and n times
    /// `batch_item_seconds`. Both are 0 before the first batch, and never after it.
    pub batch_base_seconds: f64,
    /// What each item adds to it, in seconds, measured.
    pub batch_item_seconds: f64,
    /// The most items that run at once: those of a full batch, times the instances. 0: not known.
    pub batch_limit_items: u32,
    /// Seconds from the start of the process until it was ready; 0 while it loads.
    pub cold_start_seconds: f64,
}

impl WorkerRecord {
    /// A worker that loads, and has measured nothing yet.
    pub fn new(id: WorkerId, pool: PoolName, started_at: Timestamp) -> Self {
        Self {
            id,
            pool,
            state: WorkerState::Loading,
            started_at,
            batch_items: 0.0,
            batch_seconds: 0.0,
            batch_base_seconds: 0.0,
            batch_item_seconds: 0.0,
            batch_limit_items: 0,
            cold_start_seconds: 0.0,
        }
    }

    /// What it has measured. `None` before its first batch, and where it says what no batch can take.
    pub fn measured(&self) -> Option<Measured> {
        let measured = Measured {
            batch_base_seconds: self.batch_base_seconds,
            batch_item_seconds: self.batch_item_seconds,
            batch_limit_items: self.batch_limit_items,
            cold_start_seconds: self.cold_start_seconds,
        };
        measured.if_sound()
    }
}

/// What a worker has measured, in the words of [`WorkerRecord`]: the curve, and how long it took to be ready.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// What a batch takes whatever its size, in seconds.
    pub batch_base_seconds: f64,
    /// What each item adds to it, in seconds. Both together are more than 0.
    pub batch_item_seconds: f64,
    /// The most items that run at once, at least 1.
    pub batch_limit_items: u32,
    /// Seconds from the start of the process until it was ready; 0: not known.
    pub cold_start_seconds: f64,
}

impl Measured {
    /// Itself, if a batch can take so long: what a worker or a store says may be anything.
    fn if_sound(self) -> Option<Self> {
        let (base, item) = (self.batch_base_seconds, self.batch_item_seconds);
        let is_sound = base >= 0.0 && item >= 0.0 && (base + item).is_normal() && self.batch_limit_items > 0;
        is_sound.then_some(self)
    }
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// The model is not ready yet. Capacity on the way.
    Loading,
    /// Ready, with nothing to do.
    Idle,
    /// Ready, holding jobs.
    Busy,
    /// Finishing what it holds, taking nothing new.
    Draining,
}

impl WorkerState {
    const ALL: [Self; 4] = [Self::Loading, Self::Idle, Self::Busy, Self::Draining];

    /// The name that a store keeps.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Draining => "draining",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}
