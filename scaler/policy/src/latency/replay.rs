//! How long workers are kept after the demand that needed them has ended.
//!
//! A worker that is let go costs nothing until the demand returns. Then it costs a start, and every job that arrives
//! until it is ready is late. So this is a ski rental problem: keep it for some time, then let it go. How long depends on
//! how the demand of this pool returns. Several times are tried on the history of the pool, in a replay of its arrivals
//! through a queue whose workers take as long to start as the real ones.

use std::collections::VecDeque;

use super::demand::Demand;
use crate::keep::Keep;

/// The shortest time, in starts. Without knowledge of the future, the best time costs as much as a start (Karlin et al.,
/// *Competitive randomized algorithms for nonuniform problems*, 1994). A start also makes jobs late, which counts as
/// another start.
const SHORTEST: f64 = 2.0;

/// When all late jobs that the promise allows have been late, a further start is as expensive as this number of starts. The
/// price grows with the square of the late jobs: far below the limit, late jobs are not a reason to keep workers.
const AT_THE_LIMIT: f64 = 4.0;

/// The late jobs of the replay are at most this share of those that the promise allows. The rest is for what the past
/// does not show.
const USED_SHARE: f64 = 0.75;

/// The default of `--horizontal-pod-autoscaler-tolerance`.
const HPA_TOLERANCE: f64 = 0.1;

/// The longest time, in seconds: the history is not longer.
const LONGEST_SECONDS: f64 = crate::history::LONGEST_HISTORY.as_secs() as f64;

/// What the replay needs to know.
pub(super) struct Replay<'a> {
    pub(super) demand: &'a Demand,
    /// Jobs per second of one worker.
    pub(super) throughput: f64,
    /// How long a job may wait, in seconds.
    pub(super) slack: f64,
    /// The time from the demand for a worker until it is ready, in seconds.
    pub(super) ready_in: f64,
    /// The share of jobs that may be late.
    pub(super) allowed: f64,
}

/// The late jobs and the worker-seconds of a replay.
#[derive(Clone, Copy)]
struct Outcome {
    keeps: f64,
    late: f64,
    cost: f64,
}

impl Replay<'_> {
    /// The cheapest time that keeps the promise in the replay. `late_share` is the measured share of late
    /// jobs.
    pub(super) fn keep(&self, late_share: f64, max_hours_per_day: Option<f64>) -> Keep {
        let (demand, allowed) = (self.demand, self.allowed);
        let (Some(first), Some(last)) = (demand.at.first(), demand.at.last()) else { return Keep::default() };
        let (total, days) = (demand.total().max(1.0), (last - first).max(1.0) / 86_400.0);
        let shortest = SHORTEST * self.ready_in;
        if demand.total() == 0.0 {
            return Keep { seconds: shortest, replayed_seconds: last - first, ..Keep::default() };
        }
        let times = std::iter::successors(Some(shortest), |keeps| Some(keeps * 2.0));
        let times = times.take_while(|keeps| *keeps < LONGEST_SECONDS).chain([LONGEST_SECONDS]);
        let results: Vec<Outcome> = times.map(|keeps| self.run(keeps)).collect();
        let hours = |result: &Outcome| result.cost / 3600.0 / days;
        let is_affordable = |result: &&Outcome| max_hours_per_day.is_none_or(|most| hours(result) <= most);
        let least = results.iter().map(|result| result.late).fold(f64::INFINITY, f64::min) / total;
        // A tenth of the allowed share is no reason to pay for more.
        let enough = f64::max(allowed * USED_SHARE, least + allowed / 10.0);
        let keeps_promise = |result: &&Outcome| result.late / total <= enough;
        let affordable = || results.iter().filter(is_affordable);
        let cheapest = affordable().filter(keeps_promise).min_by(|one, other| one.cost.total_cmp(&other.cost));
        let least_late = || affordable().min_by(|one, other| one.late.total_cmp(&other.late));
        let Some(best) = cheapest.or_else(least_late).or(results.first()) else { return Keep::default() };
        // The replay knows only returns of the demand that have happened. The less may still go wrong, the longer the
        // workers are kept.
        let spent = late_share / allowed;
        let careful = (self.ready_in * AT_THE_LIMIT * spent * spent).min(LONGEST_SECONDS);
        let chosen = affordable().find(|result| result.keeps >= careful.max(best.keeps)).unwrap_or(best);
        Keep {
            seconds: chosen.keeps,
            late_share: chosen.late / total,
            least_late_share: least,
            worker_hours_per_day: hours(chosen),
            replayed_seconds: last - first,
        }
    }

    /// A replay of the history in which workers are kept for this time.
    fn run(&self, keeps: f64) -> Outcome {
        let demand = self.demand;
        let (mut kept, mut supply) = (Window::largest(keeps), Window::smallest(self.ready_in));
        let (mut backlog, mut result) = (0.0_f64, Outcome { keeps, late: 0.0, cost: 0.0 });
        let mut wanted = 0.0;
        for place in 1..demand.at.len() {
            let (from, now) = (demand.at[place - 1], demand.at[place]);
            let seconds = now - from;
            // What was wanted for the whole time of a start is ready.
            let ready = supply.push(from, wanted);
            let capacity = ready * self.throughput;
            let arrived = demand.arrivals(place);
            let coming = demand.active[place];
            let then = (backlog + arrived - capacity * coming).max(0.0);
            let most = capacity * self.slack;
            result.late += arrived * share_above(backlog, then, most);
            backlog = (then - capacity * (seconds - coming)).max(0.0);
            result.cost += wanted * seconds;
            let needed = (demand.needed[place] / self.throughput).ceil();
            let kept = kept.push(now, needed);
            // The HPA ignores a fall within its tolerance.
            wanted = if kept < wanted && kept >= wanted * (1.0 - HPA_TOLERANCE) { wanted } else { kept };
            let excess = backlog - wanted * self.throughput * self.slack;
            if excess > 0.0 {
                let rate = demand.needed[place];
                let extra = extra_workers(excess, rate, self.throughput, self.ready_in, self.allowed);
                wanted = (needed + extra).ceil().max(wanted);
            }
        }
        result
    }
}

