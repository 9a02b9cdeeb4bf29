//! Generated loads for the suite: pure functions of a seed. None is taken from a policy, and no policy was tuned on them.

mod arrivals;
mod library;

use std::time::Duration;

use super::conditions::{Conditions, Objectives, for_all_classes};
use super::trace::Trace;
use super::worker::Worker;

pub use library::library;

/// A load with its workers and its promise.
#[derive(Debug, Clone)]
pub struct Load {
    /// What the load is, such as `on/off 5m, 300 s`.
    pub name: String,
    /// The arrivals.
    pub trace: Trace,
    /// The times of a worker.
    pub worker: Worker,
    /// The promise per class.
    pub objectives: Objectives,
    /// The share of the jobs for which the promise holds, in percent.
    pub percentile: f64,
    /// What the cluster does.
    pub conditions: Conditions,
}

impl Load {
    fn new(name: &str, cold_start_seconds: u64, worker: Worker, trace: Trace, seed: u64) -> Self {
        Self {
            name: format!("{name}, {cold_start_seconds} s"),
            trace,
            worker: Worker { cold_start: Duration::from_secs(cold_start_seconds), ..worker },
            objectives: for_all_classes(Duration::from_secs(10)),
            percentile: 95.0,
            conditions: Conditions { learns: true, seed, ..Conditions::default() },
        }
    }

    fn with_objectives(self, objectives: Objectives) -> Self {
        Self { objectives, ..self }
    }

    /// Moves a part of the cold start to the time before the process starts, which the scaler does not see.
    fn unseen(self, seconds: u64, spread: f64) -> Self {
        let median = Duration::from_secs(seconds);
        let worker = Worker { cold_start: self.worker.cold_start.saturating_sub(median), ..self.worker };
        let provisioning = super::conditions::Provisioning { median, spread };
        let name = format!("{} ({seconds} s unseen, spread {spread})", self.name);
        Self { name, worker, conditions: Conditions { provisioning, ..self.conditions }, ..self }
    }
}
