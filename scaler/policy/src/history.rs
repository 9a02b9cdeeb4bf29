//! What has been seen of a pool lately.
//!
//! Rates come from what ledger and broker count, never from calls: jobs that have ever arrived are those that have ended
//! and those that are there. Two scalers that look at one pool see the same, whoever asks them, and how often.

use std::collections::VecDeque;
use std::time::Duration;

use crate::reading::{Measured, Reading};

/// Points lie no closer together than this.
const SPACING: Duration = Duration::from_secs(1);

/// Points older than the first lie no closer together than the second.
const COARSER: [(Duration, Duration); 3] = [
    (Duration::from_secs(60), Duration::from_secs(5)),
    (Duration::from_secs(5 * 60), Duration::from_secs(15)),
    (Duration::from_secs(20 * 60), Duration::from_secs(30)),
];

/// Older points are forgotten: no window is longer.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(60 * 60);

/// Room is made for so many points at a time. Doubled, it would be half empty in thousands of pools.
const ROOM: usize = 32;

/// The readings of one pool, thinned out.
#[derive(Debug, Clone, Default)]
pub struct History {
    latest: Option<Reading>,
    /// The earliest first; the last one is the latest reading's.
    points: VecDeque<Point>,
    measured: Measured,
    /// The batch of `measured` is an earlier one.
    is_recalled: bool,
}

/// What is kept of a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When.
    pub at: Duration,
    /// The work that was there.
    pub backlog: u64,
    /// Jobs that had ever ended.
    pub ended: u64,
    /// Workers that took jobs, or would.
    pub workers: u32,
    /// The highest rate, in jobs per second, that was seen since the point before: what is left of the points between.
    pub peak: f32,
    /// The largest backlog for each worker that was ready, likewise.
    pub crowd: f32,
}

impl Point {
    /// Jobs that had ever arrived, counted from any fixed number.
    pub fn arrived(&self) -> u64 {
        self.backlog.saturating_add(self.ended)
    }

    fn says_the_same_as(&self, other: &Self) -> bool {
        Self { at: other.at, peak: other.peak, crowd: other.crowd, ..*self } == *other
    }

    /// Jobs per second since `before`. Of jobs that are seen as soon as they come, a moment after a reading, it is no rate.
    fn rate_since(&self, before: &Self) -> f32 {
        let arrived = self.arrived().saturating_sub(before.arrived());
        (arrived as f64 / self.at.saturating_sub(before.at).max(SPACING).as_secs_f64()) as f32
    }
}

impl History {
    /// Takes over what workers had measured before this history began. What has been measured since counts for more.
    pub fn recall(&mut self, earlier: Measured) {
        self.is_recalled |= self.measured.batch.is_none() && earlier.batch.is_some();
        self.measured = self.measured.or(earlier);
    }

    /// Adds a reading, which is later than those before it.
    pub fn add(&mut self, reading: Reading) {
        let mut point = Point {
            at: reading.taken_at,
            backlog: reading.backlog(),
            ended: reading.ended,
            workers: u32::try_from(reading.fleet.staying()).unwrap_or(u32::MAX),
            peak: 0.0,
            // Infinite where there is nobody.
            crowd: if reading.backlog() > 0 { reading.backlog() as f32 / reading.fleet.ready as f32 } else { 0.0 },
        };
        // A pool at zero has no worker that could say; what the last ones measured still holds.
        self.measured = reading.fleet.measured.or(self.measured);
        self.is_recalled &= reading.fleet.measured.batch.is_none();
        let before = self.latest.replace(reading).map_or(Duration::ZERO, |before| before.taken_at);
        if let Some(before) = self.points.len().checked_sub(2).and_then(|place| self.points.get(place))
            && let Some(last) = self.points.back()
            && (last.at.saturating_sub(before.at) < SPACING
                || (before.says_the_same_as(last) && last.says_the_same_as(&point)))
        {
            let replaced = self.points.pop_back();
            (point.peak, point.crowd) =
                replaced.map_or((0.0, point.crowd), |last| (last.peak, last.crowd.max(point.crowd)));
        }
        if let Some(before) = self.points.back() {
            point.peak = point.peak.max(point.rate_since(before));
        }
        if self.points.len() == self.points.capacity() {
            self.points.reserve_exact(ROOM);
        }
        self.points.push_back(point);
        self.thin_out(before, point.at);
    }

    /// Drops what is too old, and of what is old the points that lie close together.
    fn thin_out(&mut self, before: Duration, now: Duration) {
        // The last one that is too old still says what held when the window began.
        while self.points.get(1).is_some_and(|second| now.saturating_sub(second.at) > LONGEST_WINDOW) {
            self.points.pop_front();
        }
        for (age, spacing) in COARSER {
            // Only those beside a point that has just come of this age can have come too close: mostly one, many after a gap.
            let older = |now: Duration| self.points.partition_point(|point| now.saturating_sub(point.at) > age);
            let places = older(before).saturating_sub(1).max(1)..older(now).saturating_sub(1);
            for place in places.rev() {
                if let (Some(before), Some(after)) = (self.points.get(place - 1), self.points.get(place + 1))
                    && after.at.saturating_sub(before.at) < spacing
                    && let Some(between) = self.points.remove(place)
                    && let Some(after) = self.points.get_mut(place)
                {
                    after.peak = after.peak.max(between.peak);
                    after.crowd = after.crowd.max(between.crowd);
                }
            }
        }
    }