/// The extra workers that end `excess` jobs, while jobs arrive at `rate`.
///
/// k workers need x ÷ (k × μ) seconds for x jobs. λ times as many jobs arrive meanwhile and are late. The x jobs wait for
/// half of these seconds on average, and each is late once more per start. The workers cost k starts and the work itself.
/// A late job is as expensive as the jobs that it takes from the promise: 1 ÷ `allowed` jobs of 1 ÷ μ seconds. The sum is
/// lowest for k = √((λ + x ÷ (2 × start)) × x ÷ (allowed × start)) ÷ μ.
pub(super) fn extra_workers(excess: f64, rate: f64, throughput: f64, start: f64, allowed: f64) -> f64 {
    ((rate + excess / (2.0 * start)) * excess / (allowed * start)).sqrt() / throughput
}

/// The share of a time in which a linear change from `one` to `other` is above `most`.
fn share_above(one: f64, other: f64, most: f64) -> f64 {
    let (low, high) = (one.min(other), one.max(other));
    if low > most {
        1.0
    } else if high > most {
        (high - most) / (high - low)
    } else {
        0.0
    }
}

/// The largest value within a time, or the smallest.
struct Window {
    seconds: f64,
    is_largest: bool,
    /// Values that may still become the result: when each began, when the next one replaced it, and the value.
    values: VecDeque<(f64, f64, f64)>,
}

impl Window {
    fn largest(seconds: f64) -> Self {
        Self { seconds, is_largest: true, values: VecDeque::new() }
    }

    fn smallest(seconds: f64) -> Self {
        Self { is_largest: false, ..Self::largest(seconds) }
    }

    /// Adds a value that holds from now on, and returns the result for the time until now.
    fn push(&mut self, now: f64, value: f64) -> f64 {
        let from = now - self.seconds;
        if let Some((_, until, _)) = self.values.back_mut() {
            *until = now;
        }
        let is_beaten = |old: f64| if self.is_largest { value >= old } else { value <= old };
        while self.values.back().is_some_and(|(_, _, old)| is_beaten(*old)) {
            self.values.pop_back();
        }
        self.values.push_back((now, f64::INFINITY, value));
        // The need of a moment counts from that moment. A number of workers counts for as long as it was wanted.
        let is_over =
            |(begin, until, _): &(f64, f64, f64)| if self.is_largest { *begin < from } else { *until <= from };
        while self.values.front().is_some_and(is_over) {
            self.values.pop_front();
        }
        self.values.front().map_or(value, |(_, _, value)| *value)
    }
}
