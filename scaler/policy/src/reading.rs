//! The counts and the workers of a pool at one moment.

use std::time::Duration;

use jiff::Timestamp;
use queue::{Class, Depth, JobCounts, WorkerRecord, WorkerState};

/// One reading of a pool. All answers about one moment come from one reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The start of its first call, counted from any fixed moment. The reading may miss later changes.
    pub taken_at: Duration,
    /// Jobs that wait in the broker, by class (in the order of [`Class::ALL`]).
    pub waiting: [u64; 3],
    /// Deliveries that the broker gave to workers. 0 where the broker does not count them.
    pub in_flight: u64,
    /// Jobs that wait in the broker, as counted by the ledger.
    pub queued: u64,
    /// Jobs under a worker's lease.
    pub leased: u64,
    /// Jobs that wait in the ledger for their retry, or to be published again.
    pub retry: u64,
    /// Jobs that have ended since the pool exists. This count never falls.
    pub ended: u64,
    /// How long the oldest waiting job has waited. `None`: no job waits, or the broker does not report it.
    pub oldest_wait: Option<Duration>,
    /// The number of workers that can receive jobs at the same time. `None`: no limit.
    pub max_consumers: Option<u64>,
    /// The live workers.
    pub fleet: Fleet,
}

/// The number of loading workers whose loading times are known one by one.
pub const LONGEST_LOADING: usize = 8;

/// The live workers of a pool, from their records in the roster.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Fleet {
    /// Workers that take jobs.
    pub ready: u64,
    /// Workers whose model is still loading.
    pub loading: u64,
    /// Workers that finish the jobs they hold and take no new ones.
    pub draining: u64,
    /// The loading times of all loading workers so far, added up.
    pub loading_for: Duration,
    /// The loading times of the workers that have loaded for the longest time, the longest first, in seconds.
    pub longest_loading: [f32; LONGEST_LOADING],
    /// The items of a batch lately, on average over the workers. 0: not reported.
    pub batch_items: f64,
    /// The seconds of a batch lately, likewise.
    pub batch_seconds: f64,
    /// The measurements of the workers, on average.
    pub measurements: Measurements,
}

/// The measurements of a pool's workers, on average over the workers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measurements {
    /// The batch time model. `None` before the first batch.
    pub batch_time: Option<BatchTime>,
    /// The time from the start of a worker until it takes jobs. `None` before the first worker was ready.
    pub cold_start: Option<Duration>,
}

impl Measurements {
    /// Fills each missing measurement from `other`.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { batch_time: self.batch_time.or(other.batch_time), cold_start: self.cold_start.or(other.cold_start) }
    }
}

impl From<queue::Measured> for Measurements {
    fn from(measured: queue::Measured) -> Self {
        let batch_time = BatchTime {
            base_seconds: measured.batch_base_seconds,
            item_seconds: measured.batch_item_seconds,
            limit_items: f64::from(measured.batch_limit_items),
        };
        let cold_start = Duration::try_from_secs_f64(measured.cold_start_seconds).ok();
        Self { batch_time: Some(batch_time), cold_start: cold_start.filter(|cold_start| !cold_start.is_zero()) }
    }
}

/// The batch time model: a batch takes `base + items × item`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchTime {
    /// The time of a batch that does not depend on its size, in seconds.
    pub base_seconds: f64,
    /// The additional time of each item, in seconds.
    pub item_seconds: f64,
    /// The largest number of items in a batch.
    pub limit_items: f64,
}

impl BatchTime {
    /// The time of a full batch, in seconds.
    pub fn full_seconds(&self) -> f64 {
        self.base_seconds + self.limit_items * self.item_seconds
    }

    /// The time of a batch of `items`, in seconds.
    pub(crate) fn seconds_of(&self, items: f64) -> f64 {
        self.base_seconds + items * self.item_seconds
    }

    /// This model, moved by a share toward another one of the same limit.
    pub(crate) fn toward(&self, other: Self, share: f64) -> Self {
        let moved = |from: f64, to: f64| from + share * (to - from);
        Self {
            base_seconds: moved(self.base_seconds, other.base_seconds),
            item_seconds: moved(self.item_seconds, other.item_seconds),
            ..*self
        }
    }

