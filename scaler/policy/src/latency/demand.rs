//! The arrivals of a pool over its history, and the throughput that they needed.

use std::time::Duration;

use crate::history::{History, Point};

/// A rate is averaged over at least this time, or over the slack if that is longer.
const AVERAGED: Duration = Duration::from_secs(60);

/// The rate of a window counts without this number of standard deviations of a Poisson process.
const CHANCE_DEVIATIONS: f64 = 2.0;

/// The longest window, as a multiple of the time over which a rate is averaged at least.
const LONGEST_AVERAGES: f64 = 5.0;

/// Needs before this time are those of earlier episodes.
const EPISODE_SECONDS: f64 = 300.0;

/// The shortest window in which a burst is looked for. Two readings are not much closer together.
const SHORTEST_SECONDS: f64 = 1.0;

/// The distance between the first two points that are added in a time without arrivals, and the factor by which it grows.
const GAP_SECONDS: f64 = 15.0;
const GAP_GROWTH: f64 = 1.25;

/// A shorter segment shows only the noise of single jobs.
const SHORTEST_SEGMENT_SECONDS: f64 = 30.0;

/// The segments in which a trend is looked for.
const SEGMENTS: u32 = 5;

/// A number of arrivals without its chance. It is not negative.
fn without_chance(jobs: f64) -> f64 {
    (jobs - CHANCE_DEVIATIONS * jobs.sqrt()).max(0.0)
}

/// Arrivals of the urgent classes, one entry per point of the history.
pub(super) struct Demand {
    /// Seconds.
    pub(super) at: Vec<f64>,
    /// Jobs that had arrived since the first point.
    arrived: Vec<f64>,
    /// The seconds of each interval in which its jobs arrived, if they came at the peak rate. The peak is that of a
    /// second, so it counts without its chance.
    pub(super) active: Vec<f64>,
    /// The throughput with which the jobs up to this point would have been in time, in jobs per second.
    pub(super) needed: Vec<f64>,
    slack: f64,
}

impl Demand {
    /// The demand of the classes that are not `patient`. A job may wait for `slack` seconds.
    pub(super) fn new(history: &History, patient: [bool; 3], slack: f64) -> Self {
        let count = history.points().size_hint().0;
        let mut demand = Self {
            at: Vec::with_capacity(count),
            arrived: Vec::with_capacity(count),
            active: Vec::with_capacity(count),
            needed: Vec::with_capacity(count),
            slack,
        };
        let [first, last] = [history.points().next(), history.points().next_back()];
        let has_arrivals = first.map(Point::arrived) != last.map(Point::arrived);
        let mut before: Option<&Point> = None;
        let mut arrived = 0.0;
        for point in history.points() {
            let mut active = 0.0;
            if let Some(before) = before {
                let all = point.arrived().saturating_sub(before.arrived()) as f64;
                // A patient job that waits was not in the way of the others.
                let classes = point.waiting.iter().zip(before.waiting).zip(patient);
                let waits = classes.filter(|(_, is_patient)| *is_patient);
                let aside: f64 = waits.map(|((now, before), _)| f64::from(now.saturating_sub(before))).sum();
                let seconds = point.at.saturating_sub(before.at).as_secs_f64();
                let urgent = (all - aside).max(0.0);
                active =
                    if urgent > 0.0 { (all / without_chance(f64::from(point.peak_rate))).min(seconds) } else { 0.0 };
                arrived += urgent;
            }
            // An idle pool needs no more points, and there may be thousands of them.
            if active == 0.0 && has_arrivals {
                demand.fill_gap(point.at.as_secs_f64());
            }
            demand.at.push(point.at.as_secs_f64());
            demand.arrived.push(arrived);
            demand.active.push(active);
            before = Some(point);
        }
        demand.fill_needed();
        demand
    }

    /// Adds points in a time without arrivals, of which the history has only the ends.
    fn fill_gap(&mut self, until: f64) {
        let (Some(from), Some(arrived)) = (self.at.last().copied(), self.arrived.last().copied()) else { return };
        let (mut distance, mut at) = (GAP_SECONDS, from + GAP_SECONDS);
        while at < until {
            self.at.push(at);
            self.arrived.push(arrived);
            self.active.push(0.0);
            distance *= GAP_GROWTH;
            at += distance;
        }
    }

    /// The time over which a rate is averaged, in seconds.
    fn averaged(&self) -> f64 {
        AVERAGED.as_secs_f64().max(self.slack)
    }

    /// By the theory of arrival curves (Cruz, *A calculus for network delay*, 1991), a queue with the throughput K
    /// delays no job by more than S seconds if at most K × (w + S) jobs arrive in any w seconds. So K is the largest
    /// A(w) ÷ (w + S), and at least the rate that lasts.
    fn fill_needed(&mut self) {
        let windows = self.windows();
        let mut cursors = vec![0_usize; windows.len()];
        for place in 0..self.at.len() {
            let (now, total) = (self.at[place], self.arrived[place]);
            let mut needed: f64 = 0.0;
            for (window, cursor) in windows.iter().zip(&mut cursors) {
                let jobs = total - self.arrived_by(now - window, cursor);
                needed = needed.max(jobs / (window + self.slack)).max(self.lasting_rate(jobs, *window));
            }
            // The interval before an old point may be longer than a window.
            if let Some(before) = place.checked_sub(1) {
                needed = needed.max((total - self.arrived[before]) / (self.active[place] + self.slack));
            }
            self.needed.push(needed);
        }
    }

