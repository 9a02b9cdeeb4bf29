//! The roster: the live workers, and the last measurements of each pool.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{PoolName, Result};

/// The live workers, each with its last heartbeat, and the last measurements of each pool, which outlive its workers.
#[async_trait]
pub trait Roster: Send + Sync {
    /// Adds a worker or renews its entry. The worker counts as live for the time `alive` from now. If it has
    /// measurements, they become the last measurements of its pool.
    async fn heartbeat(&self, worker: &WorkerRecord, alive: Duration) -> Result<()>;

    /// Removes a worker. An unknown worker is not an error.
    async fn leave(&self, id: &WorkerId) -> Result<()>;

    /// The live workers of each of `pools`: one list per pool, in order, each sorted by id. Costs one round trip for any
    /// number of pools, and little for a pool without workers. A pool that is named twice has two answers.
    async fn workers(&self, pools: &[PoolName]) -> Result<Vec<Vec<WorkerRecord>>>;

    /// The last measurements of each of `pools`, in order, even if the worker that made them has left. `None`: no worker
    /// of the pool has ever run a batch. Costs one round trip for any number of pools. A pool that is named twice has two
    /// answers.
    async fn measured(&self, pools: &[PoolName]) -> Result<Vec<Option<Measured>>>;
}

/// Names a worker process. The name is unique over all starts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(String);

impl WorkerId {
    /// The worker with this id, which its process has chosen.
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

/// What a worker reports in a heartbeat.
///
/// The seconds of a batch are the time for which the worker was busy with it. They end when the batch has run. They
/// begin when the previous batch on the same model instance has ended, or when the first item of this batch was
/// received. The later moment counts. So they include decoding as far as the device waits for it, but not waiting for
/// jobs or writing results.
///
/// The averages describe the batches that ran, which are small while there are few jobs. The batch time model
/// (`batch_base_seconds`, `batch_item_seconds`, `batch_limit_items`) describes the throughput of the worker in full
/// batches: at most `limit / (base + limit × item)` items per second. It describes the worker as a whole. For example,
/// k model instances each take t seconds for up to m items. They count as one instance that takes t seconds for k × m
/// items. If instances slow each other down, their batches take longer, and the model changes accordingly.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRecord {
    /// Its id.
    pub id: WorkerId,
    /// The pool it works for.
    pub pool: PoolName,
    /// Its state.
    pub state: WorkerState,
    /// When it started.
    pub started_at: Timestamp,
    /// Items per batch of one instance, measured (an average of the recent ones); 0 before the first.
    pub batch_items: f64,
    /// Seconds per batch of one instance, measured likewise; 0 before the first.
    pub batch_seconds: f64,
    /// The measured part of a batch's time that does not depend on its size, in seconds. A batch of n items takes this
    /// time plus n times `batch_item_seconds`. Before the first batch both values are 0. After it at least one is above
    /// 0.
    pub batch_base_seconds: f64,
    /// The measured additional time of each item, in seconds.
    pub batch_item_seconds: f64,
    /// The most items that run at once: the items of a full batch times the number of instances. 0: unknown.
    pub batch_limit_items: u32,
    /// Seconds from the start of the process until it was ready; 0 while it loads.
    pub cold_start_seconds: f64,
}

impl WorkerRecord {
    /// A worker that loads and has no measurements yet.
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

    /// Its measurements. `None` before its first batch, or if the reported times are impossible.
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

/// The measurements of a worker, as in [`WorkerRecord`]: the batch time model and the cold start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// The part of a batch's time that does not depend on its size, in seconds.
    pub batch_base_seconds: f64,
    /// The seconds that each item adds. Both together are more than 0.
    pub batch_item_seconds: f64,
    /// The most items that run at once, at least 1.
    pub batch_limit_items: u32,
    /// Seconds from the start of the process until it was ready; 0: unknown.
    pub cold_start_seconds: f64,
}

impl Measured {
    /// Returns itself if the times are possible. The check is necessary because values from a worker or a store may be
    /// wrong.
    pub fn if_sound(self) -> Option<Self> {
        let (base, item) = (self.batch_base_seconds, self.batch_item_seconds);
        let is_sound = base >= 0.0 && item >= 0.0 && (base + item).is_normal() && self.batch_limit_items > 0;
        is_sound.then_some(self)
    }
}

/// The state of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// The model is not ready yet: capacity that is on its way.
    Loading,
    /// Ready, without jobs.
    Idle,
    /// Ready, with jobs.
    Busy,
    /// Finishes its jobs and takes no new ones.
    Draining,
}

impl WorkerState {
    const ALL: [Self; 4] = [Self::Loading, Self::Idle, Self::Busy, Self::Draining];

    /// The name in a store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Draining => "draining",
        }
    }

    /// The state with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}
