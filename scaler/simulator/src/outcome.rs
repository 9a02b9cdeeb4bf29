//! The result of a run.

use std::time::Duration;

use super::view::View;

/// The result of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The time of each job from its arrival to its end, in the order of the ends.
    pub latencies: Vec<Duration>,
    /// The number of jobs that ended within the objective. The limit of a job that arrives while no worker is ready is
    /// longer by the cold start.
    pub within: u64,
    /// The cost: the time of all workers from start to end, including loading.
    pub worker_time: Duration,
    /// The number of started workers.
    pub starts: u32,
    /// How many times the pool was started from zero workers.
    pub cold_starts: u32,
    /// The state of the pool at regular times.
    pub series: Vec<View>,
}

impl Outcome {
    /// The share of the ended jobs that ended within the objective. 1 without jobs.
    pub fn attainment(&self) -> f64 {
        if self.latencies.is_empty() { 1.0 } else { self.within as f64 / self.latencies.len() as f64 }
    }
}
