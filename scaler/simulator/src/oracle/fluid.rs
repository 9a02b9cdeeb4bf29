//! A fluid model of a pool: jobs in order, and workers with the throughput of full batches.

use std::time::Duration;

use crate::conditions::Objectives;
use crate::trace::Trace;
use crate::worker::Worker;

/// Two states of the queue are equal if they differ by less work than this, in steps of a worker.
const EQUAL: f64 = 1e-9;

/// The arrivals of the jobs that have an objective. All classes have the shortest objective.
pub(super) struct Fluid {
    /// The work that arrives in each step, in steps of a worker.
    demand: Vec<f64>,
    /// The jobs that arrive in each step.
    jobs: Vec<f64>,
    total_jobs: f64,
    /// No worker is ready before this step.
    first_ready: usize,
}

/// The queue at the beginning of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
struct QueueState {
    /// The first step with unfinished work.
    head: usize,
    /// Its unfinished work.
    unfinished: f64,
}

/// A schedule that reaches the objective, with the state of the queue in each step. So the effect of a change is
/// computed only until the queue is as it was.
pub(super) struct Plan<'a> {
    fluid: &'a Fluid,
    ready: Vec<u32>,
    slack: f64,
    states: Vec<QueueState>,
    /// The jobs that each step served too late. One more element: the jobs that remain at the end.
    late: Vec<f64>,
    total_late: f64,
    allowed_late: f64,
}

impl Fluid {
    pub(super) fn new(
        trace: &Trace,
        worker: Worker,
        objectives: &Objectives,
        step: Duration,
        steps: usize,
        first_ready: usize,
    ) -> Self {
        let (mut demand, mut jobs) = (vec![0.0; steps], vec![0.0; steps]);
        let base = worker.batch_base.as_secs_f64() / f64::from(worker.batch_limit.max(1));
        for job in trace.jobs.iter().filter(|job| objectives[job.class as usize].is_some()) {
            let place = (job.at.as_nanos() / step.as_nanos()) as usize;
            if let (Some(demand), Some(jobs)) = (demand.get_mut(place), jobs.get_mut(place)) {
                *demand += (base + worker.batch_item.as_secs_f64() * job.work) / step.as_secs_f64();
                *jobs += 1.0;
            }
        }
        let total_jobs = jobs.iter().sum();
        Self { demand, jobs, total_jobs, first_ready }
    }

    /// The work that arrives in each step, in steps of a worker.
    pub(super) fn demand(&self) -> &[f64] {
        &self.demand
    }

    /// The schedule as a plan, if it reaches the share.
    pub(super) fn plan(&self, ready: Vec<u32>, slack: f64, share: f64) -> Option<Plan<'_>> {
        let start = QueueState { head: 0, unfinished: self.demand.first().copied().unwrap_or(0.0) };
        let steps = ready.len();
        let mut plan = Plan {
            fluid: self,
            ready,
            slack,
            states: vec![start; steps + 1],
            late: vec![0.0; steps + 1],
            total_late: 0.0,
            allowed_late: self.total_jobs * (1.0 - share) + EQUAL,
        };
        for step in 0..steps {
            (plan.states[step + 1], plan.late[step]) = plan.serve(step, plan.states[step]);
        }
        plan.late[steps] = plan.left(plan.states[steps]);
        plan.total_late = plan.late.iter().sum();
        (plan.total_late <= plan.allowed_late).then_some(plan)
    }
}

impl Plan<'_> {
    pub(super) fn ready(&self) -> &[u32] {
        &self.ready
    }

    pub(super) fn into_ready(self) -> Vec<u32> {
        self.ready
    }

    /// The state after a step, and the jobs that it served too late.
    fn serve(&self, step: usize, QueueState { mut head, mut unfinished }: QueueState) -> (QueueState, f64) {
        let mut done = if step < self.fluid.first_ready { 0.0 } else { f64::from(self.ready[step]) };
        let mut late = 0.0;
        while head <= step {
            let part = unfinished.min(done);
            if head as f64 + self.slack < step as f64 && part > 0.0 {
                late += self.fluid.jobs[head] * part / self.fluid.demand[head];
            }
            done -= part;
            unfinished -= part;
            if unfinished > 0.0 {
                break;
            }
            head += 1;
            unfinished = self.fluid.demand.get(head).copied().unwrap_or(0.0);
        }
        (QueueState { head, unfinished }, late)
    }

    /// The jobs that a queue still has.
    fn left(&self, QueueState { head, unfinished }: QueueState) -> f64 {
        let of_head = match self.fluid.demand.get(head) {
            Some(demand) if *demand > 0.0 => self.fluid.jobs[head] * unfinished / demand,
            _ => 0.0,
        };
        of_head + self.fluid.jobs.iter().skip(head + 1).sum::<f64>()
    }

    /// Removes a worker from an interval if `is_cheaper` accepts the schedule and the objective is still reached.
    /// Returns whether it did.
    pub(super) fn remove_worker(&mut self, from: usize, until: usize, is_cheaper: impl FnOnce(&[u32]) -> bool) -> bool {
        let before = self.ready[from..until].to_vec();
        for number in &mut self.ready[from..until] {
            *number = number.saturating_sub(1);
        }
        if !is_cheaper(&self.ready) || !self.follow(from, until) {
            self.ready[from..until].copy_from_slice(&before);
            return false;
        }
        true
    }

    /// Computes the states after a change of the interval. Returns whether the objective is still reached. If not, the
    /// states remain.
    ///
    /// With fewer workers each job ends later or at the same time. So the additional late jobs up to a step are at least
    /// the difference of the sums up to this step, and the computation stops early.
    fn follow(&mut self, from: usize, until: usize) -> bool {
        let steps = self.ready.len();
        let mut changes = Vec::new();
        let mut more_late = 0.0;
        let mut state = self.states[from];
        for step in from..steps {
            let (next, late) = self.serve(step, state);
            more_late += late - self.late[step];
            if self.total_late + more_late > self.allowed_late {
                return false;
            }
            changes.push((next, late));
            state = next;
            let old = self.states[step + 1];
            if step + 1 >= until && old.head == next.head && (old.unfinished - next.unfinished).abs() < EQUAL {
                break;
            }
        }
        let is_to_the_end = from + changes.len() == steps;
        let left = if is_to_the_end { self.left(state) } else { self.late[steps] };
        more_late += left - self.late[steps];
        if self.total_late + more_late > self.allowed_late {
            return false;
        }
        self.late[steps] = left;
        self.total_late += more_late;
        for (offset, (next, late)) in changes.into_iter().enumerate() {
            self.states[from + offset + 1] = next;
            self.late[from + offset] = late;
        }
        true
    }
}
