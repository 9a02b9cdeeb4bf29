use queue::Class;

use super::*;
use crate::conditions::for_all_classes;
use crate::trace::{Arrival, Pattern};

const SECOND: Duration = Duration::from_secs(1);

/// 40 items per second in full batches.
fn worker() -> Worker {
    let (batch_base, batch_item) = (Duration::from_millis(80), Duration::from_millis(20));
    Worker { cold_start: SECOND * 60, batch_base, batch_item, batch_limit: 16 }
}

/// The oracle for one objective under ideal conditions.
fn oracle(trace: &Trace, objective: Duration, share: f64) -> Option<Outcome> {
    Oracle::new(trace, worker(), &for_all_classes(objective), &Conditions::default(), share).outcome()
}

fn lower_bound(trace: &Trace, objective: Duration, share: f64) -> Duration {
    bound(trace, worker(), &for_all_classes(objective), share)
}

#[test]
fn the_oracle_is_ready_for_a_burst_and_costs_little_more_than_the_work() {
    let trace = Pattern::Burst { rate: 150.0, from: SECOND * 300, until: SECOND * 900 }.trace(SECOND * 1200, 1);
    let outcome = oracle(&trace, SECOND * 5, 0.95).unwrap();
    assert_eq!(outcome.latencies.len(), trace.jobs.len());
    assert!(outcome.attainment() >= 0.95, "{}", outcome.attainment());
    let ratio = outcome.worker_time.as_secs_f64() / lower_bound(&trace, SECOND * 5, 0.95).as_secs_f64();
    assert!((1.0..1.25).contains(&ratio), "{ratio}");
}

#[test]
fn no_run_costs_less_than_the_bound() {
    for (seed, share) in [(1, 0.5), (2, 0.9), (3, 1.0)] {
        let trace = Pattern::OnOff { rate: 60.0, on: SECOND * 120, off: SECOND * 240 }.trace(SECOND * 1800, seed);
        let Some(outcome) = oracle(&trace, SECOND * 10, share) else { continue };
        assert!(outcome.worker_time >= lower_bound(&trace, SECOND * 10, share), "{seed}");
    }
}

#[test]
fn a_job_at_the_beginning_of_a_pool_without_workers_cannot_be_in_time() {
    let job = Arrival { at: Duration::ZERO, work: 1.0, class: Class::Standard };
    let trace = Trace { jobs: vec![job], length: SECOND };
    assert_eq!(oracle(&trace, SECOND * 5, 0.95), None);
    let outcome = oracle(&trace, SECOND * 65, 0.95).unwrap();
    assert_eq!((outcome.within, outcome.starts), (1, 1));
}

#[test]
fn the_oracle_is_not_more_expensive_than_a_constant_number_under_a_load_with_pauses() {
    let trace = Pattern::OnOff { rate: 60.0, on: SECOND * 300, off: SECOND * 600 }.trace(SECOND * 7200, 4);
    let outcome = oracle(&trace, SECOND * 10, 0.95).unwrap();
    let fixed = trace.length * 2;
    assert!(outcome.worker_time < fixed, "{:?} {fixed:?}", outcome.worker_time);
}

#[test]
fn an_unreachable_objective_has_no_oracle() {
    let trace = Pattern::Poisson { rate: 5.0 }.trace(SECOND * 300, 1);
    // A batch of one takes a tenth of a second.
    assert_eq!(oracle(&trace, Duration::from_millis(50), 0.95), None);
}
