//! The cheapest workers that somebody who knows the trace can find.

use std::time::Duration;

use super::decider::Decider;
use super::outcome::Outcome;
use super::pool;
use super::trace::Trace;
use super::view::View;
use super::worker::Worker;

/// The name of the run that knew the trace beforehand: what the others' costs are compared with.
pub const ORACLE: &str = "oracle";

/// A schedule has a number of workers for each of these.
const STEP: Duration = Duration::from_secs(1);

/// For how long at a time workers are taken away, in steps.
const SPELLS: [usize; 9] = [1920, 960, 480, 240, 120, 60, 30, 15, 8];

/// What a clairvoyant does: the number of workers that are ready, second by second.
///
/// It is found by taking workers away from a schedule that has enough of them, over ever shorter spells, as long as the
/// objective is reached. That is judged by a fluid model of the pool (jobs in order, a worker's throughput in full batches)
/// and the result by the simulation itself, so what is returned can be done; there may be something cheaper still.
pub struct Oracle<'a> {
    trace: &'a Trace,
    worker: Worker,
    objective: Duration,
    /// The share of jobs that must end within the objective.
    share: f64,
    /// Items that arrive in each step.
    arrivals: Vec<f64>,
}

/// What it costs at least, whatever is known: every item done in full batches, and one start.
pub fn bound(trace: &Trace, worker: Worker) -> Duration {
    let items: f64 = trace.jobs.iter().map(|job| job.work).sum();
    let start = if trace.jobs.is_empty() { Duration::ZERO } else { worker.cold_start };
    start + Duration::from_secs_f64(items / worker.curve().throughput())
}

impl<'a> Oracle<'a> {
    /// For one trace.
    pub fn new(trace: &'a Trace, worker: Worker, objective: Duration, share: f64) -> Self {
        // What comes last is done after the trace is over.
        let watched = trace.length + worker.cold_start + 2 * objective;
        let steps = watched.as_secs_f64().ceil() as usize + 1;
        let mut arrivals = vec![0.0; steps];
        for job in &trace.jobs {
            if let Some(step) = arrivals.get_mut(job.at.as_secs() as usize) {
                *step += job.work;
            }
        }
        Self { trace, worker, objective, share, arrivals }
    }

    /// The cheapest schedule that was found, and what comes of it. `None`: with none of them is the objective reached.
    pub fn outcome(&self) -> Option<Outcome> {
        let full = self.worker.curve().full_seconds();
        let mut best: Option<Outcome> = None;
        // The fluid model knows nothing of batches: how much of the objective they take, and how many jobs more are late for
        // them, is tried out.
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
        // With fewer at the beginning, what gathers before anybody can be ready is worked off by and by, if it may be late.
        let mut ready = [false, true]
            .map(|hurries| self.enough(hurries))
            .into_iter()
            .find(|ready| self.attained(ready, slack) >= share)?;
        let steps = ready.len();
        // What spares most for what it costs first: of each length of spells the whole, before shorter ones.
        for spell in SPELLS.iter().chain(&SPELLS) {
            for _ in 0..6 {
                let mut improved = false;
                for from in (0..steps).step_by(spell / 2) {
                    improved |= self.spare(&mut ready, from, (from + spell).min(steps), slack, share);
                }
                if !improved {
                    break;
                }
            }
        }
        Some(ready)
    }

    /// Takes a worker away for a spell, if that spares something and the objective is still reached; whether it did.
    fn spare(&self, ready: &mut [u32], from: usize, until: usize, slack: f64, share: f64) -> bool {
        let before = ready[from..until].to_vec();
        let cost = self.cost(ready, from, until);
        for number in &mut ready[from..until] {
            *number = number.saturating_sub(1);
        }
        let is_better = self.cost(ready, from, until) < cost && self.attained(ready, slack) >= share;
        if !is_better {
            ready[from..until].copy_from_slice(&before);
        }
        is_better
    }

    /// As many in each step as its neighbourhood needs, with room to spare. Nobody is ready sooner than a cold start after the
    /// beginning; whether what has gathered until then is done at once.
    fn enough(&self, hurries: bool) -> Vec<u32> {
        let throughput = self.worker.curve().throughput();
        let steps = self.arrivals.len();
        let need = |step: usize| {
            let near = &self.arrivals[step.saturating_sub(2)..(step + 3).min(steps)];
            near.iter().sum::<f64>() / near.len() as f64
        };
        let most = |step: usize| (step.saturating_sub(3)..(step + 4).min(steps)).map(need).fold(0.0, f64::max);
        let enough = |rate: f64| (1.1 * rate / throughput).ceil() as u32 + u32::from(rate > 0.0);
        let mut ready: Vec<u32> = (0..steps).map(|step| enough(most(step))).collect();
        if !hurries {
            return ready;
        }
        let ahead = (self.worker.cold_start.as_secs() as usize).min(steps);
        let gathered: f64 = self.arrivals[..ahead].iter().sum();
        for number in ready.iter_mut().skip(ahead).take(self.objective.as_secs() as usize + 1) {
            *number += enough(gathered / self.objective.as_secs_f64().max(1.0));
        }
        ready
    }

