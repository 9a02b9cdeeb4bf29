//! What is known of a pool at one moment.

use std::time::Duration;

use jiff::Timestamp;
use queue::{Class, Depth, JobCounts, WorkerRecord, WorkerState};

/// A pool, read once. All answers about one moment are made from one reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// When the first of its reads began, counted from any fixed moment: it says nothing of what came later.
    pub taken_at: Duration,
    /// Deliveries that nobody holds, by class (in the order of [`Class::ALL`]).
    pub waiting: [u64; 3],
    /// Deliveries in a worker's hands, as far as the broker can tell.
    pub in_flight: u64,
    /// Jobs in the broker, for all that the ledger knows.
    pub queued: u64,
    /// Jobs under a worker's lease.
    pub leased: u64,
    /// Jobs that wait in the ledger for their retry, or to be published again.
    pub retry: u64,
    /// Jobs that have ever ended; never falls.
    pub ended: u64,
    /// How long the oldest delivery that nobody holds has waited. `None`: nothing waits, or the broker cannot tell.
    pub oldest: Option<Duration>,
    /// More workers than this would find nothing to take. `None`: any number can work.
    pub max_consumers: Option<u64>,
    /// The workers alive.
    pub fleet: Fleet,
}

/// The workers of a pool, as they tell of themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Fleet {
    /// Those that take jobs.
    pub ready: u64,
    /// Those whose model is not ready yet: capacity on the way.
    pub loading: u64,
    /// Those that finish what they hold and take nothing new.
    pub draining: u64,
    /// For how long those that load have done so, in all.
    pub loading_for: Duration,
    /// What they have measured.
    pub measured: Measured,
}

/// What workers have measured, on average over them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measured {
    /// How long a batch takes. `None` before the first.
    pub batch: Option<Batch>,
    /// From the start of a worker until it takes jobs. `None` before one was ready.
    pub cold_start: Option<Duration>,
}

impl Measured {
    /// Each of the two as it is known here, else as it is known there.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { batch: self.batch.or(other.batch), cold_start: self.cold_start.or(other.cold_start) }
    }
}

impl From<queue::Measured> for Measured {
    fn from(measured: queue::Measured) -> Self {
        let batch = Batch {
            base_seconds: measured.batch_base_seconds,
            item_seconds: measured.batch_item_seconds,
            limit_items: f64::from(measured.batch_limit_items),
        };
        let cold_start = Duration::try_from_secs_f64(measured.cold_start_seconds).ok();
        Self { batch: Some(batch), cold_start: cold_start.filter(|cold_start| !cold_start.is_zero()) }
    }
}

/// How long a batch takes: `base + items × item`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch {
    /// However small it is, in seconds.
    pub base_seconds: f64,
    /// Each of its items besides, in seconds.
    pub item_seconds: f64,
    /// The most items.
    pub limit_items: f64,
}

impl Batch {
    /// How long a full one takes.
    pub fn full_seconds(&self) -> f64 {
        self.base_seconds + self.limit_items * self.item_seconds
    }

    /// Items per second in full batches: the most that one worker can do.
    pub fn throughput(&self) -> f64 {
        self.limit_items / self.full_seconds()
    }
}

impl Reading {
    /// What the backends say, where the ledger was looked at before and after the broker.
    ///
    /// A job moves from the ledger (a retry) to the broker, and from the broker to the ledger (an attempt that failed).
    /// Of the two looks at the ledger the larger one counts, so a job that moves meanwhile is counted twice rather than
    /// never: too many workers for a moment, never too few.
    pub fn new(
        taken_at: Duration,
        now: Timestamp,
        depth: &Depth,
        [before, after]: [JobCounts; 2],
        workers: &[WorkerRecord],
    ) -> Self {
        let oldest = depth.oldest_waiting_at.map(|at| since(at, now));
        Self {
            taken_at,
            waiting: depth.waiting_by_class,
            in_flight: depth.in_flight.unwrap_or(0),
            queued: before.queued.max(after.queued),
            leased: before.leased.max(after.leased),
            retry: before.retry.max(after.retry),
            ended: before.ended.max(after.ended),
            oldest,
            max_consumers: depth.max_consumers,
            fleet: Fleet::new(workers, now),
        }
    }

