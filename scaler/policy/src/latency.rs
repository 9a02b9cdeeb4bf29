//! Mode `latency`: the number of workers that keeps jobs within a latency objective, from measurements.
//!
//! A new job waits for the backlog before it. By Little's law it ends after about `backlog ÷ (workers × μ)`. `μ` is the
//! throughput of one worker in full batches, in jobs per second; `λ` is the rate of arrivals. The number of workers is
//! the largest of these terms:
//!
//! - *rate*: `λ ÷ μ`, the workers that serve the arrivals. `λ` is the highest rate within the scale-down delay.
//! - *replay*: the smallest number of workers with which recent arrivals would have been in time. It is found by a
//!   replay of those arrivals through a queue. So it covers bursts without an assumption about the distribution of
//!   arrivals. If more jobs were late than half of the allowed share, the replay looks back further, so that it covers
//!   rare bursts too.
//! - *catch up*: `λ ÷ μ + x ÷ μr`. A worker requested now is ready after the cold start. `x` is the number of jobs that
//!   the present workers cannot end in time. It is the backlog plus the arrivals until then, minus the jobs done until
//!   then, minus the jobs done within the slack. A loading worker counts from the moment it is ready. The extra workers
//!   end these jobs within the recovery time `r`, half of the cold start.
//! - *retain*: `backlog ÷ (μ × slack)`, at most the present workers. Workers stay until fewer can finish the backlog in
//!   time.
//! - 1 while there is work.
//!
//! The slack is how long a job may wait: the objective minus the time of a full batch.

use std::time::Duration;

use serde::Serialize;

use crate::forecast::Forecast;
use crate::history::{History, Point};
use crate::reading::Measurements;

/// The replay tries no larger number of workers.
const MAX_WORKERS: u32 = 1 << 20;

/// The settings of the mode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// How long a job may take from its arrival to its end.
    pub objective: Duration,
    /// The share of jobs that must meet the objective, in percent.
    pub percentile: f64,
    /// A rise of the rate within this window takes effect at once.
    pub panic_window: Duration,
    /// The window over which rates are averaged.
    pub stable_window: Duration,
    /// A lower rate takes effect when it has lasted this long.
    pub scale_down_delay: Duration,
    /// How far back the replay looks.
    pub look_back: Duration,
    /// How far back the replay looks if more jobs were late than half of the allowed share.
    pub long_look_back: Duration,
    /// The assumed cold start, until a worker has measured one.
    pub cold_start: Duration,
    /// Whether a forecast higher than the measured rate replaces it.
    pub follows_forecast: bool,
}

/// The terms of the calculation, in workers unless a unit is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LatencyTerms {
    /// The rate of arrivals, in jobs per second.
    pub arrivals: f64,
    /// The highest rate of arrivals within the scale-down delay, in jobs per second.
    #[serde(rename = "held_arrivals")]
    pub highest_arrivals: f64,
    /// The forecast of arrivals for the end of a cold start that begins now.
    pub forecast: Option<Forecast>,
    /// The throughput of one worker, in jobs per second. 0 before it is measured.
    pub throughput: f64,
    /// How long a job may wait, in seconds.
    pub slack_seconds: f64,
    /// How long a worker takes until it is ready, in seconds.
    pub cold_start_seconds: f64,
    /// The share of arrivals within the long look-back whose backlog was too large for the slack.
    pub late_share: f64,
    /// How far back the replay looked, in seconds.
    pub look_back_seconds: f64,
    /// Jobs over the capacity of the present workers when a cold start that begins now ends.
    pub excess: f64,
    /// The workers that serve the arrivals.
    pub rate: f64,
    /// The workers with which the jobs of recent arrivals would have ended in time.
    pub replay: f64,
    /// The workers that also end the excess jobs.
    #[serde(rename = "growth")]
    pub catch_up: f64,
    /// The present workers that the backlog still needs.
    #[serde(rename = "keep")]
    pub retain: f64,
    /// The largest of these terms, and at least 1 while there is work.
    pub wanted: f64,
}

impl Latency {
    /// The terms at the time of the last reading.
    pub fn terms(&self, history: &History) -> LatencyTerms {
        let Some(reading) = history.latest() else { return LatencyTerms::default() };
        let (now, backlog) = (reading.taken_at, reading.backlog());
        let Measurements { batch_time, cold_start } = history.measurements();
        let cold_start = cold_start.unwrap_or(self.cold_start);
        let (mut arrivals, mut highest_arrivals) = self.arrivals(history, now);
        let forecast = Forecast::of(history, cold_start);
        if let Some(forecast) = forecast.filter(|_| self.follows_forecast) {
            arrivals = arrivals.max(forecast.arrivals);
            highest_arrivals = highest_arrivals.max(forecast.arrivals);
        }
        let mut terms = LatencyTerms {
            arrivals,
            highest_arrivals,
            forecast,
            cold_start_seconds: cold_start.as_secs_f64(),
            ..LatencyTerms::default()
        };
        let work = if backlog > 0 { 1.0 } else { 0.0 };
        let Some(batch_time) = batch_time else {
            // The first worker measures the throughput. Before that, it is unknown whether further workers are useful.
            terms.wanted = work;
            return terms;
        };
        terms.throughput = batch_time.throughput();
        let full = batch_time.full_seconds();
        // If a full batch takes longer than the objective, there is no slack. Then one full batch may wait.
        terms.slack_seconds = (self.objective.as_secs_f64() - full).max(full);

        let served = |rate: f64| rate / terms.throughput;
        terms.rate = served(highest_arrivals);
        let allowed_late_share = 1.0 - self.percentile / 100.0;
        terms.late_share =
            late_share(history, now.saturating_sub(self.long_look_back), terms.throughput, terms.slack_seconds);
        let look_back = if terms.late_share > allowed_late_share / 2.0 { self.long_look_back } else { self.look_back };
        terms.look_back_seconds = look_back.as_secs_f64();
        if highest_arrivals > 0.0 {
            // The other half of the share is for bursts that past arrivals do not show.
            let replay = Replay { history, since: now.saturating_sub(look_back), slack: terms.slack_seconds };
            terms.replay = replay.workers(terms.throughput, allowed_late_share / 2.0);
        }

        let fleet = &reading.fleet;
        let ahead = terms.cold_start_seconds;
        // The loading time of a worker counts up to one cold start. A worker that takes longer will be ready soon.
        let loaded = fleet.loading_for.as_secs_f64().min(fleet.loading as f64 * ahead);
        let done = (fleet.ready as f64 * ahead + loaded) * terms.throughput;
        let within_slack = terms.throughput * terms.slack_seconds;
        let allowed = fleet.ready_or_loading() as f64 * within_slack;
        terms.excess = (backlog as f64 + arrivals * ahead - done - allowed).max(0.0);
        if terms.excess > 0.0 {
            // A worker costs its cold start before its first job. With a shorter recovery it would do too few jobs for
            // this cost.
            let recovery = (ahead / 2.0).max(terms.slack_seconds);
            terms.catch_up = served(arrivals) + terms.excess / (terms.throughput * recovery);
        }
        terms.retain = (backlog as f64 / within_slack).min(fleet.ready_or_loading() as f64);
        terms.wanted = terms.rate.max(terms.replay).max(terms.catch_up).max(terms.retain).max(work);
        terms
    }

