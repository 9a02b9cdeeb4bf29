//! A pool under a trace: jobs wait, workers load, batch, and go, in virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use policy::reading::Measured;

use super::decider::Decider;
use super::outcome::Outcome;
use super::trace::Trace;
use super::view::View;
use super::worker::Worker;

/// How often the series has a point.
const SERIES_INTERVAL: Duration = Duration::from_secs(5);

/// A pool that has not come to rest by then never does.
const LONGEST_TAIL: Duration = Duration::from_secs(24 * 3600);

/// Runs a trace until every job has ended and no worker is left, and at most a day longer than the trace.
pub fn run(trace: &Trace, worker: Worker, objective: Duration, decider: &mut dyn Decider) -> Outcome {
    let mut pool = Pool::new(trace, worker, objective);
    loop {
        let arrives = trace.jobs.get(pool.arrived).map(|job| job.at);
        let happens = pool.events.peek().map(|Reverse((at, ..))| *at);
        let decides = decider.due();
        let next = [arrives, happens, Some(decides)].into_iter().flatten().min().unwrap_or(decides);
        let over = arrives.is_none() && pool.is_at_rest();
        if over || next > trace.length + LONGEST_TAIL {
            // Whoever is still there has cost something too.
            for running in &pool.running {
                pool.outcome.worker_time += pool.now - running.started;
            }
            return pool.outcome;
        }
        pool.watch_until(next);
        pool.now = next;
        if happens == Some(next) {
            pool.happen();
        } else if arrives == Some(next) {
            let woken = pool.arrive();
            if woken {
                let wanted = decider.woken(&pool.view());
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
enum Event {
    /// This worker has loaded.
    Ready(u32),
    /// This worker's batch has ended.
    Ended(u32),
}

struct Waiting {
    at: Duration,
    work: f64,
    /// When it must have ended.
    by: Duration,
}

/// A worker that is there.
struct Running {
    number: u32,
    started: Duration,
    state: State,
    /// It ends with its batch.
    is_leaving: bool,
}

enum State {
    Loading,
    Idle,
    Busy(Vec<Waiting>),
}

struct Pool<'a> {
    trace: &'a Trace,
    worker: Worker,
    objective: Duration,
    now: Duration,
    arrived: usize,
    waiting: VecDeque<Waiting>,
    running: Vec<Running>,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    started: u32,
    measured: Measured,
    next_point: Duration,
    outcome: Outcome,
}

impl<'a> Pool<'a> {
    fn new(trace: &'a Trace, worker: Worker, objective: Duration) -> Self {
        Self {
            trace,
            worker,
            objective,
            now: Duration::ZERO,
            arrived: 0,
            waiting: VecDeque::new(),
            running: Vec::new(),
            events: BinaryHeap::new(),
            started: 0,
            // The pool has run before: what its workers measured is known.
            measured: Measured { batch: Some(worker.curve()), cold_start: Some(worker.cold_start) },
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
        self.waiting.is_empty() && self.running.is_empty()
    }

    fn view(&self) -> View {
        let count = |is: fn(&State) -> bool| {
            let present = self.running.iter().filter(|running| !running.is_leaving && is(&running.state));
            u32::try_from(present.count()).unwrap_or(u32::MAX)
        };
        let loading = count(|state| matches!(state, State::Loading));
        let draining = self.running.iter().filter(|running| running.is_leaving).count();
        let of_loading = |running: &Running| match running.state {
            State::Loading if !running.is_leaving => self.now.saturating_sub(running.started),
            _ => Duration::ZERO,
        };
        let loading_for = self.running.iter().map(of_loading);
        let leased: usize = self.running.iter().map(|running| running.state.held()).sum();
        View {
            now: self.now,
            waiting: self.waiting.len() as u64,
            leased: leased as u64,
            oldest: self.waiting.front().map_or(Duration::ZERO, |job| self.now.saturating_sub(job.at)),
            arrived: self.arrived as u64,
            ended: self.outcome.latencies.len() as u64,
            ready: count(|_| true) - loading,
            loading,
            draining: draining as u32,
            loading_for: loading_for.sum(),
            measured: self.measured,
        }
    }

    /// Adds the points of the series that lie before `next`.
    fn watch_until(&mut self, next: Duration) {
        while self.next_point <= next {
            self.now = self.next_point;
            self.outcome.series.push(self.view());
            self.next_point += SERIES_INTERVAL;
        }
    }

    /// The next job of the trace arrives; whether the pool had no job, or has no worker for it.
    fn arrive(&mut self) -> bool {
        let job = self.trace.jobs[self.arrived];
        self.arrived += 1;
        let had_none = self.waiting.is_empty() && self.running.iter().all(|running| running.state.held() == 0);
        let is_served = self.running.iter().any(|running| !matches!(running.state, State::Loading));
        let grace = if is_served { Duration::ZERO } else { self.worker.cold_start };
        self.waiting.push_back(Waiting { at: job.at, work: job.work, by: job.at + self.objective + grace });
        had_none || self.running.is_empty()
    }

    fn happen(&mut self) {
        let Some(Reverse((_, event))) = self.events.pop() else { return };
        let (Event::Ready(number) | Event::Ended(number)) = event;
        // One that was stopped while it loaded is no longer there.
        let Some(place) = self.running.iter().position(|running| running.number == number) else { return };
        let running = &mut self.running[place];
        match std::mem::replace(&mut running.state, State::Idle) {
            State::Busy(batch) => {
                for job in batch {
                    self.outcome.latencies.push(self.now - job.at);
                    self.outcome.within += u64::from(self.now <= job.by);
                }
            }
            State::Loading | State::Idle => {}
        }
        if running.is_leaving {
            self.stop(place);
        }
    }

    /// Has every worker that is free take what waits.
    fn serve(&mut self) {
        for running in &mut self.running {
            if self.waiting.is_empty() {
                return;
            }
            if running.is_leaving || !matches!(running.state, State::Idle) {
                continue;
            }
            let count = self.waiting.len().min(self.worker.batch_limit.max(1) as usize);
            let batch: Vec<Waiting> = self.waiting.drain(..count).collect();
            let items: f64 = batch.iter().map(|job| job.work).sum();
            let takes = self.worker.batch(items);
            running.state = State::Busy(batch);
            self.events.push(Reverse((self.now + takes, Event::Ended(running.number))));
        }
    }

    /// Starts and stops workers until `wanted` of them stay. Those go first that load, then those that are idle.
    fn resize(&mut self, wanted: u32) {
        let wanted = wanted as usize;
        let staying = |pool: &Self| pool.running.iter().filter(|running| !running.is_leaving).count();
        let from_nothing = staying(self) == 0 && wanted > 0;
        self.outcome.cold_starts += u32::from(from_nothing);
        while staying(self) < wanted {
            self.started += 1;
            self.outcome.starts += 1;
            let (number, started) = (self.started, self.now);
            self.running.push(Running { number, started, state: State::Loading, is_leaving: false });
            self.events.push(Reverse((self.now + self.worker.cold_start, Event::Ready(number))));
        }
        while staying(self) > wanted {
            let rank = |running: &Running| match running.state {
                State::Loading => 0,
                State::Idle => 1,
                State::Busy(_) => 2,
            };
            let candidates = self.running.iter().enumerate().filter(|(_, running)| !running.is_leaving);
            // Of equals the youngest.
            let first = candidates.min_by_key(|(_, running)| (rank(running), Reverse(running.number)));
            let Some(place) = first.map(|(place, _)| place) else { return };
            if matches!(self.running[place].state, State::Busy(_)) {
                self.running[place].is_leaving = true;
            } else {
                self.stop(place);
            }
        }
    }

    fn stop(&mut self, place: usize) {
        let stopped = self.running.remove(place);
        self.outcome.worker_time += self.now - stopped.started;
    }
}

impl State {
    fn held(&self) -> usize {
        if let Self::Busy(batch) = self { batch.len() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use policy::history::History;
    use policy::replicas::{Observation, Rules};

    use super::*;
    use crate::decider::Scaled;
    use crate::trace::{Arrival, Pattern};

    const SECOND: Duration = Duration::from_secs(1);

    /// Ten a second alone, 80 a second in full batches.
    fn worker() -> Worker {
        let batch_item = Duration::from_millis(10);
        Worker { cold_start: SECOND * 60, batch_base: Duration::from_millis(90), batch_item, batch_limit: 32 }
    }

    /// Always as many.
    struct Always(u32, Duration);

    impl Decider for Always {
        fn due(&self) -> Duration {
            self.1
        }

        fn decide(&mut self, view: &View) -> u32 {
            self.1 += SECOND * 10;
            // At the end everybody goes.
            if view.now > SECOND * 3600 && view.waiting + view.leased == 0 { 0 } else { self.0 }
        }
    }

    fn at(milliseconds: u64) -> Arrival {
        Arrival { at: Duration::from_millis(milliseconds), work: 1.0 }
    }

    #[test]
    fn a_job_waits_for_its_worker_to_load_and_for_the_batch_before_its_own() {
        let trace = Trace { jobs: vec![at(0), at(60_050), at(60_060)], length: SECOND * 70 };
        let outcome = run(&trace, worker(), SECOND * 5, &mut Always(1, Duration::ZERO));
        // Ready at 60 s; a batch of one takes 100 ms, one of two 110 ms.
        let expected = [60_100, 50 + 110, 40 + 110].map(Duration::from_millis);
        assert_eq!(outcome.latencies, expected);
        assert_eq!((outcome.within, outcome.starts, outcome.cold_starts), (3, 1, 1));
        assert_eq!(outcome.worker_time, SECOND * 3610);
    }

    #[test]
    fn no_job_is_lost_whatever_the_pool_is_told() {
        struct Wild(Duration, u32);
        impl Decider for Wild {
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
        let outcome = run(&trace, worker(), SECOND * 5, &mut Wild(Duration::ZERO, 1));
        assert_eq!(outcome.latencies.len(), trace.jobs.len());
        assert!(outcome.within > 0 && outcome.within < trace.jobs.len() as u64);
        let total: Duration =
            outcome.series.windows(2).map(|pair| SERIES_INTERVAL * (pair[0].ready + pair[0].loading)).sum();
        // The series looks now and then; what it saw and what was paid are about the same.
        assert!((total.as_secs_f64() / outcome.worker_time.as_secs_f64() - 1.0).abs() < 0.2, "{total:?} {outcome:?}");
    }

    #[test]
    fn a_scaler_that_counts_the_backlog_takes_a_pool_up_and_back_to_nothing() {
        let trace = Pattern::Burst { rate: 200.0, from: SECOND * 60, until: SECOND * 660 }.trace(SECOND * 1200, 1);
        let backlog = |history: &History| {
            let reading = history.latest().unwrap();
            let value = reading.backlog() as f64;
            Ok(Observation { active: value > 0.0 || reading.fleet.loading > 0, value, target: 40.0 })
        };
        let rules = Rules { max: 20, ..Rules::default() };
        let outcome = run(&trace, worker(), SECOND * 5, &mut Scaled::new(rules, backlog));
        assert_eq!(outcome.latencies.len(), trace.jobs.len());
        assert_eq!(outcome.cold_starts, 1);
        assert!(outcome.series.iter().any(|view| view.ready >= 3));
        assert!(outcome.series.last().is_some_and(|view| view.ready + view.loading <= 1));
    }
}