    fn windows(&self) -> Vec<f64> {
        let windows = std::iter::successors(Some(SHORTEST_SECONDS), |window| Some(window * 2.0));
        windows.take_while(|window| *window <= LONGEST_AVERAGES * self.averaged()).collect()
    }

    /// The rate of a window that is long enough for a mean, in the longest window with its chance. 0 for a shorter window.
    fn lasting_rate(&self, jobs: f64, window: f64) -> f64 {
        let is_longest = 2.0 * window > LONGEST_AVERAGES * self.averaged();
        let jobs = if is_longest { jobs } else { without_chance(jobs) };
        if window < self.averaged() { 0.0 } else { jobs / window }
    }

    /// The jobs that had arrived at a time, interpolated. Times must not fall from call to call with one cursor.
    fn arrived_by(&self, at: f64, cursor: &mut usize) -> f64 {
        while self.at.get(*cursor + 1).is_some_and(|next| *next <= at) {
            *cursor += 1;
        }
        let (Some(from), Some(before)) = (self.at.get(*cursor), self.arrived.get(*cursor)) else { return 0.0 };
        match (self.at.get(*cursor + 1), self.arrived.get(*cursor + 1)) {
            (Some(to), Some(after)) if at > *from => before + (after - before) * (at - from) / (to - from),
            _ => *before,
        }
    }

    /// The mean rate of the arrivals in a window before now, in jobs per second.
    fn rate(&self, until: f64, window: f64) -> f64 {
        let arrived = |at| self.arrived_by(at, &mut self.at.partition_point(|point| *point <= at).saturating_sub(1));
        (arrived(until) - arrived(until - window)) / window
    }

    /// The throughput that is needed now. A rate that has lasted for some time is expected to last as long again.
    pub(super) fn needed_now(&self) -> f64 {
        let Some(now) = self.at.last().copied() else { return 0.0 };
        let needed = |window: f64| {
            let jobs = self.rate(now, window) * window;
            f64::max(2.0 * jobs / (2.0 * window + self.slack), self.lasting_rate(jobs, window))
        };
        let expected = self.windows().into_iter().map(needed).fold(0.0, f64::max);
        // An episode like an earlier one is expected to need as much as that one.
        let now_needed = self.needed.last().copied().unwrap_or(0.0);
        let earlier = self.at.iter().zip(&self.needed).take_while(|(at, _)| **at < now - EPISODE_SECONDS);
        let earlier = earlier.map(|(_, needed)| *needed).fold(0.0, f64::max);
        if now_needed <= earlier { expected.min(earlier) } else { expected }
    }

    /// For how long arrivals have come at about `rate`: the longest window whose mean rate is at least half of it,
    /// in seconds.
    pub(super) fn seconds_of_rate(&self, rate: f64) -> f64 {
        let Some(now) = self.at.last().copied() else { return 0.0 };
        let longer = std::iter::successors(Some(SHORTEST_SECONDS), |window| Some(window * 2.0)).take(16);
        longer.take_while(|window| self.rate(now, *window) >= rate / 2.0).last().unwrap_or(0.0)
    }

    /// The mean rate now, in jobs per second.
    pub(super) fn rate_now(&self) -> f64 {
        self.at.last().map_or(0.0, |now| self.rate(*now, self.averaged()))
    }

    /// The rate that is expected after `horizon` seconds if the trend continues. `None`: there is no significant rise.
    ///
    /// The trend is the mean of the differences between successive segments, but at most twice their lower median. A
    /// single step, however high, changes at most two of the four differences, so it makes no trend. A rise of less than two standard deviations
    /// of a Poisson process counts as random.
    pub(super) fn expected(&self, horizon: f64) -> Option<f64> {
        let now = self.at.last().copied()?;
        let shortest = SHORTEST_SEGMENT_SECONDS;
        // A longer segment shows a slower trend, but a short history has no room for it.
        let segment = (horizon / 2.0).min((now - self.at.first()?) / f64::from(SEGMENTS)).max(shortest);
        if now - self.at.first()? < f64::from(SEGMENTS) * segment {
            return None;
        }
        let rates: Vec<f64> =
            (0..SEGMENTS).rev().map(|age| self.rate(now - f64::from(age) * segment, segment)).collect();
        let mut differences: Vec<f64> = rates.windows(2).map(|pair| pair[1] - pair[0]).collect();
        differences.sort_by(f64::total_cmp);
        let (first, last) = (rates.first()?, rates.last()?);
        let chance = 2.0 * ((first + last) / segment).sqrt();
        let median = *differences.get(differences.len() / 2 - 1)?;
        let trend = ((last - first) / f64::from(SEGMENTS - 1)).min(2.0 * median) / segment;
        // The last rate is that of the middle of its segment.
        (last - first > chance && trend > 0.0).then(|| last + trend * (segment / 2.0 + horizon))
    }

    /// The arrivals of the interval that ends at a point.
    pub(super) fn arrivals(&self, place: usize) -> f64 {
        place.checked_sub(1).map_or(0.0, |before| self.arrived[place] - self.arrived[before])
    }

    /// All arrivals.
    pub(super) fn total(&self) -> f64 {
        self.arrived.last().copied().unwrap_or(0.0)
    }
}
