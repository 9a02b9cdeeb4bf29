//! What came of a run.

use std::time::Duration;

use super::view::View;

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How long each job took from its arrival to its end, in the order of the ends.
    pub latencies: Vec<Duration>,
    /// The jobs that ended within the objective. Those that found no worker ready have the cold start on top of it.
    pub within: u64,
    /// What the workers cost: their time from start to end, the loading included.
    pub worker_time: Duration,
    /// How many workers were started.
    pub starts: u32,
    /// How often the pool was started from nothing.
    pub cold_starts: u32,
    /// The pool from time to time.
    pub series: Vec<View>,
}

impl Outcome {
    /// The share of jobs that ended within the objective; 1 of none.
    pub fn attainment(&self) -> f64 {
        if self.latencies.is_empty() { 1.0 } else { self.within as f64 / self.latencies.len() as f64 }
    }
}
