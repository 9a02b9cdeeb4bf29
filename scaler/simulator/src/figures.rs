//! The figures of a run: what the jobs got, and what it cost.

use std::time::Duration;

use super::outcome::Outcome;
use super::scenario::Objective;
use super::trace::Trace;
use super::view::View;

/// What the jobs of a run got, and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// The jobs of the trace.
    pub jobs: u64,
    /// Those that had not ended 20 hours after it, when the run was given up on.
    pub unfinished: u64,
    /// The share of all jobs that ended within the objective; 1 of none. A job that found no worker ready had the cold
    /// start on top of it.
    pub attainment: f64,
    /// Whether that is as much as was promised.
    pub is_met: bool,
    /// What 50, 95 and 99 percent of the jobs stayed within, exactly; `None` where so many never ended.
    pub latencies: [Option<Duration>; 3],
    /// What the workers cost: their time from start to end, the loading included.
    pub worker_time: Duration,
    /// How many workers were started.
    pub starts: u32,
    /// How often the pool was started from nothing.
    pub cold_starts: u32,
    /// The most workers at a time, as the series saw it.
    pub peak_workers: u32,
    /// The most jobs at a time that waited or ran, as the series saw it.
    pub largest_backlog: u64,
}

impl Figures {
    /// The figures of this outcome.
    pub fn new(trace: &Trace, objective: Objective, outcome: &Outcome) -> Self {
        let (jobs, ended) = (trace.jobs.len(), outcome.latencies.len());
        let mut sorted = outcome.latencies.clone();
        sorted.sort_unstable();
        let attainment = if jobs == 0 { 1.0 } else { outcome.within as f64 / jobs as f64 };
        let series = |of: fn(&View) -> u64| outcome.series.iter().map(of).max().unwrap_or(0);
        Self {
            jobs: jobs as u64,
            unfinished: (jobs - ended.min(jobs)) as u64,
            attainment,
            is_met: attainment * 100.0 >= objective.percentile,
            latencies: [50.0, 95.0, 99.0].map(|percent| percentile(&sorted, jobs, percent)),
            worker_time: outcome.worker_time,
            starts: outcome.starts,
            cold_starts: outcome.cold_starts,
            peak_workers: u32::try_from(series(|view| u64::from(view.ready + view.loading))).unwrap_or(u32::MAX),
            largest_backlog: series(|view| view.waiting + view.leased),
        }
    }
}

/// The nearest rank: what `percent` of all `jobs` stayed within. Those that are not among the sorted ones never ended.
fn percentile(sorted: &[Duration], jobs: usize, percent: f64) -> Option<Duration> {
    if jobs == 0 {
        return Some(Duration::ZERO);
    }
    let rank = (percent / 100.0 * jobs as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests;
