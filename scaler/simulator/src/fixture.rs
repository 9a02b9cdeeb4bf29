//! Small objectives, traces and outcomes for tests.

use std::time::Duration;

use queue::Class;
use service::Period;

use crate::outcome::Outcome;
use crate::scenario::Objective;
use crate::trace::{Arrival, Trace};

pub(crate) fn objective(percentile: f64) -> Objective {
    Objective { latency: Period::seconds(5), percentile }
}

pub(crate) fn trace(jobs: usize) -> Trace {
    let job = |at: usize| Arrival { at: Duration::from_secs(at as u64), work: 1.0, class: Class::Standard };
    Trace { jobs: (0..jobs).map(job).collect(), length: Duration::from_secs(jobs as u64) }
}

pub(crate) fn outcome(latencies: impl Iterator<Item = u64>, worker_seconds: u64) -> Outcome {
    let latencies: Vec<_> = latencies.map(Duration::from_secs).collect();
    let within = latencies.iter().filter(|latency| latency.as_secs() <= 5).count() as u64;
    let (judged, worker_time) = (latencies.len() as u64, Duration::from_secs(worker_seconds));
    Outcome { latencies, judged, within, worker_time, starts: 3, cold_starts: 2, ..Outcome::default() }
}