    /// The latest reading.
    pub fn latest(&self) -> Option<&Reading> {
        self.latest.as_ref()
    }

    /// What workers have measured, as far as any has said so.
    pub fn measured(&self) -> Measured {
        self.measured
    }

    /// Whether the batch is one that was measured before this history began, by workers that are not in it.
    pub fn is_recalled(&self) -> bool {
        self.is_recalled
    }

    /// The points, the earliest first.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = &Point> {
        self.points.iter()
    }

    /// For how long the pool has been seen.
    pub fn span(&self) -> Duration {
        match (self.points.front(), self.points.back()) {
            (Some(first), Some(last)) => last.at.saturating_sub(first.at),
            _ => Duration::ZERO,
        }
    }

    /// Jobs per second that are known to have arrived in the window that ends at a moment. What was not seen of it counts as
    /// silent: the first jobs after a start are no rate to be trusted.
    pub fn arrivals_per_second(&self, window: Duration, until: Duration) -> f64 {
        let (Some(first), Some(last)) = (self.points.front(), self.points.back()) else { return 0.0 };
        let (from, until) = (until.saturating_sub(window).max(first.at), until.min(last.at));
        let seconds = window.as_secs_f64();
        let is_seen = until > from && seconds > 0.0;
        if is_seen { (self.arrived_by(until) - self.arrived_by(from)).max(0.0) / seconds } else { 0.0 }
    }

    /// Jobs that had arrived at a moment between the first point and the last, on the line between the two beside it.
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
    use crate::reading::{Batch, Fleet};

    #[test]
    fn an_hour_of_readings_takes_little_room_and_loses_neither_jobs_nor_how_fast_they_came() {
        let mut history = History::default();
        let mut ended = 0;
        for tick in 0..2 * 3600 * 4_u32 {
            let taken_at = Duration::from_millis(250) * tick;
            // A hundred at once, fifty minutes before the end; and half an hour before it nobody looked for ten minutes.
            let (is_burst, is_gap) = (tick == 70 * 60 * 4, (80 * 60 * 4..90 * 60 * 4).contains(&tick));
            ended += if is_burst { 100 } else { 1 };
            if !is_gap {
                let fleet = Fleet { ready: 2, ..Fleet::default() };
                let waiting = [0, if is_burst { 50 } else { 1 }, 0];
                history.add(Reading { taken_at, ended, waiting, fleet, ..Reading::default() });
            }
        }
        assert!(history.points.len() < 340, "{}", history.points.len());
        assert!(history.points.capacity() < 340 + ROOM, "{}", history.points.capacity());
        assert!(history.span() >= LONGEST_WINDOW);
        let (first, last) = (history.points.front().unwrap(), history.points.back().unwrap());
        let seconds = last.at.saturating_sub(first.at).as_secs_f64();
        assert_eq!(last.arrived() - first.arrived(), 99 + (seconds * 4.0) as u64);
        let fast: Vec<f32> = history.points().map(|point| point.peak).filter(|peak| *peak > 5.0).collect();
        assert!(matches!(fast[..], [peak] if peak > 70.0), "{fast:?}");
        let crowded: Vec<f32> = history.points().map(|point| point.crowd).filter(|crowd| *crowd > 1.0).collect();
        assert_eq!(crowded, [25.0]);
    }

    #[test]
    fn what_earlier_workers_measured_holds_until_others_measure_it_anew_and_each_by_itself() {
        let batch = |base_seconds| Some(Batch { base_seconds, item_seconds: 0.01, limit_items: 8.0 });
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let reading = |measured| Reading { fleet: Fleet { measured, ..Fleet::default() }, ..Reading::default() };
        let earlier = Measured { batch: batch(1.0), cold_start: seconds(60) };
        let mut history = History::default();
        // Two readings may begin at once, each of which asks.
        history.recall(earlier);
        history.recall(earlier);
        history.add(reading(Measured::default()));
        assert_eq!((history.measured(), history.is_recalled()), (earlier, true));
        history.add(reading(Measured { batch: None, cold_start: seconds(5) }));
        let half = Measured { batch: batch(1.0), cold_start: seconds(5) };
        assert_eq!((history.measured(), history.is_recalled()), (half, true));
        history.add(reading(Measured { batch: batch(2.0), cold_start: seconds(6) }));
        history.add(reading(Measured::default()));
        // Too late.
        history.recall(earlier);
        let anew = Measured { batch: batch(2.0), cold_start: seconds(6) };
        assert_eq!((history.measured(), history.is_recalled()), (anew, false));
    }
}
