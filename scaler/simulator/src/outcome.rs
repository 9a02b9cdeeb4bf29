//! The result of a run.

use std::time::Duration;

use super::view::View;

/// The result of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// The time of each ended job from its arrival to its end, in the order of the ends.
    pub latencies: Vec<Duration>,
    /// The number of ended jobs that have an objective.
    pub judged: u64,
    /// The number of jobs that ended within their objective, counted from their arrival.
    pub within: u64,
    /// The number of late jobs that arrived while no worker was ready.
    pub late_from_zero: u64,
    /// The cost: the time of all workers from their request to their end, including provisioning and loading.
    pub worker_time: Duration,
    /// The number of started workers.
    pub starts: u32,
    /// How many times the pool was started from zero workers.
    pub cold_starts: u32,
    /// The state of the pool at regular times.
    pub series: Vec<View>,
}

impl Outcome {
    /// The share of the ended jobs that ended within their objective. 1 without jobs.
    pub fn attainment(&self) -> f64 {
        if self.judged == 0 { 1.0 } else { self.within as f64 / self.judged as f64 }
    }
}
