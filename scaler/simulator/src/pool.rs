//! A pool under a trace, in virtual time: jobs wait, workers load, run batches and stop.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use policy::reading::Measurements;

use super::decider::Decider;
use super::outcome::Outcome;
use super::trace::Trace;
use super::view::View;
use super::worker::Worker;

/// The distance between two points of the series.
const SERIES_INTERVAL: Duration = Duration::from_secs(5);

/// The longest time from the end of a trace to the end of its run. A pool that is not at rest by then will never be at
/// rest.
const MAX_TAIL: Duration = Duration::from_secs(24 * 3600);

/// Runs a trace until all jobs have ended and all workers have stopped, at most a day longer than the trace.
pub fn run(trace: &Trace, worker: Worker, objective: Duration, decider: &mut dyn Decider) -> Outcome {
    let mut pool = Pool::new(trace, worker, objective);
    loop {
        let arrives = trace.jobs.get(pool.arrived).map(|job| job.at);
        let happens = pool.events.peek().map(|Reverse((at, ..))| *at);
        let decides = decider.due();
        let next = [arrives, happens, Some(decides)].into_iter().flatten().min().unwrap_or(decides);
        let over = arrives.is_none() && pool.is_at_rest();
        if over || next > trace.length + MAX_TAIL {
            // The workers that still run have a cost too.
            for worker in &pool.workers {
                pool.outcome.worker_time += pool.now - worker.started;
            }
            return pool.outcome;
        }
        pool.record_until(next);
        pool.now = next;
        if happens == Some(next) {
            pool.handle_event();
        } else if arrives == Some(next) {
            let is_reported = pool.arrive();
            if is_reported {
                let wanted = decider.on_arrival(&pool.view());
                pool.resize(wanted);
            }
        } else {
            let wanted = decider.decide(&pool.view());
            pool.resize(wanted);
        }
        pool.serve();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum WorkerEvent {
    /// The worker has loaded.
    Ready(u32),
    /// The worker's batch has ended.
    Ended(u32),
}

struct WaitingJob {
    at: Duration,
    work: f64,
    /// The time by which it must end to meet the objective.
    deadline: Duration,
}

/// A started worker.
struct PoolWorker {
    number: u32,
    started: Duration,
    state: PoolWorkerState,
    /// Whether it stops after its present batch.
    is_draining: bool,
}

enum PoolWorkerState {
    Loading,
    Idle,
    Busy(Vec<WaitingJob>),
}

struct Pool<'a> {
    trace: &'a Trace,
    times: Worker,
    objective: Duration,
    now: Duration,
    arrived: usize,
    waiting: VecDeque<WaitingJob>,
    workers: Vec<PoolWorker>,
    events: BinaryHeap<Reverse<(Duration, WorkerEvent)>>,
    started: u32,
    measurements: Measurements,
    next_point: Duration,
    outcome: Outcome,
}

impl<'a> Pool<'a> {
    fn new(trace: &'a Trace, times: Worker, objective: Duration) -> Self {
        Self {
            trace,
            times,
            objective,
            now: Duration::ZERO,
            arrived: 0,
            waiting: VecDeque::new(),
            workers: Vec::new(),
            events: BinaryHeap::new(),
            started: 0,
            // The simulated pool has run before, so its measurements are known.
            measurements: Measurements { batch_time: Some(times.batch_time()), cold_start: Some(times.cold_start) },
            next_point: Duration::ZERO,
            outcome: Outcome {
                latencies: Vec::with_capacity(trace.jobs.len()),
                within: 0,
                worker_time: Duration::ZERO,
                starts: 0,
                cold_starts: 0,
                series: Vec::new(),
            },
        }
    }

    fn is_at_rest(&self) -> bool {
        self.waiting.is_empty() && self.workers.is_empty()
    }

    fn view(&self) -> View {
        let count = |is: fn(&PoolWorkerState) -> bool| {
            let present = self.workers.iter().filter(|worker| !worker.is_draining && is(&worker.state));
            u32::try_from(present.count()).unwrap_or(u32::MAX)
        };
        let loading = count(|state| matches!(state, PoolWorkerState::Loading));
        let draining = self.workers.iter().filter(|worker| worker.is_draining).count();
        let of_loading = |worker: &PoolWorker| match worker.state {
            PoolWorkerState::Loading if !worker.is_draining => self.now.saturating_sub(worker.started),
            _ => Duration::ZERO,
        };
        let loading_for = self.workers.iter().map(of_loading);
        let leased: usize = self.workers.iter().map(|worker| worker.state.job_count()).sum();
        View {
            now: self.now,
            waiting: self.waiting.len() as u64,
            leased: leased as u64,
            oldest_wait: self.waiting.front().map_or(Duration::ZERO, |job| self.now.saturating_sub(job.at)),
            arrived: self.arrived as u64,
            ended: self.outcome.latencies.len() as u64,
            ready: count(|_| true) - loading,
            loading,
            draining: draining as u32,
            loading_for: loading_for.sum(),
            measurements: self.measurements,
        }
    }

    /// Adds the points of the series up to `next`.
    fn record_until(&mut self, next: Duration) {
        while self.next_point <= next {
            self.now = self.next_point;
            self.outcome.series.push(self.view());
            self.next_point += SERIES_INTERVAL;
        }
    }

    /// Adds the next job of the trace. Returns whether the pool had no job or has no worker, so that the arrival is
    /// reported.
    fn arrive(&mut self) -> bool {
        let job = self.trace.jobs[self.arrived];
        self.arrived += 1;
        let had_none = self.waiting.is_empty() && self.workers.iter().all(|worker| worker.state.job_count() == 0);
        let is_served = self.workers.iter().any(|worker| !matches!(worker.state, PoolWorkerState::Loading));
        let grace = if is_served { Duration::ZERO } else { self.times.cold_start };
        self.waiting.push_back(WaitingJob { at: job.at, work: job.work, deadline: job.at + self.objective + grace });
        had_none || self.workers.is_empty()
    }

    fn handle_event(&mut self) {
        let Some(Reverse((_, event))) = self.events.pop() else { return };
        let (WorkerEvent::Ready(number) | WorkerEvent::Ended(number)) = event;
        // A worker that was stopped while it loaded is not in the pool any more.
        let Some(place) = self.workers.iter().position(|worker| worker.number == number) else { return };
        let worker = &mut self.workers[place];
        match std::mem::replace(&mut worker.state, PoolWorkerState::Idle) {
            PoolWorkerState::Busy(batch) => {
                for job in batch {
                    self.outcome.latencies.push(self.now - job.at);
                    self.outcome.within += u64::from(self.now <= job.deadline);
                }
            }
            PoolWorkerState::Loading | PoolWorkerState::Idle => {}
        }
        if worker.is_draining {
            self.stop(place);
        }
    }

    /// Starts a batch of waiting jobs on every idle worker.
    fn serve(&mut self) {
        for worker in &mut self.workers {
            if self.waiting.is_empty() {
                return;
            }
            if worker.is_draining || !matches!(worker.state, PoolWorkerState::Idle) {
                continue;
            }
            let count = self.waiting.len().min(self.times.batch_limit.max(1) as usize);
            let batch: Vec<WaitingJob> = self.waiting.drain(..count).collect();
            let items: f64 = batch.iter().map(|job| job.work).sum();
            let takes = self.times.time_of_batch(items);
            worker.state = PoolWorkerState::Busy(batch);
            self.events.push(Reverse((self.now + takes, WorkerEvent::Ended(worker.number))));
        }
    }

    /// Starts or stops workers until `wanted` remain. Loading workers stop first, then idle ones.
    fn resize(&mut self, wanted: u32) {
        let wanted = wanted as usize;
        let remaining = |pool: &Self| pool.workers.iter().filter(|worker| !worker.is_draining).count();
        let from_zero = remaining(self) == 0 && wanted > 0;
        self.outcome.cold_starts += u32::from(from_zero);
        while remaining(self) < wanted {
            self.started += 1;
            self.outcome.starts += 1;
            let (number, started) = (self.started, self.now);
            self.workers.push(PoolWorker { number, started, state: PoolWorkerState::Loading, is_draining: false });
            self.events.push(Reverse((self.now + self.times.cold_start, WorkerEvent::Ready(number))));
        }
        while remaining(self) > wanted {
            let rank = |worker: &PoolWorker| match worker.state {
                PoolWorkerState::Loading => 0,
                PoolWorkerState::Idle => 1,
                PoolWorkerState::Busy(_) => 2,
            };
            let candidates = self.workers.iter().enumerate().filter(|(_, worker)| !worker.is_draining);
            // The youngest one of several.
            let first = candidates.min_by_key(|(_, worker)| (rank(worker), Reverse(worker.number)));
            let Some(place) = first.map(|(place, _)| place) else { return };
            if matches!(self.workers[place].state, PoolWorkerState::Busy(_)) {
                self.workers[place].is_draining = true;
            } else {
                self.stop(place);
            }
        }
    }

    fn stop(&mut self, place: usize) {
        let stopped = self.workers.remove(place);
        self.outcome.worker_time += self.now - stopped.started;
    }
}

impl PoolWorkerState {
    fn job_count(&self) -> usize {
        if let Self::Busy(batch) = self { batch.len() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use policy::history::History;
    use policy::replicas::{Observation, Rules};

    use super::*;
    use crate::decider::ScaledByKeda;
    use crate::trace::{Arrival, Pattern};

    const SECOND: Duration = Duration::from_secs(1);

    /// The worker does 10 jobs per second one by one, and 78 jobs per second in full batches.
    fn worker() -> Worker {
        let batch_item = Duration::from_millis(10);
        Worker { cold_start: SECOND * 60, batch_base: Duration::from_millis(90), batch_item, batch_limit: 32 }
    }

    /// A decider with a constant number of workers.
    struct Constant(u32, Duration);

    impl Decider for Constant {
        fn due(&self) -> Duration {
            self.1
        }

        fn decide(&mut self, view: &View) -> u32 {
            self.1 += SECOND * 10;
            // At the end all workers stop.
            if view.now > SECOND * 3600 && view.waiting + view.leased == 0 { 0 } else { self.0 }
        }
    }

    fn at(milliseconds: u64) -> Arrival {
        Arrival { at: Duration::from_millis(milliseconds), work: 1.0 }
    }

    #[test]
    fn a_job_waits_for_its_worker_to_load_and_for_the_batch_before_its_own() {
        let trace = Trace { jobs: vec![at(0), at(60_050), at(60_060)], length: SECOND * 70 };
        let outcome = run(&trace, worker(), SECOND * 5, &mut Constant(1, Duration::ZERO));
        // The worker is ready at 60 s. A batch of one job takes 100 ms, a batch of two 110 ms.
        let expected = [60_100, 50 + 110, 40 + 110].map(Duration::from_millis);
        assert_eq!(outcome.latencies, expected);
        assert_eq!((outcome.within, outcome.starts, outcome.cold_starts), (3, 1, 1));
        assert_eq!(outcome.worker_time, SECOND * 3610);
    }

    #[test]
    fn no_job_is_lost_under_erratic_decisions() {
        struct Erratic(Duration, u32);
        impl Decider for Erratic {
            fn due(&self) -> Duration {
                self.0
            }
            fn decide(&mut self, view: &View) -> u32 {
                self.0 += SECOND * 7;
                self.1 = (self.1 * 5 + 3) % 11;
                if view.arrived > 0 && view.waiting + view.leased == 0 && view.now > SECOND * 700 { 0 } else { self.1 }
            }
        }
        let trace = Pattern::Poisson { rate: 60.0 }.trace(SECOND * 600, 3);
        let outcome = run(&trace, worker(), SECOND * 5, &mut Erratic(Duration::ZERO, 1));
        assert_eq!(outcome.latencies.len(), trace.jobs.len());
        assert!(outcome.within > 0 && outcome.within < trace.jobs.len() as u64);
        let total: Duration =
            outcome.series.windows(2).map(|pair| SERIES_INTERVAL * (pair[0].ready + pair[0].loading)).sum();
        // The series has a point every 5 s, so its sum is close to the worker time.
        assert!((total.as_secs_f64() / outcome.worker_time.as_secs_f64() - 1.0).abs() < 0.2, "{total:?} {outcome:?}");
    }

    #[test]
    fn a_scaler_that_counts_the_backlog_scales_a_pool_up_and_back_to_zero() {
        let trace = Pattern::Burst { rate: 200.0, from: SECOND * 60, until: SECOND * 660 }.trace(SECOND * 1200, 1);
        let backlog = |history: &History| {
            let reading = history.latest().unwrap();
            let value = reading.backlog() as f64;
            Ok(Observation { active: value > 0.0 || reading.fleet.loading > 0, value, target: 40.0 })
        };
        let rules = Rules { max: 20, ..Rules::default() };
        let outcome = run(&trace, worker(), SECOND * 5, &mut ScaledByKeda::new(rules, backlog));
        assert_eq!(outcome.latencies.len(), trace.jobs.len());
        assert_eq!(outcome.cold_starts, 1);
        assert!(outcome.series.iter().any(|view| view.ready >= 3));
        assert!(outcome.series.last().is_some_and(|view| view.ready + view.loading <= 1));
    }
}
