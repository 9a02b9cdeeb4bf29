//! Mode `latency`: the workers that keep jobs within an objective, from what has been measured.
//!
//! A job that arrives now has the backlog before it, so by Little's law it is done in about `backlog ÷ (workers × μ)`, where
//! `μ` is what one worker does in full batches, per second. From that follow these needs, of which the largest counts:
//!
//! - *rate*: `λ ÷ μ`, so that what arrives is served. `λ` is the highest rate of the delay before a pool shrinks.
//! - *replay*: the fewest workers with which what arrived lately would have been in time, reckoned by playing it through a
//!   queue. It holds what chance and bursts need beyond the mean, without a guess at how arrivals are distributed. Where more
//!   jobs have been late than half of those that may be, it looks back further: what is rare is to be remembered for longer.
//! - *growth*: `λ ÷ μ + x ÷ μr`. A worker asked for now is ready after the cold start. What is too much by then, `x`: the
//!   backlog, and what arrives until then, less what is done until then by the workers there are (those that load from when
//!   they are ready), less what they do within the slack. It is worked off within `r`, half of the cold start.
//! - *keep*: `backlog ÷ (μ × slack)`, and no more than there are: who works off a backlog stays until the rest can do without.
//! - *work*: 1 while there is any.
//!
//! The slack is how long a job may wait: the objective less the time of a full batch.

use std::time::Duration;

use serde::Serialize;

use crate::forecast::Forecast;
use crate::history::{History, Point};
use crate::reading::Measured;

/// No pool has more.
const MOST_WORKERS: u32 = 1 << 20;

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
    /// So much of it where it has had more late jobs than half of those that may be.
    pub long_look_back: Duration,
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
    /// Of the arrivals of the long look-back, the share that found more work before them than could be done in time.
    pub late_share: f64,
    /// So much of the past was replayed, in seconds.
    pub look_back_seconds: f64,
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
        let may_be_late = 1.0 - self.percentile / 100.0;
        needs.late_share =
            late_share(history, now.saturating_sub(self.long_look_back), needs.throughput, needs.slack_seconds);
        let look_back = if needs.late_share > may_be_late / 2.0 { self.long_look_back } else { self.look_back };
        needs.look_back_seconds = look_back.as_secs_f64();
        if held_arrivals > 0.0 {
            // Half of the share is for what cannot be seen in advance.
            let replay = Replay { history, since: now.saturating_sub(look_back), slack: needs.slack_seconds };
            needs.replay = replay.workers(needs.throughput, may_be_late / 2.0);
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
}

/// The share of the arrivals since a moment that found more than `slack` seconds of work before them, with as many workers as
/// were ready.
fn late_share(history: &History, since: Duration, throughput: f64, slack: f64) -> f64 {
    // The newest do not count among all, so that more of them never make the late ones a smaller share.
    let (mut late, mut total, mut newest) = (0.0, 0.0, 0.0);
    for (before, point) in intervals(history, since) {
        let arrived = arrived(before, point);
        total += std::mem::replace(&mut newest, arrived);
        if f64::from(point.crowd) > throughput * slack {
            late += arrived;
        }
    }
    if total > 0.0 { (late / total).min(1.0) } else { 0.0 }
}

/// Points that follow each other.
fn intervals(history: &History, since: Duration) -> impl Iterator<Item = (&Point, &Point)> {
    let points = || history.points().skip_while(move |point| point.at < since);
    points().zip(points().skip(1))
}

fn arrived(before: &Point, point: &Point) -> f64 {
    point.arrived().saturating_sub(before.arrived()) as f64
}

/// The past, played through a queue.
struct Replay<'a> {
    history: &'a History,
    since: Duration,
    /// How long a job may wait, in seconds.
    slack: f64,
}

impl Replay<'_> {
    /// The fewest workers with which no larger share of the arrivals would have been late than `allowed`.
    fn workers(&self, throughput: f64, allowed: f64) -> f64 {
        let is_enough = |workers: u32| self.late(f64::from(workers) * throughput) <= allowed;
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

    /// The share of the arrivals that would have found more than the slack of work before them, done at `capacity` jobs per
    /// second.
    fn late(&self, capacity: f64) -> f64 {
        let most = capacity * self.slack;
        // The newest count as in `late_share`.
        let (mut backlog, mut late, mut total, mut newest) = (0.0_f64, 0.0, 0.0, 0.0);
        for (before, point) in intervals(self.history, self.since) {
            let arrived = arrived(before, point);
            let seconds = point.at.saturating_sub(before.at).as_secs_f64();
            total += std::mem::replace(&mut newest, arrived);
            // As if all had come at the highest rate that was seen, and then none.
            let coming = if arrived > 0.0 { (arrived / f64::from(point.peak)).min(seconds) } else { 0.0 };
            let then = (backlog + arrived - capacity * coming).max(0.0);
            let (low, high) = (backlog.min(then), backlog.max(then));
            // Work rises or falls evenly meanwhile, so the late ones are those of the time for which it was too much.
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
