//! The workers alive.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{PoolName, Result};

pub(crate) mod embedded;
#[cfg(feature = "redis")]
pub(crate) mod redis;

/// The workers alive, each known by its last beat.
#[async_trait]
pub trait Roster: Send + Sync {
    /// Enters a worker, or renews it: it counts as alive until `alive` from now.
    async fn beat(&self, worker: &WorkerRecord, alive: Duration) -> Result<()>;

    /// Strikes a worker out. Striking out an unknown one changes nothing.
    async fn leave(&self, id: &WorkerId) -> Result<()>;

    /// The workers of a pool that are alive, by id.
    async fn workers(&self, pool: &PoolName) -> Result<Vec<WorkerRecord>>;
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
    /// Items per batch, measured (an average of the recent ones); 0 before the first.
    pub batch_items: f64,
    /// Seconds per batch, measured likewise; 0 before the first.
    pub batch_seconds: f64,
    /// Seconds from the start of the process until it was ready; 0 while it loads.
    pub cold_start_seconds: f64,
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
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Draining => "draining",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}