    /// The rate now, and the highest rate within the scale-down delay.
    fn arrivals(&self, history: &History, now: Duration) -> (f64, f64) {
        let stable = |at: Duration| history.arrivals_per_second(self.stable_window, at);
        let mut rate = stable(now);
        // A short window shows a sudden rise first. A rise of less than two standard deviations of a Poisson process
        // counts as random.
        for part in [1, 2, 4] {
            let window = self.panic_window / part;
            let short = history.arrivals_per_second(window, now);
            let chance = 2.0 * (short / window.as_secs_f64().max(f64::MIN_POSITIVE)).sqrt();
            rate = rate.max(short - chance);
        }
        let since = now.saturating_sub(self.scale_down_delay);
        let recent = history.points().rev().take_while(|point| point.at >= since).map(|point| stable(point.at));
        (rate, recent.fold(rate, f64::max))
    }
}

/// The share of the arrivals since `since` that had more than `slack` seconds of work before them, with the workers
/// that were ready then.
fn late_share(history: &History, since: Duration, throughput: f64, slack: f64) -> f64 {
    // The newest interval is left out of the total; otherwise a burst of new arrivals would dilute the share of late
    // jobs.
    let (mut late, mut total, mut newest) = (0.0, 0.0, 0.0);
    for (before, point) in intervals(history, since) {
        let arrived = arrived(before, point);
        total += std::mem::replace(&mut newest, arrived);
        if f64::from(point.backlog_per_worker) > throughput * slack {
            late += arrived;
        }
    }
    if total > 0.0 { (late / total).min(1.0) } else { 0.0 }
}

/// Pairs of successive points.
fn intervals(history: &History, since: Duration) -> impl Iterator<Item = (&Point, &Point)> {
    let points = || history.points().skip_while(move |point| point.at < since);
    points().zip(points().skip(1))
}

fn arrived(before: &Point, point: &Point) -> f64 {
    point.arrived().saturating_sub(before.arrived()) as f64
}

/// A replay of past arrivals through a queue.
struct Replay<'a> {
    history: &'a History,
    since: Duration,
    /// How long a job may wait, in seconds.
    slack: f64,
}

impl Replay<'_> {
    /// The smallest number of workers with which at most the share `allowed` of the arrivals would have been late.
    fn workers(&self, throughput: f64, allowed: f64) -> f64 {
        let is_enough = |workers: u32| self.late_share(f64::from(workers) * throughput) <= allowed;
        let mut most = 1;
        while !is_enough(most) && most < MAX_WORKERS {
            most *= 2;
        }
        let mut least = most / 2 + 1;
        while least < most {
            let middle = least.midpoint(most);
            if is_enough(middle) {
                most = middle;
            } else {
                least = middle + 1;
            }
        }
        f64::from(most)
    }

    /// The share of the arrivals that would have had more work before them than the slack allows, at a throughput of
    /// `capacity` jobs per second.
    fn late_share(&self, capacity: f64) -> f64 {
        let most = capacity * self.slack;
        // The newest interval is left out of the total, as in the function `late_share`.
        let (mut backlog, mut late, mut total, mut newest) = (0.0_f64, 0.0, 0.0, 0.0);
        for (before, point) in intervals(self.history, self.since) {
            let arrived = arrived(before, point);
            let seconds = point.at.saturating_sub(before.at).as_secs_f64();
            total += std::mem::replace(&mut newest, arrived);
            // The jobs of an interval are assumed to arrive at its peak rate, followed by time without arrivals.
            let coming = if arrived > 0.0 { (arrived / f64::from(point.peak_rate)).min(seconds) } else { 0.0 };
            let then = (backlog + arrived - capacity * coming).max(0.0);
            let (low, high) = (backlog.min(then), backlog.max(then));
            // The backlog changes linearly in that time. Jobs are late while it is above the limit.
            late += arrived
                * if low > most {
                    1.0
                } else if high > most {
                    (high - most) / (high - low)
                } else {
                    0.0
                };
            backlog = (then - capacity * (seconds - coming)).max(0.0);
        }
        if total > 0.0 { late / total } else { 0.0 }
    }
}
