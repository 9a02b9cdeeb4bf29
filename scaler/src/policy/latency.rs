//! Mode `latency`: the workers that keep jobs within an objective, from what has been measured.
//!
//! A job that arrives now has the backlog before it, so by Little's law it is done in about `backlog ÷ (workers × μ)`, where
//! `μ` is what one worker does in full batches, per second. From that follow these needs, of which the largest counts:
//!
//! - *rate*: `λ ÷ μ`, so that what arrives is served. `λ` is the highest rate of the delay before a pool shrinks.
//! - *replay*: the fewest workers with which what arrived lately would have been in time, reckoned by playing it through a
//!   queue. It holds what chance and bursts need beyond the mean, without a guess at how arrivals are distributed.
//! - *growth*: `λ ÷ μ + x ÷ μr`. A worker asked for now is ready after the cold start. What is too much by then, `x`: the
//!   backlog, and what arrives until then, less what is done until then by the workers there are (those that load from when
//!   they are ready), less what they do within the slack. It is worked off within `r`, half of the cold start.
//! - *keep*: `backlog ÷ (μ × slack)`, and no more than there are: who works off a backlog stays until the rest can do without.
//! - *work*: 1 while there is any.
//!
//! The slack is how long a job may wait: the objective less the time of a full batch.

use std::time::Duration;

use serde::Serialize;

use super::forecast::Forecast;
use crate::history::{History, Point};

/// No pool has more.
const MOST_WORKERS: u32 = 1 << 20;
use crate::reading::Measured;

/// What the mode is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// How long a job may take.
    pub objective: Duration,
    /// For how many of a hundred jobs.
    pub percentile: f64,
    /// A rise is followed as soon as it shows in this time.
    pub panic_window: Duration,
    /// Over this time rates are averaged.
    pub stable_window: Duration,
    /// The rate of arrivals has fallen when it has been lower for so long.
    pub scale_down_delay: Duration,
    /// So much of the past is replayed.
    pub look_back: Duration,
    /// What is thought of as the cold start before one has been measured.
    pub cold_start: Duration,
    /// Whether arrivals are those of the forecast where it is higher.
    pub follows_forecast: bool,
}

/// What the mode reckons, term by term, in workers unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Needs {
    /// Jobs per second that arrive.
    pub arrivals: f64,
    /// The same, the highest of the delay before a pool shrinks.
    pub held_arrivals: f64,
    /// What is foreseen of the arrivals when a worker asked for now is ready; used only where the mode is told so.
    pub forecast: Option<Forecast>,
    /// Jobs per second that one worker does; 0 before one has been measured.
    pub throughput: f64,
    /// How long a job may wait, in seconds.
    pub slack_seconds: f64,
    /// How long a worker takes to be ready, in seconds.
    pub cold_start_seconds: f64,
    /// Jobs that will be too much when a worker asked for now is ready.
    pub excess: f64,
    /// So that what arrives is served.
    pub rate: f64,
    /// With which what arrived lately would have been in time.
    pub replay: f64,
    /// So that what is too much is worked off.
    pub growth: f64,
    /// So that nobody leaves in the middle of that.
    pub keep: f64,
    /// The largest of them, and at least 1 while there is work.
    pub wanted: f64,
}