    /// The highest throughput of one worker, in items per second: that of full batches.
    pub fn throughput(&self) -> f64 {
        self.limit_items / self.full_seconds()
    }
}

impl Reading {
    /// Combines the answers of the broker, the ledger and the roster. The ledger was read before and after the broker.
    ///
    /// A job moves from the ledger to the broker (a retry) and back (a failed attempt). Of the two ledger counts the
    /// larger one is used. A job that moves meanwhile is counted twice, not missed. So for a moment there may be too
    /// many workers, but never too few.
    pub fn new(
        taken_at: Duration,
        now: Timestamp,
        depth: &Depth,
        [before, after]: [JobCounts; 2],
        workers: &[WorkerRecord],
    ) -> Self {
        Self {
            taken_at,
            waiting: depth.waiting_by_class,
            in_flight: depth.in_flight.unwrap_or(0),
            queued: before.queued.max(after.queued),
            leased: before.leased.max(after.leased),
            retry: before.retry.max(after.retry),
            ended: before.ended.max(after.ended),
            oldest_wait: depth.oldest_waiting_at.map(|at| since(at, now)),
            max_consumers: depth.max_consumers,
            fleet: Fleet::new(workers, now),
        }
    }

    /// The backlog, in jobs: waiting + leased + retry due.
    ///
    /// Broker and ledger both count, and each misses some jobs. Only the broker counts messages of producers that do
    /// not write to the ledger. If the broker does not count deliveries, only the ledger counts a job between its
    /// delivery and its claim. Most jobs are in both counts, so the larger count is used.
    pub fn backlog(&self) -> u64 {
        let waiting = self.waiting.iter().fold(0, |sum: u64, waiting| sum.saturating_add(*waiting));
        let by_broker = waiting.saturating_add(self.in_flight.max(self.leased));
        let by_ledger = self.queued.saturating_add(self.leased);
        by_broker.max(by_ledger).saturating_add(self.retry)
    }

    /// Whether both readings have the same counts and workers, as far as a push stream depends on them. If so, waiting
    /// streams need no wakeup.
    pub fn has_same_activity_as(&self, other: &Self) -> bool {
        let activity = |reading: &Self| {
            let Self { waiting, in_flight, queued, leased, retry, fleet, .. } = reading;
            (*waiting, *in_flight, *queued, *leased, *retry, fleet.total(), fleet.loading)
        };
        activity(self) == activity(other)
    }

    /// Jobs of one class that wait in the broker.
    pub fn waiting_of(&self, class: Class) -> u64 {
        self.waiting[class as usize]
    }
}

impl Fleet {
    fn new(workers: &[WorkerRecord], now: Timestamp) -> Self {
        let mut fleet = Self::default();
        let (mut base, mut item, mut limit, mut weights) = (0.0, 0.0, 0.0, 0.0);
        let (mut items, mut seconds, mut batches) = (0.0, 0.0, 0.0);
        let mut loading: Vec<f32> = Vec::new();
        let (mut cold, mut colds) = (0.0, 0.0);
        for worker in workers {
            match worker.state {
                WorkerState::Idle | WorkerState::Busy => fleet.ready += 1,
                WorkerState::Draining => fleet.draining += 1,
                WorkerState::Loading => {
                    fleet.loading += 1;
                    let loads_for = since(worker.started_at, now);
                    fleet.loading_for = fleet.loading_for.saturating_add(loads_for);
                    loading.push(loads_for.as_secs_f32());
                }
            }
            if let Some(measured) = worker.measured() {
                // A worker with wider batches knows more about full ones.
                let is_sound = worker.batch_items.is_finite() && worker.batch_items > 0.0;
                let seen = if is_sound { worker.batch_items } else { 0.0 };
                let weight = seen.max(1.0);
                base += weight * measured.batch_base_seconds;
                item += weight * measured.batch_item_seconds;
                limit += weight * f64::from(measured.batch_limit_items);
                weights += weight;
                items += seen;
                seconds += if is_sound { worker.batch_seconds } else { 0.0 };
                batches += 1.0;
            }
            // A worker's record comes from outside this process and may hold any value.
            if worker.cold_start_seconds > 0.0 && worker.cold_start_seconds.is_finite() {
                cold += worker.cold_start_seconds;
                colds += 1.0;
            }
        }
        let mean =
            BatchTime { base_seconds: base / weights, item_seconds: item / weights, limit_items: limit / weights };
        if batches > 0.0 {
            (fleet.batch_items, fleet.batch_seconds) = (items / batches, seconds / batches);
        }
        loading.sort_by(|one, other| other.total_cmp(one));
        fleet.longest_loading.iter_mut().zip(loading).for_each(|(longest, seconds)| *longest = seconds);
        fleet.measurements = Measurements {
            batch_time: (weights > 0.0).then_some(mean),
            cold_start: (colds > 0.0).then(|| Duration::try_from_secs_f64(cold / colds).ok()).flatten(),
        };
        fleet
    }

