//! The recent readings of a pool, thinned out.
//!
//! Rates come from the counts of ledger and broker, never from calls: arrived jobs = ended jobs + backlog. So two
//! scalers that read one pool compute the same rates, even if they answer different calls.

mod measured;
mod requests;
mod waits;

use std::collections::VecDeque;
use std::time::Duration;

use crate::keep::{Keep, LastKeep};
use crate::reading::{Measurements, Reading};

pub use measured::Measured;
use requests::Requests;
pub(crate) use waits::Late;
use waits::Waits;

/// The smallest distance between two points.
const SPACING: Duration = Duration::from_secs(1);

/// Points older than the first duration are at least the second duration apart.
const COARSER: [(Duration, Duration); 4] = [
    (Duration::from_secs(60), Duration::from_secs(5)),
    (Duration::from_secs(5 * 60), Duration::from_secs(15)),
    (Duration::from_secs(20 * 60), Duration::from_secs(30)),
    (LONGEST_WINDOW, Duration::from_secs(60)),
];

/// No window over which a rate is averaged is longer.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(60 * 60);

/// Older points are dropped.
pub const LONGEST_HISTORY: Duration = Duration::from_secs(6 * 60 * 60);

/// The longest pause of Kubernetes before it starts a crashed container again.
const LONGEST_RESTART: Duration = Duration::from_secs(5 * 60);

/// A worker that has loaded for this number of cold starts is stuck.
pub(crate) const STUCK_COLD_STARTS: u32 = 3;

/// If no cold start was measured, workers may load for this time.
const LONGEST_UNKNOWN_LOADING: Duration = Duration::from_secs(60 * 60);

/// The buffer grows by this number of points. If it doubled, half of it would be empty in thousands of pools.
const GROWTH_POINTS: usize = 32;

/// The readings of one pool, thinned out.
#[derive(Debug, Clone, Default)]
pub struct History {
    latest: Option<Reading>,
    /// The earliest point first. The last one belongs to the latest reading.
    points: VecDeque<Point>,
    measured: Measured,
    waits: Waits,
    requests: Requests,
    last_keep: LastKeep,
    /// Since when workers load without one that is ready, and when one loaded last.
    loads_alone: Option<(Duration, Duration)>,
}

/// The part of a reading that the history stores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The time of the reading.
    pub at: Duration,
    /// The backlog, in jobs.
    pub backlog: u64,
    /// Jobs that had ended since the pool exists.
    pub ended: u64,
    /// Jobs that waited in the broker, by class (in the order of [`queue::Class::ALL`]).
    pub waiting: [u32; 3],
    /// Workers that took jobs or were loading.
    pub workers: u32,
    /// The highest arrival rate since the point before, in jobs per second. It covers points that were thinned out.
    pub peak_rate: f32,
}

impl Point {
    /// Jobs that had arrived, counted from any fixed number.
    pub fn arrived(&self) -> u64 {
        self.backlog.saturating_add(self.ended)
    }

    fn has_same_counts_as(&self, other: &Self) -> bool {
        let Self { at, peak_rate, .. } = *other;
        Self { at, peak_rate, ..*self } == *other
    }

    /// Jobs per second since `before`, over at least [`SPACING`]: two readings may be only a moment apart.
    fn rate_since(&self, before: &Self) -> f32 {
        let arrived = self.arrived().saturating_sub(before.arrived());
        (arrived as f64 / self.at.saturating_sub(before.at).max(SPACING).as_secs_f64()) as f32
    }
}

impl History {
    /// Adds measurements from before this history began. Newer measurements have precedence.
    pub fn recall(&mut self, earlier: Measurements) {
        self.measured.recall(earlier);
    }

    /// Records that the HPA was asked for a number of workers, so that the history can measure how long they take to
    /// register.
    pub fn request(&mut self, at: Duration, workers: f64) {
        self.requests.add(at, workers);
    }

