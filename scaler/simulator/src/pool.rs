//! A pool under a trace, in virtual time: jobs wait, workers load, run batches and stop.

mod fleet;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use policy::reading::Measurements;
use queue::Class;

use super::conditions::{Conditions, Objectives, for_all_classes};
use super::decider::Decider;
use super::outcome::Outcome;
use super::trace::Trace;
use super::view::View;
use super::worker::Worker;
use fleet::{Fleet, PoolWorkerState};

/// The distance between two points of the series, for a trace of up to a day.
const SERIES_INTERVAL: Duration = Duration::from_secs(5);

/// The maximum number of points of the series within the length of a trace.
const SERIES_POINTS: u32 = 17_280;

/// The longest time from the end of a trace to the end of its run. A pool that is not at rest by then will never be at
/// rest.
const MAX_TAIL: Duration = Duration::from_secs(24 * 3600);

/// Runs a trace under ideal conditions, with one objective for all jobs.
pub fn run(trace: &Trace, worker: Worker, objective: Duration, decider: &mut dyn Decider) -> Outcome {
    run_under(trace, worker, &for_all_classes(objective), &Conditions::default(), decider)
}

/// Runs a trace until all jobs have ended and all workers have stopped, at most a day longer than the trace.
pub fn run_under(
    trace: &Trace,
    worker: Worker,
    objectives: &Objectives,
    conditions: &Conditions,
    decider: &mut dyn Decider,
) -> Outcome {
    let mut pool = Pool::new(trace, worker, objectives, conditions);
    loop {
        let arrives = trace.jobs.get(pool.arrived).map(|job| job.at);
        let happens = pool.events.peek().map(|Reverse(event)| event.at);
        let decides = decider.due();
        let next = [arrives, happens, Some(decides)].into_iter().flatten().min().unwrap_or(decides);
        let over = arrives.is_none() && pool.is_at_rest();
        if over || next > trace.length + MAX_TAIL {
            // The workers that still run have a cost too.
            pool.outcome.worker_time += pool.fleet.cost_of_present(pool.now);
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

/// Something that happens to a worker. It has no effect if the worker has stopped or crashed since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: Duration,
    kind: EventKind,
    number: u32,
    /// The number of crashes of the worker before this event.
    life: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EventKind {
    /// The worker's process starts and registers.
    Registered,
    /// The worker has loaded.
    Ready,
    /// The worker's batch has ended.
    Ended,
    /// The worker crashes.
    Crashed,
}

#[derive(Debug, Clone, Copy)]
struct WaitingJob {
    at: Duration,
    work: f64,
    class: Class,
    /// Whether no worker was ready when it arrived.
    found_none: bool,
}

struct Pool<'a> {
    trace: &'a Trace,
    times: Worker,
    objectives: Objectives,
    now: Duration,
    arrived: usize,
    /// By class, the most urgent first.
    waiting: [VecDeque<WaitingJob>; 3],
    fleet: Fleet,
    events: BinaryHeap<Reverse<Event>>,
    series_interval: Duration,
    next_point: Duration,
    outcome: Outcome,
}

impl<'a> Pool<'a> {
    fn new(trace: &'a Trace, times: Worker, objectives: &Objectives, conditions: &Conditions) -> Self {
        // The simulated pool has run before, so the measurements of its full batches are known.
        let mut batch_time = times.batch_time();
        batch_time.item_seconds *= trace.mean_work();
        let known = Measurements { batch_time: Some(batch_time), cold_start: Some(times.cold_start) };
        Self {
            trace,
            times,
            objectives: *objectives,
            now: Duration::ZERO,
            arrived: 0,
            waiting: Default::default(),
            fleet: Fleet::new(times, known, *conditions),
            events: BinaryHeap::new(),
            series_interval: SERIES_INTERVAL.max(trace.length / SERIES_POINTS),
            next_point: Duration::ZERO,
            outcome: Outcome { latencies: Vec::with_capacity(trace.jobs.len()), ..Outcome::default() },
        }
    }

    fn is_at_rest(&self) -> bool {
        self.has_no_waiting() && self.fleet.is_empty()
    }

    fn has_no_waiting(&self) -> bool {
        self.waiting.iter().all(VecDeque::is_empty)
    }

    fn view(&self) -> View {
        let oldest = self.waiting.iter().filter_map(|jobs| jobs.front()).map(|job| job.at).min();
        View {
            now: self.now,
            waiting: self.waiting.each_ref().map(|jobs| jobs.len() as u64),
            leased: self.fleet.leased(),
            oldest_wait: oldest.map_or(Duration::ZERO, |at| self.now.saturating_sub(at)),
            arrived: self.arrived as u64,
            ended: self.outcome.latencies.len() as u64,
            provisioning: self.fleet.provisioning(),
            fleet: self.fleet.reading(self.now),
        }
    }

    /// Adds the points of the series up to `next`.
    fn record_until(&mut self, next: Duration) {
        while self.next_point <= next {
            self.now = self.next_point;
            self.outcome.series.push(self.view());
            self.next_point += self.series_interval;
        }
    }

    /// Adds the next job of the trace. Returns whether the pool had no job or has no worker, so that the arrival is
    /// reported.
    fn arrive(&mut self) -> bool {
        let job = self.trace.jobs[self.arrived];
        self.arrived += 1;
        let had_none = self.has_no_waiting() && self.fleet.leased() == 0;
        let found_none = !self.fleet.has_ready();
        let waiting = WaitingJob { at: job.at, work: job.work, class: job.class, found_none };
        self.waiting[job.class as usize].push_back(waiting);
        had_none || self.fleet.is_empty()
    }

    fn handle_event(&mut self) {
        let Some(Reverse(event)) = self.events.pop() else { return };
        // A worker that was stopped meanwhile is not in the pool any more.
        let Some(place) = self.fleet.place(event.number, event.life) else { return };
        match event.kind {
            EventKind::Registered => {
                if let Some(at) = self.fleet.register(place, self.now) {
                    self.events.push(Reverse(Event { at, kind: EventKind::Ready, ..event }));
                }
            }
            EventKind::Ready => {
                if let Some(at) = self.fleet.ready(place, self.now) {
                    self.events.push(Reverse(Event { at, kind: EventKind::Crashed, ..event }));
                }
            }
            EventKind::Ended => {
                for job in self.fleet.end_batch(place) {
                    self.end(&job);
                }
                if self.fleet.is_draining(place) {
                    self.stop(place);
                }
            }
            EventKind::Crashed => self.crash(place, event),
        }
    }

    fn end(&mut self, job: &WaitingJob) {
        let latency = self.now - job.at;
        self.outcome.latencies.push(latency);
        if let Some(objective) = self.objectives[job.class as usize] {
            self.outcome.judged += 1;
            self.outcome.within += u64::from(latency <= objective);
            self.outcome.late_from_zero += u64::from(latency > objective && job.found_none);
        }
    }

    /// A crashed worker loses its connection, so the broker delivers its jobs again at once. The container starts again
    /// in its pod, unless the pod is about to stop.
    fn crash(&mut self, place: usize, event: Event) {
        for job in self.fleet.crash(place, self.now).into_iter().rev() {
            self.waiting[job.class as usize].push_front(job);
        }
        if self.fleet.is_draining(place) {
            self.stop(place);
        } else {
            let at = self.now + self.times.cold_start;
            self.events.push(Reverse(Event { at, kind: EventKind::Ready, life: event.life + 1, ..event }));
        }
    }

    /// Starts a batch of waiting jobs on every idle worker.
    fn serve(&mut self) {
        let limit = self.times.batch_limit.max(1) as usize;
        while !self.has_no_waiting() {
            let Some(place) = self.fleet.next_idle() else { return };
            let mut batch = Vec::with_capacity(limit.min(self.waiting.iter().map(VecDeque::len).sum()));
            for jobs in &mut self.waiting {
                let count = jobs.len().min(limit - batch.len());
                batch.extend(jobs.drain(..count));
            }
            let takes = self.times.time_of_batch(batch.iter().map(|job| job.work).sum());
            let (number, life) = self.fleet.begin_batch(place, batch, takes);
            let event = Event { at: self.now + takes, kind: EventKind::Ended, number, life };
            self.events.push(Reverse(event));
        }
    }

    /// Starts or stops workers until `wanted` remain.
    fn resize(&mut self, wanted: u32) {
        let wanted = wanted as usize;
        self.outcome.cold_starts += u32::from(self.fleet.remaining() == 0 && wanted > 0);
        while self.fleet.remaining() < wanted {
            let (number, registers) = self.fleet.start(self.now);
            self.outcome.starts += 1;
            let event = Event { at: registers, kind: EventKind::Registered, number, life: 0 };
            self.events.push(Reverse(event));
        }
        while self.fleet.remaining() > wanted {
            let Some(place) = self.fleet.victim(self.now) else { return };
            if self.fleet.state(place) == PoolWorkerState::Busy {
                self.fleet.drain(place);
            } else {
                self.stop(place);
            }
        }
    }

    fn stop(&mut self, place: usize) {
        self.outcome.worker_time += self.fleet.stop(place, self.now);
    }
}

#[cfg(test)]
mod tests;
