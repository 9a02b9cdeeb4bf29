//! The oracle: a cheap schedule of workers for a trace that is known in advance.

use std::time::Duration;

use super::decider::Decider;
use super::outcome::Outcome;
use super::pool;
use super::trace::Trace;
use super::view::View;
use super::worker::Worker;

/// The name of the oracle's run. The costs of the policies are compared with it.
pub const ORACLE: &str = "oracle";

/// A schedule has one number of workers per step.
const STEP: Duration = Duration::from_secs(1);

/// The lengths of the intervals from which workers are removed, in steps.
const INTERVALS: [usize; 9] = [1920, 960, 480, 240, 120, 60, 30, 15, 8];

/// Searches a cheap schedule for a trace that is known in advance: a number of ready workers for every second.
///
/// The search starts with a schedule that has enough workers. It removes workers over shorter and shorter intervals as
/// long as the objective is reached. A fluid model of the pool decides that (jobs in order, workers with the throughput
/// of full batches). The simulation confirms the result, so the schedule is feasible. A cheaper one may exist.
pub struct Oracle<'a> {
    trace: &'a Trace,
    worker: Worker,
    objective: Duration,
    /// The share of jobs that must end within the objective.
    share: f64,
    /// The items that arrive in each step.
    arrivals: Vec<f64>,
}

/// A lower bound of the cost of any schedule: all items in full batches, and one start.
pub fn bound(trace: &Trace, worker: Worker) -> Duration {
    let items: f64 = trace.jobs.iter().map(|job| job.work).sum();
    let start = if trace.jobs.is_empty() { Duration::ZERO } else { worker.cold_start };
    start + Duration::from_secs_f64(items / worker.batch_time().throughput())
}

impl<'a> Oracle<'a> {
    /// An oracle for one trace.
    pub fn new(trace: &'a Trace, worker: Worker, objective: Duration, share: f64) -> Self {
        // The last jobs end after the trace.
        let simulated = trace.length + worker.cold_start + 2 * objective;
        let steps = simulated.as_secs_f64().ceil() as usize + 1;
        let mut arrivals = vec![0.0; steps];
        for job in &trace.jobs {
            if let Some(step) = arrivals.get_mut(job.at.as_secs() as usize) {
                *step += job.work;
            }
        }
        Self { trace, worker, objective, share, arrivals }
    }

    /// The outcome of the cheapest schedule found. `None`: no schedule reaches the objective.
    pub fn outcome(&self) -> Option<Outcome> {
        let full = self.worker.batch_time().full_seconds();
        let mut best: Option<Outcome> = None;
        // The fluid model has no batches. So the search tries several values for their part of the objective and for
        // the late jobs that they cause.
        for slack in [1.0, 2.0].map(|batches| self.objective.as_secs_f64() - batches * full) {
            for margin in [-0.06, -0.04, -0.02, -0.01, 0.0, 0.01, 0.02, 0.04] {
                let Some(ready) = self.cheapest(slack, (self.share + margin).min(1.0)) else { continue };
                let mut schedule = Schedule::new(&ready, self.worker.cold_start);
                let outcome = pool::run(self.trace, self.worker, self.objective, &mut schedule);
                if outcome.attainment() < self.share {
                    continue;
                }
                if best.as_ref().is_none_or(|best| outcome.worker_time < best.worker_time) {
                    best = Some(outcome);
                }
                break;
            }
        }
        best
    }

    fn cheapest(&self, slack: f64, share: f64) -> Option<Vec<u32>> {
        // With fewer workers at the beginning, the first backlog ends more slowly. This is sufficient if those jobs may
        // be late.
        let mut ready = [false, true]
            .map(|clears_at_once| self.ample_schedule(clears_at_once))
            .into_iter()
            .find(|ready| self.share_in_time(ready, slack) >= share)?;
        let steps = ready.len();
        // Long intervals first, because they save the most.
        for interval in INTERVALS.iter().chain(&INTERVALS) {
            for _ in 0..6 {
                let mut improved = false;
                for from in (0..steps).step_by(interval / 2) {
                    improved |= self.remove_worker(&mut ready, from, (from + interval).min(steps), slack, share);
                }
                if !improved {
                    break;
                }
            }
        }
        Some(ready)
    }

    /// Removes a worker from an interval if that is cheaper and the objective is still reached. Returns whether it did.
    fn remove_worker(&self, ready: &mut [u32], from: usize, until: usize, slack: f64, share: f64) -> bool {
        let before = ready[from..until].to_vec();
        let cost = self.cost(ready, from, until);
        for number in &mut ready[from..until] {
            *number = number.saturating_sub(1);
        }
        let is_better = self.cost(ready, from, until) < cost && self.share_in_time(ready, slack) >= share;
        if !is_better {
            ready[from..until].copy_from_slice(&before);
        }
        is_better
    }

    /// A schedule with enough workers for the arrivals around each step. The first worker is ready after a cold start.
    /// With `clears_at_once`, more workers follow then, which end the backlog at once.
    fn ample_schedule(&self, clears_at_once: bool) -> Vec<u32> {
        let throughput = self.worker.batch_time().throughput();
        let steps = self.arrivals.len();
        let rate = |step: usize| {
            let near = &self.arrivals[step.saturating_sub(2)..(step + 3).min(steps)];
            near.iter().sum::<f64>() / near.len() as f64
        };
        let highest = |step: usize| (step.saturating_sub(3)..(step + 4).min(steps)).map(rate).fold(0.0, f64::max);
        let enough = |rate: f64| (1.1 * rate / throughput).ceil() as u32 + u32::from(rate > 0.0);
        let mut ready: Vec<u32> = (0..steps).map(|step| enough(highest(step))).collect();
        if !clears_at_once {
            return ready;
        }
        let ahead = (self.worker.cold_start.as_secs() as usize).min(steps);
        let backlog: f64 = self.arrivals[..ahead].iter().sum();
        for number in ready.iter_mut().skip(ahead).take(self.objective.as_secs() as usize + 1) {
            *number += enough(backlog / self.objective.as_secs_f64().max(1.0));
        }
        ready
    }

