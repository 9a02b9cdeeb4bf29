//! What is reported of a run, for a program to read.

use std::time::Duration;

use serde::Serialize;

use super::comparison::{Comparison, Run};

/// One line for a program to read: a policy under a trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line<'a> {
    /// The trace's name.
    pub trace: &'a str,
    /// The policy's.
    pub policy: &'a str,
    /// The jobs of the trace.
    pub jobs: u64,
    /// Those that never ended.
    pub unfinished: u64,
    /// The share that ended within the objective, from 0 to 1.
    pub within_objective: f64,
    /// Whether that is as much as was promised.
    pub objective_met: bool,
    /// `null`, here and below, where so many jobs never ended.
    pub latency_p50_seconds: Option<f64>,
    /// Of 95 % of the jobs.
    pub latency_p95_seconds: Option<f64>,
    /// Of 99 %.
    pub latency_p99_seconds: Option<f64>,
    /// The workers' time, the loading included.
    pub worker_hours: f64,
    /// The same as a multiple of the oracle's, where there is one.
    pub times_oracle: Option<f64>,
    /// How many workers were started.
    pub starts: u32,
    /// How often the pool was started from nothing.
    pub cold_starts: u32,
    /// The most workers at a time.
    pub peak_workers: u32,
    /// The most jobs at a time that waited or ran.
    pub largest_backlog: u64,
}

impl<'a> Line<'a> {
    /// What is said of this run of the comparison.
    pub fn new(comparison: &'a Comparison<'_>, run: &'a Run) -> Self {
        let figures = &run.figures;
        let [p50, p95, p99] = figures.latencies.map(|latency| latency.map(|latency| latency.as_secs_f64()));
        let oracle_hours = comparison.oracle_time().map(hours).filter(|hours| *hours > 0.0);
        Self {
            trace: comparison.name,
            policy: &run.policy,
            jobs: figures.jobs,
            unfinished: figures.unfinished,
            within_objective: figures.attainment,
            objective_met: figures.is_met,
            latency_p50_seconds: p50,
            latency_p95_seconds: p95,
            latency_p99_seconds: p99,
            worker_hours: hours(figures.worker_time),
            times_oracle: oracle_hours.map(|oracle| hours(figures.worker_time) / oracle),
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