    /// Adds a reading. It must be later than all readings before it.
    pub fn add(&mut self, reading: Reading) {
        let backlog = reading.backlog();
        let mut point = Point {
            at: reading.taken_at,
            backlog,
            ended: reading.ended,
            waiting: reading.waiting.map(|jobs| u32::try_from(jobs).unwrap_or(u32::MAX)),
            workers: u32::try_from(reading.fleet.ready_or_loading()).unwrap_or(u32::MAX),
            peak_rate: 0.0,
        };
        self.measured.add(&reading);
        self.note_loading(&reading);
        self.requests.observe(reading.taken_at, reading.fleet.ready_or_loading());
        if let (Some(before), Some(batch_time)) = (&self.latest, self.measured.measurements().batch_time) {
            let requested = reading.fleet.ready_or_loading() as f64 + self.requests.on_the_way();
            let start =
                self.measured.measurements().cold_start.unwrap_or_default() + self.registration().unwrap_or_default();
            self.waits.add([before, &reading], batch_time.throughput(), requested, start);
        }
        let before = self.latest.replace(reading).map_or(Duration::ZERO, |before| before.taken_at);
        if let Some(before) = self.points.len().checked_sub(2).and_then(|place| self.points.get(place))
            && let Some(last) = self.points.back()
            && (last.at.saturating_sub(before.at) < SPACING
                || (before.has_same_counts_as(last) && last.has_same_counts_as(&point)))
        {
            let replaced = self.points.pop_back();
            if let Some(last) = replaced {
                point.peak_rate = last.peak_rate;
            }
        }
        if let Some(before) = self.points.back() {
            point.peak_rate = point.peak_rate.max(point.rate_since(before));
        }
        if self.points.len() == self.points.capacity() {
            self.points.reserve_exact(GROWTH_POINTS);
        }
        self.points.push_back(point);
        self.thin_out(before, point.at);
    }

    fn note_loading(&mut self, reading: &Reading) {
        let (now, fleet) = (reading.taken_at, &reading.fleet);
        let is_over = |last: Duration| now.saturating_sub(last) > LONGEST_RESTART;
        if fleet.ready > 0 || self.loads_alone.is_some_and(|(_, last)| is_over(last)) {
            self.loads_alone = None;
        }
        if fleet.ready == 0 && fleet.loading > 0 {
            let since = self.loads_alone.map_or(now, |(since, _)| since);
            self.loads_alone = Some((since, now));
        }
    }

    /// Whether the loading workers may become ready. Workers that crash while they load start again and again.
    pub(crate) fn may_become_ready(&self) -> bool {
        let longest =
            self.measurements().cold_start.map_or(LONGEST_UNKNOWN_LOADING, |cold_start| cold_start * STUCK_COLD_STARTS);
        self.loads_alone.is_none_or(|(since, last)| last.saturating_sub(since) <= longest.max(LONGEST_RESTART))
    }

    /// Drops points that are too old, and old points that are too close together.
    fn thin_out(&mut self, before: Duration, now: Duration) {
        // The last point before the window stays: it holds the state at the beginning of the window.
        while self.points.get(1).is_some_and(|second| now.saturating_sub(second.at) > LONGEST_HISTORY) {
            self.points.pop_front();
        }
        for (age, spacing) in COARSER {
            // Only neighbours of a point that just reached this age can be too close: usually one, many after a gap.
            let older = |now: Duration| self.points.partition_point(|point| now.saturating_sub(point.at) > age);
            let places = older(before).saturating_sub(1).max(1)..older(now).saturating_sub(1);
            for place in places.rev() {
                if let (Some(before), Some(after)) = (self.points.get(place - 1), self.points.get(place + 1))
                    && after.at.saturating_sub(before.at) < spacing
                    && let Some(between) = self.points.remove(place)
                    && let Some(after) = self.points.get_mut(place)
                {
                    after.peak_rate = after.peak_rate.max(between.peak_rate);
                }
            }
        }
    }

    /// The latest reading.
    pub fn latest(&self) -> Option<&Reading> {
        self.latest.as_ref()
    }

    /// The measurements of workers: see [`Measured`].
    pub fn measurements(&self) -> Measurements {
        self.measured.measurements()
    }

    /// Whether the batch time model was measured before this history began, by workers that are not in it.
    pub fn is_recalled(&self) -> bool {
        self.measured.is_recalled()
    }

    /// The share of the arrivals that were late.
    pub(crate) fn late_share(&self, late: Late) -> f64 {
        self.waits.share(late)
    }

    /// How long workers are kept, for settings with this hash.
    pub(crate) fn keep(&self, settings: u64, compute: impl FnOnce() -> Keep) -> Keep {
        let now = self.latest.as_ref().map_or(Duration::ZERO, |latest| latest.taken_at);
        self.last_keep.or_compute(settings, now, compute)
    }

    /// How long a requested worker takes until its process registers. `None`: no worker registered after a request.
    pub fn registration(&self) -> Option<Duration> {
        self.requests.registration()
    }

    /// The workers that were requested, have not registered, and are still wanted.
    pub(crate) fn on_the_way(&self) -> f64 {
        self.requests.on_the_way()
    }

    /// The time since the oldest request of a worker that has not registered.
    pub(crate) fn oldest_request(&self) -> Option<Duration> {
        self.requests.oldest()
    }