impl Latency {
    /// The workers needed at the moment of the last reading.
    pub fn needs(&self, history: &History) -> Needs {
        let Some(reading) = history.latest() else { return Needs::default() };
        let (now, backlog) = (reading.taken_at, reading.backlog());
        let Measured { batch, cold_start } = history.measured();
        let cold_start = cold_start.unwrap_or(self.cold_start);
        let (mut arrivals, mut held_arrivals) = self.arrivals(history, now);
        let forecast = Forecast::of(history, cold_start);
        if let Some(forecast) = forecast.filter(|_| self.follows_forecast) {
            arrivals = arrivals.max(forecast.arrivals);
            held_arrivals = held_arrivals.max(forecast.arrivals);
        }
        let mut needs = Needs {
            arrivals,
            held_arrivals,
            forecast,
            cold_start_seconds: cold_start.as_secs_f64(),
            ..Needs::default()
        };
        let work = if backlog > 0 { 1.0 } else { 0.0 };
        let Some(batch) = batch else {
            // The first worker will measure what one can do; until then nobody knows what more would be good for.
            needs.wanted = work;
            return needs;
        };
        needs.throughput = batch.throughput();
        let full = batch.full_seconds();
        // A batch that takes longer than the objective leaves no slack; then at least one batch is queued.
        needs.slack_seconds = (self.objective.as_secs_f64() - full).max(full);

        let served = |rate: f64| rate / needs.throughput;
        needs.rate = served(held_arrivals);
        if held_arrivals > 0.0 {
            needs.replay = self.replay(history, now, needs.throughput, needs.slack_seconds);
        }

        let fleet = &reading.fleet;
        let ahead = needs.cold_start_seconds;
        // A worker that takes longer than usual is about to be ready.
        let loaded = fleet.loading_for.as_secs_f64().min(fleet.loading as f64 * ahead);
        let done = (fleet.ready as f64 * ahead + loaded) * needs.throughput;
        let within_slack = needs.throughput * needs.slack_seconds;
        let allowed = fleet.staying() as f64 * within_slack;
        needs.excess = (backlog as f64 + arrivals * ahead - done - allowed).max(0.0);
        if needs.excess > 0.0 {
            // A worker costs its cold start before it does anything, so one that then works for less than half as long is dear.
            let recovery = (ahead / 2.0).max(needs.slack_seconds);
            needs.growth = served(arrivals) + needs.excess / (needs.throughput * recovery);
        }
        needs.keep = (backlog as f64 / within_slack).min(fleet.staying() as f64);
        needs.wanted = needs.rate.max(needs.replay).max(needs.growth).max(needs.keep).max(work);
        needs
    }

    /// The rate now, and the highest of the delay before a pool shrinks.
    fn arrivals(&self, history: &History, now: Duration) -> (f64, f64) {
        let stable = |at: Duration| history.arrivals_per_second(self.stable_window, at);
        let mut rate = stable(now);
        // A sudden rise shows first in a short time, as more than chance makes of the rate so far.
        for part in [1, 2, 4] {
            let window = self.panic_window / part;
            let short = history.arrivals_per_second(window, now);
            let chance = 2.0 * (short / window.as_secs_f64().max(f64::MIN_POSITIVE)).sqrt();
            rate = rate.max(short - chance);
        }
        let since = now.saturating_sub(self.scale_down_delay);
        let held = history.points().rev().take_while(|point| point.at >= since).map(|point| stable(point.at));
        (rate, held.fold(rate, f64::max))
    }

    /// The fewest workers with which the arrivals of the last while would have been in time, but for half of the share that may
    /// be late: the other half is for what cannot be seen in advance.
    fn replay(&self, history: &History, now: Duration, throughput: f64, slack: f64) -> f64 {
        let allowed = (1.0 - self.percentile / 100.0) / 2.0;
        let is_enough = |workers: u32| self.late(history, now, f64::from(workers) * throughput, slack) <= allowed;
        let mut most = 1;
        while !is_enough(most) && most < MOST_WORKERS {
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

    /// The share of the arrivals of the last while that would have found more than `slack` seconds of work before them, done at
    /// `capacity` jobs per second.
    fn late(&self, history: &History, now: Duration, capacity: f64, slack: f64) -> f64 {
        let since = now.saturating_sub(self.look_back);
        // The newest do not count among all, so that more of them never make the late ones a smaller share.
        let (mut backlog, mut late, mut total, mut newest) = (0.0, 0.0, 0.0, 0.0);
        let mut before: Option<&Point> = None;
        for point in history.points().skip_while(|point| point.at < since) {
            if let Some(before) = before.replace(point) {
                let arrived = point.arrived().saturating_sub(before.arrived()) as f64;
                let seconds = point.at.saturating_sub(before.at).as_secs_f64();
                total += std::mem::replace(&mut newest, arrived);
                if backlog > capacity * slack {
                    late += arrived;
                }
                backlog = (backlog + arrived - capacity * seconds).max(0.0);
            }
        }
        if total > 0.0 { late / total } else { 0.0 }
    }
}
