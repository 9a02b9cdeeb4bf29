//! The oracle: a cheap schedule of workers for a trace that is known in advance.

use std::collections::VecDeque;
use std::time::Duration;

use super::conditions::{Conditions, Objectives};
use super::decider::Decider;
use super::outcome::Outcome;
use super::pool;
use super::trace::Trace;
use super::view::View;
use super::worker::Worker;

pub use bound::bound;
use fluid::Fluid;

mod bound;
mod fluid;

/// The name of the oracle's run.
pub const ORACLE: &str = "oracle";

/// A schedule has one number of workers per step, and at most this number of steps.
const MAX_STEPS: u32 = 20_000;

/// The lengths of the intervals from which workers are removed, in steps.
const INTERVALS: [usize; 9] = [1920, 960, 480, 240, 120, 60, 30, 15, 8];

/// Searches a cheap schedule for a trace that is known in advance: a number of ready workers for every step.
///
/// The search starts with a schedule that has enough workers. It removes workers over shorter and shorter intervals as
/// long as the objective is reached. A fluid model of the pool decides that (jobs in order, workers with the throughput
/// of full batches). The simulation confirms the result, so the schedule is feasible. A cheaper one may exist.
pub struct Oracle<'a> {
    trace: &'a Trace,
    worker: Worker,
    objectives: Objectives,
    conditions: Conditions,
    /// The share of jobs that must end within the objective.
    share: f64,
    step: Duration,
    /// The steps from the request for a worker until it is ready.
    ahead: usize,
    fluid: Fluid,
}

impl<'a> Oracle<'a> {
    /// An oracle for one trace.
    pub fn new(trace: &'a Trace, worker: Worker, objectives: &Objectives, conditions: &Conditions, share: f64) -> Self {
        let objective = objectives.iter().flatten().min().copied().unwrap_or_default();
        let step = Duration::from_secs((trace.length / MAX_STEPS).as_secs() + 1);
        // The schedule knows the distribution of the provisioning time, not the time of each worker.
        let provisioning = conditions.provisioning.median.mul_f64(conditions.provisioning.spread.max(1.0));
        let wait = worker.cold_start + provisioning;
        let ahead = wait.div_duration_f64(step).ceil() as usize;
        // The last jobs end after the trace.
        let steps = (trace.length + wait + 2 * objective).div_duration_f64(step).ceil() as usize + 1;
        let fluid = Fluid::new(trace, worker, objectives, step, steps, ahead);
        Self { trace, worker, objectives: *objectives, conditions: *conditions, share, step, ahead, fluid }
    }