    /// All live workers.
    pub fn total(&self) -> u64 {
        self.ready_or_loading() + self.draining
    }

    /// Of the loading workers with known loading times: those that have loaded for longer than `limit`, and their loading
    /// times, added up.
    pub(crate) fn loading_longer_than(&self, limit: Duration) -> (u64, Duration) {
        let longer = self.longest_loading.iter().filter(|seconds| **seconds > limit.as_secs_f32());
        longer.fold((0, Duration::ZERO), |(count, sum), seconds| {
            (count + 1, sum + Duration::try_from_secs_f32(*seconds).unwrap_or_default())
        })
    }

    /// The workers that take jobs now or will when their model is loaded.
    pub fn ready_or_loading(&self) -> u64 {
        self.ready + self.loading
    }
}

/// The time since `at`. It is 0 if the clock of another machine is ahead.
fn since(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(waiting: u64, in_flight: u64, leased: u64, retry: u64) -> Reading {
        Reading { waiting: [0, waiting, 0], in_flight, leased, retry, ..Reading::default() }
    }

    #[test]
    fn the_backlog_counts_a_job_that_a_worker_holds_once() {
        assert_eq!(reading(0, 0, 0, 0).backlog(), 0);
        assert_eq!(reading(5, 3, 3, 2).backlog(), 10);
        // Jobs that are delivered and not claimed yet, then a broker that does not count deliveries.
        assert_eq!(reading(5, 3, 0, 2).backlog(), 10);
        assert_eq!(reading(5, 0, 3, 2).backlog(), 10);
        // The ledger counts more: three jobs are delivered and still `queued` there.
        assert_eq!(Reading { queued: 8, ..reading(5, 0, 0, 2) }.backlog(), 10);
        assert_eq!(Reading { queued: 1, ..reading(5, 0, 3, 2) }.backlog(), 10);
    }

    #[test]
    fn a_fleet_counts_workers_by_state_and_averages_their_measurements() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let started_at: Timestamp = "2026-01-01T00:09:50Z".parse().unwrap();
        let worker = |state, base, cold| WorkerRecord {
            state,
            batch_base_seconds: base,
            batch_item_seconds: base / 10.0,
            batch_limit_items: 10,
            cold_start_seconds: cold,
            ..WorkerRecord::new(queue::WorkerId::new("w"), "p".parse().unwrap(), started_at)
        };
        let workers = [
            worker(WorkerState::Idle, 0.1, 20.0),
            worker(WorkerState::Busy, 0.3, 40.0),
            worker(WorkerState::Loading, 0.0, 0.0),
            worker(WorkerState::Draining, 0.0, 0.0),
        ];
        let fleet = Fleet::new(&workers, now);
        assert_eq!((fleet.ready, fleet.loading, fleet.draining, fleet.ready_or_loading()), (2, 1, 1, 3));
        assert_eq!(fleet.loading_for, Duration::from_secs(10));
        let batch = fleet.measurements.batch_time.unwrap();
        assert!((batch.base_seconds - 0.2).abs() < 1e-9 && (batch.full_seconds() - 0.4).abs() < 1e-9);
        assert_eq!(fleet.longest_loading[..2], [10.0, 0.0]);
        assert!((batch.throughput() - 25.0).abs() < 1e-9);
        assert_eq!(fleet.measurements.cold_start, Some(Duration::from_secs(30)));
        assert_eq!(Fleet::new(&[], now).measurements, Measurements::default());
    }
}
