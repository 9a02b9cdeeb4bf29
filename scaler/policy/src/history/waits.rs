//! How long arriving jobs had to wait, as a distribution.

use std::time::Duration;

use crate::reading::Reading;

/// The thresholds grow by the square root of 2, from a quarter of a second to more than an hour.
const THRESHOLDS: usize = 29;
const FIRST_SECONDS: f64 = 0.25;

/// Jobs that waited for a start have ended after this number of starts.
const SETTLING_STARTS: u32 = 2;

/// After this time, an arrival counts half.
const HALF_LIFE: Duration = Duration::from_secs(6 * 60 * 60);

/// For each threshold, the arrivals with more seconds of work before them. Old arrivals count less.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    total: f64,
    above: [f64; THRESHOLDS],
    settled_above: [f64; THRESHOLDS],
}

/// The waiting times of arriving jobs: the backlog at their arrival, divided by the throughput of the ready workers.
#[derive(Debug, Clone, Default)]
pub(super) struct Waits {
    /// Of all jobs, and of all but those of class batch, which other jobs overtake.
    tallies: Box<[Tally; 2]>,
    decayed_at: Duration,
    /// The number of workers that were requested, and since when it has not grown.
    workers: f64,
    settled_since: Duration,
}

/// What counts as late.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Late {
    /// A longer wait, in seconds.
    pub(crate) seconds: f64,
    /// Also jobs of class batch.
    pub(crate) with_batch: bool,
    /// Only waits at times at which no worker had been added for a while, so that no start was the reason.
    pub(crate) is_settled: bool,
}

fn threshold(place: usize) -> f64 {
    FIRST_SECONDS * 2.0_f64.powf(place as f64 / 2.0)
}

impl Waits {
    /// Adds the arrivals between two readings. `requested` workers are present or on the way, and each takes about
    /// `start` until it is ready.
    pub(super) fn add(&mut self, [before, reading]: [&Reading; 2], throughput: f64, requested: f64, start: Duration) {
        let now = reading.taken_at;
        if requested > self.workers {
            self.settled_since = now;
        }
        self.workers = requested;
        let is_settled = reading.fleet.ready > 0 && now.saturating_sub(self.settled_since) > start * SETTLING_STARTS;
        let arrived = |reading: &Reading| reading.backlog().saturating_add(reading.ended);
        let batch = queue::Class::Batch;
        let more_batch = reading.waiting_of(batch).saturating_sub(before.waiting_of(batch));
        let all = arrived(reading).saturating_sub(arrived(before));
        if all == 0 {
            return;
        }
        self.decay(now);
        let capacity = reading.fleet.ready as f64 * throughput;
        let backlog = reading.backlog();
        let groups =
            [(all, backlog), (all.saturating_sub(more_batch), backlog - reading.waiting_of(batch).min(backlog))];
        for (tally, (arrivals, backlog)) in self.tallies.iter_mut().zip(groups) {
            // Without a ready worker the wait is infinite.
            let wait = if backlog == 0 { 0.0 } else { backlog as f64 / capacity };
            tally.total += arrivals as f64;
            let places = (0..THRESHOLDS).take_while(|place| threshold(*place) < wait).count();
            tally.above[..places].iter_mut().for_each(|above| *above += arrivals as f64);
            if is_settled {
                tally.settled_above[..places].iter_mut().for_each(|above| *above += arrivals as f64);
            }
        }
    }

    fn decay(&mut self, now: Duration) {
        let since = now.saturating_sub(std::mem::replace(&mut self.decayed_at, now));
        let factor = 0.5_f64.powf(since.div_duration_f64(HALF_LIFE));
        for tally in self.tallies.iter_mut() {
            tally.total *= factor;
            let above = tally.above.iter_mut().chain(&mut tally.settled_above);
            above.for_each(|above| *above *= factor);
        }
    }

    /// The share of the arrivals that were late, interpolated between two thresholds. 0 without arrivals.
    pub(super) fn share(&self, late: Late) -> f64 {
        let tally = &self.tallies[usize::from(!late.with_batch)];
        if tally.total <= 0.0 {
            return 0.0;
        }
        let above = if late.is_settled { &tally.settled_above } else { &tally.above };
        let place = (2.0 * (late.seconds / FIRST_SECONDS).log2()).clamp(0.0, (THRESHOLDS - 1) as f64);
        let (low, part) = (place.floor() as usize, place.fract());
        let high = above[(low + 1).min(THRESHOLDS - 1)];
        (above[low] * (1.0 - part) + high * part) / tally.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Fleet;

    fn reading(second: u64, waiting: [u64; 3], ended: u64, ready: u64) -> Reading {
        let fleet = Fleet { ready, ..Fleet::default() };
        Reading { taken_at: Duration::from_secs(second), waiting, ended, fleet, ..Reading::default() }
    }

    fn add(waits: &mut Waits, [before, reading]: [Reading; 2]) {
        waits.add([&before, &reading], 10.0, 0.0, Duration::ZERO);
    }

    fn share(waits: &Waits, seconds: f64, with_batch: bool) -> f64 {
        waits.share(Late { seconds, with_batch, is_settled: false })
    }

    #[test]
    fn the_share_of_late_arrivals_is_that_of_the_work_before_them() {
        let mut waits = Waits::default();
        let readings = [
            reading(0, [0, 0, 0], 0, 2),
            // 10 jobs with a second of work before them, then 30 with eight seconds, at 10 jobs/s per worker.
            reading(1, [0, 10, 0], 0, 1),
            reading(2, [0, 160, 0], 0, 2),
            reading(3, [0, 0, 0], 160, 2),
        ];
        for pair in readings.windows(2) {
            add(&mut waits, [pair[0].clone(), pair[1].clone()]);
        }
        assert!((share(&waits, 4.0, true) - 150.0 / 160.0).abs() < 1e-3);
        assert_eq!(share(&waits, 20.0, true), 0.0);
    }

    #[test]
    fn jobs_of_class_batch_make_no_other_job_late() {
        let mut waits = Waits::default();
        add(&mut waits, [reading(0, [0, 0, 0], 0, 1), reading(1, [0, 2, 1000], 0, 1)]);
        assert_eq!((share(&waits, 5.0, true), share(&waits, 5.0, false)), (1.0, 0.0));
        // A job without a ready worker is later than any threshold.
        add(&mut waits, [reading(1, [0, 2, 1000], 0, 0), reading(2, [0, 4, 1000], 0, 0)]);
        assert!((share(&waits, 1e9, false) - 0.5).abs() < 1e-3);
    }

    #[test]
    fn jobs_that_wait_for_a_start_are_late_but_not_in_a_settled_pool() {
        let start = Duration::from_secs(10);
        let mut waits = Waits::default();
        for second in 0..60 {
            // The second worker is requested after half a minute.
            let requested = if second < 30 { 1.0 } else { 2.0 };
            let [before, now] = [second, second + 1].map(|second| reading(second, [0, 100, 0], 10 * second, 1));
            waits.add([&before, &now], 10.0, requested, start);
        }
        let settled = waits.share(Late { seconds: 5.0, with_batch: true, is_settled: true });
        // In the last nine seconds of each half.
        assert!(share(&waits, 5.0, true) == 1.0 && (settled - 18.0 / 60.0).abs() < 1e-3, "{settled}");
    }
}