    /// Worker time around a spell, in steps: a worker is there a cold start before it is ready.
    fn cost(&self, ready: &[u32], from: usize, until: usize) -> u64 {
        let ahead = self.worker.cold_start.as_secs() as usize;
        let from = from.saturating_sub(ahead);
        present(ready, ahead, from, until).map(u64::from).sum()
    }

    /// The share of jobs that end in time, as far as a fluid has it.
    fn attained(&self, ready: &[u32], slack: f64) -> f64 {
        let throughput = self.worker.curve().throughput();
        let ahead = self.worker.cold_start.as_secs() as usize;
        // Nobody is ready sooner than a cold start after the beginning.
        let is_ready = |step: usize| if step < ahead { 0 } else { ready[step] };
        let by = |step: usize| {
            let grace = if is_ready(step) == 0 { ahead as f64 } else { 0.0 };
            step as f64 + slack + grace
        };
        let (mut late, mut total) = (0.0, 0.0);
        // The first step of which something is not done yet, and how much.
        let (mut head, mut rest) = (0, self.arrivals.first().copied().unwrap_or(0.0));
        for step in 0..ready.len() {
            total += self.arrivals[step];
            let mut done = f64::from(is_ready(step)) * throughput;
            while head <= step {
                let part = rest.min(done);
                if by(head) < step as f64 {
                    late += part;
                }
                done -= part;
                rest -= part;
                if rest > 0.0 {
                    break;
                }
                head += 1;
                rest = self.arrivals.get(head).copied().unwrap_or(0.0);
            }
        }
        let left: f64 = rest + self.arrivals.iter().skip(head + 1).sum::<f64>();
        if total > 0.0 { 1.0 - (late + left) / total } else { 1.0 }
    }
}

/// How many workers must be there, step by step, so that as many are ready: the most of the cold start to come.
fn present(ready: &[u32], ahead: usize, from: usize, until: usize) -> impl Iterator<Item = u32> {
    (from..until).map(move |step| {
        let to_come = &ready[step..(step + ahead + 1).min(ready.len())];
        to_come.iter().copied().max().unwrap_or(0)
    })
}

/// A schedule that is followed to the end; then whoever is needed to do the rest stays.
struct Schedule {
    present: Vec<u32>,
    next: usize,
}

impl Schedule {
    fn new(ready: &[u32], cold_start: Duration) -> Self {
        let ahead = cold_start.as_secs() as usize;
        Self { present: present(ready, ahead, 0, ready.len()).collect(), next: 0 }
    }
}

impl Decider for Schedule {
    fn due(&self) -> Duration {
        STEP * self.next as u32
    }

    fn decide(&mut self, view: &View) -> u32 {
        let planned = self.present.get(self.next).copied();
        self.next += 1;
        let rest = u32::from(view.waiting + view.leased > 0);
        planned.unwrap_or(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Arrival, Pattern};

    const SECOND: Duration = Duration::from_secs(1);

    /// 40 items a second in full batches.
    fn worker() -> Worker {
        let (batch_base, batch_item) = (Duration::from_millis(80), Duration::from_millis(20));
        Worker { cold_start: SECOND * 60, batch_base, batch_item, batch_limit: 16 }
    }

    #[test]
    fn it_is_there_when_a_burst_comes_and_costs_little_more_than_the_work() {
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
    fn a_job_at_the_beginning_is_done_after_the_cold_start_that_it_is_granted() {
        let trace = Trace { jobs: vec![Arrival { at: Duration::ZERO, work: 1.0 }], length: SECOND };
        let outcome = Oracle::new(&trace, worker(), SECOND * 5, 0.95).outcome().unwrap();
        assert_eq!((outcome.within, outcome.starts), (1, 1));
        assert!(outcome.worker_time < SECOND * 70, "{:?}", outcome.worker_time);
    }

    #[test]
    fn an_objective_that_nobody_can_reach_has_no_oracle() {
        let trace = Pattern::Poisson { rate: 5.0 }.trace(SECOND * 300, 1);
        // A batch of one takes a tenth of a second.
        assert_eq!(Oracle::new(&trace, worker(), Duration::from_millis(50), 0.95).outcome(), None);
    }
}