    /// The points, the earliest one first.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = &Point> {
        self.points.iter()
    }

    /// The time between the first and the last point.
    pub fn span(&self) -> Duration {
        match (self.points.front(), self.points.back()) {
            (Some(first), Some(last)) => last.at.saturating_sub(first.at),
            _ => Duration::ZERO,
        }
    }

    /// Arrived jobs per second in the window that ends at `until`. Time before the first point counts as time without
    /// arrivals, so the first jobs after a start do not make a high rate.
    pub fn arrivals_per_second(&self, window: Duration, until: Duration) -> f64 {
        let (Some(first), Some(last)) = (self.points.front(), self.points.back()) else { return 0.0 };
        let (from, until) = (until.saturating_sub(window).max(first.at), until.min(last.at));
        let seconds = window.as_secs_f64();
        let is_covered = until > from && seconds > 0.0;
        if is_covered { (self.arrived_by(until) - self.arrived_by(from)).max(0.0) / seconds } else { 0.0 }
    }

    /// Jobs that had arrived at `at`, interpolated between the two points around it.
    fn arrived_by(&self, at: Duration) -> f64 {
        let next = self.points.partition_point(|point| point.at < at);
        let Some(after) = self.points.get(next).or(self.points.back()) else { return 0.0 };
        let Some(before) = next.checked_sub(1).and_then(|place| self.points.get(place)) else {
            return after.arrived() as f64;
        };
        let between = after.at.saturating_sub(before.at).as_secs_f64();
        let share = if between > 0.0 { at.saturating_sub(before.at).as_secs_f64() / between } else { 1.0 };
        let (before, after) = (before.arrived() as f64, after.arrived() as f64);
        before + share.min(1.0) * (after - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{BatchTime, Fleet};

    #[test]
    fn an_hour_of_readings_needs_little_memory_and_loses_neither_jobs_nor_peak_rates() {
        let mut history = History::default();
        let mut ended = 0;
        for tick in 0..2 * 3600 * 4_u32 {
            let taken_at = Duration::from_millis(250) * tick;
            // A hundred jobs at once, fifty minutes before the end. Ten minutes without a reading, half an hour before
            // it.
            let (is_burst, is_gap) = (tick == 70 * 60 * 4, (80 * 60 * 4..90 * 60 * 4).contains(&tick));
            ended += if is_burst { 100 } else { 1 };
            if !is_gap {
                let fleet = Fleet { ready: 2, ..Fleet::default() };
                let waiting = [0, if is_burst { 50 } else { 1 }, 0];
                history.add(Reading { taken_at, ended, waiting, fleet, ..Reading::default() });
            }
        }
        assert!(history.points.len() < 360, "{}", history.points.len());
        assert!(history.points.capacity() < 360 + GROWTH_POINTS, "{}", history.points.capacity());
        assert!(history.span() >= LONGEST_WINDOW);
        let (first, last) = (history.points.front().unwrap(), history.points.back().unwrap());
        let seconds = last.at.saturating_sub(first.at).as_secs_f64();
        assert_eq!(last.arrived() - first.arrived(), 99 + (seconds * 4.0) as u64);
        let fast: Vec<f32> = history.points().map(|point| point.peak_rate).filter(|peak| *peak > 5.0).collect();
        assert!(matches!(fast[..], [peak] if peak > 70.0), "{fast:?}");
    }

    #[test]
    fn each_earlier_measurement_is_valid_until_a_worker_measures_it_again() {
        let batch_time = |base_seconds| Some(BatchTime { base_seconds, item_seconds: 0.01, limit_items: 8.0 });
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let reading = |measurements| {
            let fleet = Fleet { measurements, ..Fleet::default() };
            Reading { fleet, ..Reading::default() }
        };
        let earlier = Measurements { batch_time: batch_time(1.0), cold_start: seconds(60) };
        let mut history = History::default();
        // Two readings may begin at the same time, and both read the earlier measurements.
        history.recall(earlier);
        history.recall(earlier);
        history.add(reading(Measurements::default()));
        assert_eq!((history.measurements(), history.is_recalled()), (earlier, true));
        history.add(reading(Measurements { batch_time: None, cold_start: seconds(5) }));
        let half = Measurements { batch_time: batch_time(1.0), cold_start: seconds(5) };
        assert_eq!((history.measurements(), history.is_recalled()), (half, true));
        history.add(reading(Measurements { batch_time: batch_time(2.0), cold_start: seconds(6) }));
        history.add(reading(Measurements::default()));
        // Earlier measurements that arrive late have no effect.
        history.recall(earlier);
        let anew = Measurements { batch_time: batch_time(2.0), cold_start: seconds(6) };
        assert_eq!((history.measurements(), history.is_recalled()), (anew, false));
    }
}