    /// The work that is there, in jobs.
    ///
    /// Broker and ledger both count, and each misses some. Only the broker knows the messages of producers that do not
    /// write to the ledger. Only the ledger knows the jobs that a worker has received and not claimed yet, where the
    /// broker does not count what it has handed out. Most jobs are in both counts, so the larger stands for them.
    pub fn backlog(&self) -> u64 {
        let waiting = self.waiting.iter().fold(0, |sum: u64, waiting| sum.saturating_add(*waiting));
        let by_broker = waiting.saturating_add(self.in_flight.max(self.leased));
        let by_ledger = self.queued.saturating_add(self.leased);
        by_broker.max(by_ledger).saturating_add(self.retry)
    }

    /// Whether it says the same of what makes a pool active, and of who is there: those who wait to be told need not hear of
    /// the rest.
    pub fn is_as_active_as(&self, other: &Self) -> bool {
        let of = |reading: &Self| {
            let Self { waiting, in_flight, queued, leased, retry, fleet, .. } = reading;
            (*waiting, *in_flight, *queued, *leased, *retry, fleet.present(), fleet.loading)
        };
        of(self) == of(other)
    }

    /// Deliveries of one class that nobody holds.
    pub fn waiting_of(&self, class: Class) -> u64 {
        self.waiting[class as usize]
    }
}

impl Fleet {
    fn new(workers: &[WorkerRecord], now: Timestamp) -> Self {
        let mut fleet = Self::default();
        let (mut base, mut item, mut limit, mut batches) = (0.0, 0.0, 0.0, 0.0);
        let (mut cold, mut colds) = (0.0, 0.0);
        for worker in workers {
            match worker.state {
                WorkerState::Idle | WorkerState::Busy => fleet.ready += 1,
                WorkerState::Draining => fleet.draining += 1,
                WorkerState::Loading => {
                    fleet.loading += 1;
                    fleet.loading_for = fleet.loading_for.saturating_add(since(worker.started_at, now));
                }
            }
            if let Some(measured) = worker.measured() {
                base += measured.batch_base_seconds;
                item += measured.batch_item_seconds;
                limit += f64::from(measured.batch_limit_items);
                batches += 1.0;
            }
            // What a worker says of itself may be anything.
            if worker.cold_start_seconds > 0.0 && worker.cold_start_seconds.is_finite() {
                cold += worker.cold_start_seconds;
                colds += 1.0;
            }
        }
        let batch = Batch { base_seconds: base / batches, item_seconds: item / batches, limit_items: limit / batches };
        fleet.measured = Measured {
            batch: (batches > 0.0).then_some(batch),
            cold_start: (colds > 0.0).then(|| Duration::try_from_secs_f64(cold / colds).ok()).flatten(),
        };
        fleet
    }

    /// All that are alive.
    pub fn present(&self) -> u64 {
        self.staying() + self.draining
    }

    /// Those that take jobs, or will.
    pub fn staying(&self) -> u64 {
        self.ready + self.loading
    }
}

/// Clocks of other machines may be ahead: then no time has passed.
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
    fn the_backlog_counts_a_job_in_a_workers_hands_once() {
        assert_eq!(reading(0, 0, 0, 0).backlog(), 0);
        assert_eq!(reading(5, 3, 3, 2).backlog(), 10);
        // Received and not claimed yet; a broker that does not count.
        assert_eq!(reading(5, 3, 0, 2).backlog(), 10);
        assert_eq!(reading(5, 0, 3, 2).backlog(), 10);
        // The same where the ledger knows better: the three are received and still queued.
        assert_eq!(Reading { queued: 8, ..reading(5, 0, 0, 2) }.backlog(), 10);
        assert_eq!(Reading { queued: 1, ..reading(5, 0, 3, 2) }.backlog(), 10);
    }

    #[test]
    fn the_fleet_is_what_its_workers_say_and_on_average_what_they_measured() {
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
        assert_eq!((fleet.ready, fleet.loading, fleet.draining, fleet.staying()), (2, 1, 1, 3));
        assert_eq!(fleet.loading_for, Duration::from_secs(10));
        let batch = fleet.measured.batch.unwrap();
        assert!((batch.base_seconds - 0.2).abs() < 1e-9 && (batch.full_seconds() - 0.4).abs() < 1e-9);
        assert!((batch.throughput() - 25.0).abs() < 1e-9);
        assert_eq!(fleet.measured.cold_start, Some(Duration::from_secs(30)));
        assert_eq!(Fleet::new(&[], now).measured, Measured::default());
    }
}
