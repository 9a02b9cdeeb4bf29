//! The figures of a run: latencies of the jobs and cost of the workers.

use std::time::Duration;

use super::outcome::Outcome;
use super::trace::Trace;
use super::view::View;

/// The figures of a run: latencies of the jobs and cost of the workers.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// The jobs of the trace.
    pub jobs: u64,
    /// The jobs that had not ended 20 hours after the trace, when the run was stopped.
    pub unfinished: u64,
    /// The share of all jobs with an objective that ended within it, counted from their arrival. 1 without such jobs.
    pub attainment: f64,
    /// The share of all jobs with an objective that ended late and had arrived while no worker was ready.
    pub late_from_zero: f64,
    /// Whether this share reaches the percentile of the objective.
    pub is_met: bool,
    /// The exact 50th, 95th and 99th percentile of the latencies. `None`: too many jobs did not end.
    pub latencies: [Option<Duration>; 3],
    /// The cost: the time of all workers from their request to their end, including provisioning and loading.
    pub worker_time: Duration,
    /// The number of started workers.
    pub starts: u32,
    /// How many times the pool was started from zero workers.
    pub cold_starts: u32,
    /// The largest number of workers in the series.
    pub peak_workers: u32,
    /// The largest number of waiting and running jobs in the series.
    pub largest_backlog: u64,
}

impl Figures {
    /// The figures of an outcome.
    pub fn new(trace: &Trace, percentile_required: f64, outcome: &Outcome) -> Self {
        let (jobs, ended) = (trace.jobs.len(), outcome.latencies.len());
        let mut sorted = outcome.latencies.clone();
        sorted.sort_unstable();
        // A job that never ended is late. It is not known whether it has an objective, so it counts.
        let judged = outcome.judged + (jobs - ended.min(jobs)) as u64;
        let share = |count: u64| if judged == 0 { 0.0 } else { count as f64 / judged as f64 };
        let attainment = if judged == 0 { 1.0 } else { share(outcome.within) };
        let series = |of: fn(&View) -> u64| outcome.series.iter().map(of).max().unwrap_or(0);
        Self {
            jobs: jobs as u64,
            unfinished: (jobs - ended.min(jobs)) as u64,
            attainment,
            late_from_zero: share(outcome.late_from_zero),
            is_met: attainment * 100.0 >= percentile_required,
            latencies: [50.0, 95.0, 99.0].map(|percent| percentile(&sorted, jobs, percent)),
            worker_time: outcome.worker_time,
            starts: outcome.starts,
            cold_starts: outcome.cold_starts,
            peak_workers: u32::try_from(series(|view| u64::from(view.present()))).unwrap_or(u32::MAX),
            largest_backlog: series(|view| view.waiting() + view.leased),
        }
    }
}

/// The percentile of all `jobs` by nearest rank. Jobs that are missing from `sorted` never ended.
fn percentile(sorted: &[Duration], jobs: usize, percent: f64) -> Option<Duration> {
    if jobs == 0 {
        return Some(Duration::ZERO);
    }
    let rank = (percent / 100.0 * jobs as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests;