    /// The outcome of the cheapest schedule found. `None`: no schedule reaches the objective.
    pub fn outcome(&self) -> Option<Outcome> {
        let full = self.worker.time_of_batch(f64::from(self.worker.batch_limit) * self.trace.mean_work());
        let objective = self.objectives.iter().flatten().min().copied().unwrap_or_default();
        let mut best: Option<Outcome> = None;
        // The fluid model has no batches. So the search tries several values for their part of the objective and for
        // the late jobs that they cause.
        for slack in [1, 2].map(|batches| objective.saturating_sub(full * batches)) {
            for margin in [-0.03, -0.01, 0.0, 0.01, 0.03] {
                let slack = slack.div_duration_f64(self.step);
                let Some(ready) = self.cheapest(slack, (self.share + margin).min(1.0)) else { continue };
                let mut schedule = Schedule::new(&ready, self.ahead, self.step);
                let outcome =
                    pool::run_under(self.trace, self.worker, &self.objectives, &self.conditions, &mut schedule);
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

    /// A cheap schedule that reaches the share in the fluid model.
    fn cheapest(&self, slack: f64, share: f64) -> Option<Vec<u32>> {
        let mut plan = [self.even_schedule(slack), self.ample_schedule()]
            .into_iter()
            .filter_map(|ready| self.fluid.plan(ready, slack, share))
            .min_by_key(|plan| self.cost(plan.ready(), 0, plan.ready().len()))?;
        let steps = plan.ready().len();
        // Long intervals first, because they save the most.
        for interval in INTERVALS.iter().chain(&INTERVALS) {
            for _ in 0..6 {
                let mut improved = false;
                for from in (0..steps).step_by(interval / 2) {
                    let until = (from + interval).min(steps);
                    if plan.ready()[from..until].iter().all(|number| *number == 0) {
                        continue;
                    }
                    let before = self.cost(plan.ready(), from, until);
                    improved |= plan.remove_worker(from, until, |ready| self.cost(ready, from, until) < before);
                }
                if !improved {
                    break;
                }
            }
        }
        Some(plan.into_ready())
    }

    /// A schedule in which the arrivals of each step are served evenly within the slack. A worker that would be needed
    /// again within one cold start stays.
    fn even_schedule(&self, slack: f64) -> Vec<u32> {
        let window = (slack.floor() as usize).max(1);
        let demand = self.fluid.demand();
        let (mut sum, mut ready) = (0.0, Vec::with_capacity(demand.len()));
        for (step, arrived) in demand.iter().enumerate() {
            sum += arrived;
            if let Some(gone) = step.checked_sub(window) {
                sum -= demand[gone];
            }
            ready.push((sum / window as f64 - 1e-6).ceil().max(0.0) as u32);
        }
        // Of two needs within a cold start, the smaller one counts in between: a closing of the schedule.
        let forward: Vec<u32> = started_workers(&ready, self.ahead, 0, ready.len()).collect();
        let reversed: Vec<u32> = ready.iter().rev().copied().collect();
        let mut backward: Vec<u32> = started_workers(&reversed, self.ahead, 0, ready.len()).collect();
        backward.reverse();
        forward.iter().zip(&backward).map(|(one, other)| *one.min(other)).collect()
    }

    /// A schedule with more workers than the arrivals around each step need.
    fn ample_schedule(&self) -> Vec<u32> {
        let demand = self.fluid.demand();
        let steps = demand.len();
        let rate = |step: usize| {
            let near = &demand[step.saturating_sub(2)..(step + 3).min(steps)];
            near.iter().sum::<f64>() / near.len() as f64
        };
        let highest = |step: usize| (step.saturating_sub(3)..(step + 4).min(steps)).map(rate).fold(0.0, f64::max);
        let enough = |rate: f64| (1.1 * rate).ceil() as u32 + u32::from(rate > 0.0);
        let mut ready: Vec<u32> = (0..steps).map(|step| enough(highest(step))).collect();
        // The backlog of the first cold start ends soon.
        let ahead = self.ahead.min(steps);
        let backlog: f64 = demand[..ahead].iter().sum();
        for number in ready.iter_mut().skip(ahead).take(30) {
            *number += enough(backlog / 30.0);
        }
        ready
    }

    /// The worker time of an interval, in steps. A worker starts one cold start earlier than it is ready.
    fn cost(&self, ready: &[u32], from: usize, until: usize) -> u64 {
        let from = from.saturating_sub(self.ahead);
        started_workers(ready, self.ahead, from, until).map(u64::from).sum()
    }
}

/// The number of started workers per step: the largest number of ready workers within the next cold start.
fn started_workers(ready: &[u32], ahead: usize, from: usize, until: usize) -> impl Iterator<Item = u32> {
    // The steps of the window that no later step exceeds, the largest number first.
    let mut highest: VecDeque<usize> = VecDeque::new();
    let mut next = from;
    (from..until).map(move |step| {
        while next < (step + ahead + 1).min(ready.len()) {
            while highest.back().is_some_and(|last| ready[*last] <= ready[next]) {
                highest.pop_back();
            }
            highest.push_back(next);
            next += 1;
        }
        while highest.front().is_some_and(|first| *first < step) {
            highest.pop_front();
        }
        highest.front().map_or(0, |first| ready[*first])
    })
}

/// Follows a schedule. After its end one worker stays until all jobs have ended.
struct Schedule {
    started: Vec<u32>,
    step: Duration,
    next: usize,
}

impl Schedule {
    fn new(ready: &[u32], ahead: usize, step: Duration) -> Self {
        Self { started: started_workers(ready, ahead, 0, ready.len()).collect(), step, next: 0 }
    }
}

impl Decider for Schedule {
    fn due(&self) -> Duration {
        self.step * self.next as u32
    }

    fn decide(&mut self, view: &View) -> u32 {
        let planned = self.started.get(self.next).copied();
        self.next += 1;
        let is_over = planned.is_none() && view.waiting() + view.leased == 0;
        // Work of a class without objective is not in the fluid model. A worker does it when it is idle, or at the end.
        if is_over { 0 } else { planned.unwrap_or(1) }
    }
}

#[cfg(test)]
mod tests;
