//! The machine-readable report of a run.

use std::time::Duration;

use serde::Serialize;

use super::comparison::{Comparison, Run};

/// The report of one policy under one trace, for JSON output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport<'a> {
    /// The name of the trace.
    pub trace: &'a str,
    /// The name of the policy.
    pub policy: &'a str,
    /// The jobs of the trace.
    pub jobs: u64,
    /// The jobs that never ended.
    pub unfinished: u64,
    /// The share of the jobs that ended within the objective, from 0 to 1, counted from their arrival.
    pub within_objective: f64,
    /// The share of the jobs that ended late and had arrived while no worker was ready, from 0 to 1.
    pub late_from_zero: f64,
    /// Whether this share reaches the percentile of the objective.
    pub objective_met: bool,
    /// The median latency. `null`, here and below: too many jobs never ended.
    pub latency_p50_seconds: Option<f64>,
    /// The 95th percentile.
    pub latency_p95_seconds: Option<f64>,
    /// The 99th percentile.
    pub latency_p99_seconds: Option<f64>,
    /// The time of all workers, including loading.
    pub worker_hours: f64,
    /// The worker hours divided by the upper bound: those of the cheapest run that meets the objective, if there is one.
    pub times_upper_bound: Option<f64>,
    /// The worker hours divided by the lower bound, which no schedule can reach in general.
    pub times_lower_bound: Option<f64>,
    /// The number of started workers.
    pub starts: u32,
    /// How many times the pool was started from zero workers.
    pub cold_starts: u32,
    /// The largest number of workers.
    pub peak_workers: u32,
    /// The largest number of waiting and running jobs.
    pub largest_backlog: u64,
}

impl<'a> RunReport<'a> {
    /// The report of a run of the comparison.
    pub fn new(comparison: &'a Comparison<'_>, run: &'a Run) -> Self {
        let figures = &run.figures;
        let [p50, p95, p99] = figures.latencies.map(|latency| latency.map(|latency| latency.as_secs_f64()));
        let times = |bound: Duration| (!bound.is_zero()).then(|| figures.worker_time.div_duration_f64(bound));
        Self {
            trace: comparison.name,
            policy: &run.policy,
            jobs: figures.jobs,
            unfinished: figures.unfinished,
            within_objective: figures.attainment,
            late_from_zero: figures.late_from_zero,
            objective_met: figures.is_met,
            latency_p50_seconds: p50,
            latency_p95_seconds: p95,
            latency_p99_seconds: p99,
            worker_hours: hours(figures.worker_time),
            times_upper_bound: comparison.upper_bound.as_ref().and_then(|upper| times(upper.worker_time)),
            times_lower_bound: times(comparison.bound),
            starts: figures.starts,
            cold_starts: figures.cold_starts,
            peak_workers: figures.peak_workers,
            largest_backlog: figures.largest_backlog,
        }
    }
}

fn hours(time: Duration) -> f64 {
    time.as_secs_f64() / 3600.0
}

#[cfg(test)]
mod tests;
