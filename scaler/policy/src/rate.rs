//! Mode `rate`: the metric is the jobs that arrive per second, the target is how many of them one worker serves.

use std::time::Duration;

use serde::Serialize;

use crate::history::History;

/// What the mode is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Jobs per second and worker.
    pub per_worker: f64,
    /// Over this time arrivals are averaged.
    pub window: Duration,
}

/// What arrives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Arrivals {
    /// Jobs per second, over the window.
    pub arrivals: f64,
    /// Jobs per second that work off within the window what is there.
    pub backlog: f64,
    /// Their sum.
    pub value: f64,
}

impl Rate {
    /// What arrives, and what is there: arrivals alone would leave a backlog to itself once nothing arrives any more.
    pub fn arrivals(&self, history: &History) -> Arrivals {
        let Some(reading) = history.latest() else { return Arrivals::default() };
        let now = reading.taken_at;
        let arrivals = history.arrivals_per_second(self.window, now);
        let backlog = reading.backlog() as f64 / self.window.as_secs_f64();
        Arrivals { arrivals, backlog, value: arrivals + backlog }
    }
}