    /// The worker time of an interval, in steps. A worker starts one cold start earlier than it is ready.
    fn cost(&self, ready: &[u32], from: usize, until: usize) -> u64 {
        let ahead = self.worker.cold_start.as_secs() as usize;
        let from = from.saturating_sub(ahead);
        started_workers(ready, ahead, from, until).map(u64::from).sum()
    }

    /// The share of jobs that end in time in the fluid model.
    fn share_in_time(&self, ready: &[u32], slack: f64) -> f64 {
        let throughput = self.worker.batch_time().throughput();
        let ahead = self.worker.cold_start.as_secs() as usize;
        // The first worker is ready after a cold start.
        let ready_at = |step: usize| if step < ahead { 0 } else { ready[step] };
        let deadline = |step: usize| {
            let grace = if ready_at(step) == 0 { ahead as f64 } else { 0.0 };
            step as f64 + slack + grace
        };
        let (mut late, mut total) = (0.0, 0.0);
        // The first step with unfinished items, and their number.
        let (mut head, mut unfinished) = (0, self.arrivals.first().copied().unwrap_or(0.0));
        for step in 0..ready.len() {
            total += self.arrivals[step];
            let mut done = f64::from(ready_at(step)) * throughput;
            while head <= step {
                let part = unfinished.min(done);
                if deadline(head) < step as f64 {
                    late += part;
                }
                done -= part;
                unfinished -= part;
                if unfinished > 0.0 {
                    break;
                }
                head += 1;
                unfinished = self.arrivals.get(head).copied().unwrap_or(0.0);
            }
        }
        let left: f64 = unfinished + self.arrivals.iter().skip(head + 1).sum::<f64>();
        if total > 0.0 { 1.0 - (late + left) / total } else { 1.0 }
    }
}

/// The number of started workers per step: the largest number of ready workers within the next cold start.
fn started_workers(ready: &[u32], ahead: usize, from: usize, until: usize) -> impl Iterator<Item = u32> {
    (from..until).map(move |step| {
        let upcoming = &ready[step..(step + ahead + 1).min(ready.len())];
        upcoming.iter().copied().max().unwrap_or(0)
    })
}

/// Follows a schedule. After its end one worker stays until all jobs have ended.
struct Schedule {
    started: Vec<u32>,
    next: usize,
}

impl Schedule {
    fn new(ready: &[u32], cold_start: Duration) -> Self {
        let ahead = cold_start.as_secs() as usize;
        Self { started: started_workers(ready, ahead, 0, ready.len()).collect(), next: 0 }
    }
}

impl Decider for Schedule {
    fn due(&self) -> Duration {
        STEP * self.next as u32
    }

    fn decide(&mut self, view: &View) -> u32 {
        let planned = self.started.get(self.next).copied();
        self.next += 1;
        let last = u32::from(view.waiting + view.leased > 0);
        planned.unwrap_or(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Arrival, Pattern};

    const SECOND: Duration = Duration::from_secs(1);

    /// 40 items per second in full batches.
    fn worker() -> Worker {
        let (batch_base, batch_item) = (Duration::from_millis(80), Duration::from_millis(20));
        Worker { cold_start: SECOND * 60, batch_base, batch_item, batch_limit: 16 }
    }

    #[test]
    fn the_oracle_is_ready_for_a_burst_and_costs_little_more_than_the_work() {
        let trace = Pattern::Burst { rate: 150.0, from: SECOND * 300, until: SECOND * 900 }.trace(SECOND * 1200, 1);
        let outcome = Oracle::new(&trace, worker(), SECOND * 5, 0.95).outcome().unwrap();
        assert_eq!(outcome.latencies.len(), trace.jobs.len());
        assert!(outcome.attainment() >= 0.95, "{}", outcome.attainment());
        let ratio = outcome.worker_time.as_secs_f64() / bound(&trace, worker()).as_secs_f64();
        assert!((1.0..1.25).contains(&ratio), "{ratio}");
    }

    #[test]
    fn no_run_costs_less_than_the_bound() {
        for (seed, share) in [(1, 0.5), (2, 0.9), (3, 1.0)] {
            let trace = Pattern::OnOff { rate: 60.0, on: SECOND * 120, off: SECOND * 240 }.trace(SECOND * 1800, seed);
            let Some(outcome) = Oracle::new(&trace, worker(), SECOND * 10, share).outcome() else { continue };
            assert!(outcome.worker_time >= bound(&trace, worker()), "{seed}");
        }
    }

    #[test]
    fn a_job_at_the_beginning_ends_after_the_cold_start_by_which_its_limit_is_longer() {
        let trace = Trace { jobs: vec![Arrival { at: Duration::ZERO, work: 1.0 }], length: SECOND };
        let outcome = Oracle::new(&trace, worker(), SECOND * 5, 0.95).outcome().unwrap();
        assert_eq!((outcome.within, outcome.starts), (1, 1));
        assert!(outcome.worker_time < SECOND * 70, "{:?}", outcome.worker_time);
    }

    #[test]
    fn an_unreachable_objective_has_no_oracle() {
        let trace = Pattern::Poisson { rate: 5.0 }.trace(SECOND * 300, 1);
        // A batch of one takes a tenth of a second.
        assert_eq!(Oracle::new(&trace, worker(), Duration::from_millis(50), 0.95).outcome(), None);
    }
}
