//! Mode `rate`: the metric is the jobs that arrive per second, the target is the jobs per second that one worker
//! serves.

use std::time::Duration;

use serde::Serialize;

use crate::history::History;

/// The settings of the mode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Jobs per second and worker.
    pub per_worker: f64,
    /// The window over which arrivals are averaged.
    pub window: Duration,
}

/// The parts of the metric, in jobs per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct RateTerms {
    /// Arrivals, averaged over the window.
    pub arrivals: f64,
    /// The rate that finishes the backlog within the window.
    pub backlog: f64,
    /// Their sum.
    pub value: f64,
}

impl Rate {
    /// Arrivals and backlog. Arrivals alone would leave a backlog without workers when no more jobs arrive.
    pub fn terms(&self, history: &History) -> RateTerms {
        let Some(reading) = history.latest() else { return RateTerms::default() };
        let now = reading.taken_at;
        let arrivals = history.arrivals_per_second(self.window, now);
        let backlog = reading.backlog() as f64 / self.window.as_secs_f64();
        RateTerms { arrivals, backlog, value: arrivals + backlog }
    }
}
