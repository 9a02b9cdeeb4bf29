//! Under a constant load the number of workers becomes stable.

use std::time::Duration;

use policy::replicas::Rules;
use proptest::prelude::*;

use super::cases;
use super::loads::{defaults, even, metadata, recommended};
use crate::conditions::Conditions;
use crate::decider::decider;
use crate::pool::run;
use crate::trace::{Pattern, Trace};
use crate::worker::Worker;

/// The time after which every window has passed: cold start, replay, scale-down delay and the stabilization of the HPA.
const SETTLED: Duration = Duration::from_secs(70 * 60);
const WATCHED: Duration = Duration::from_secs(95 * 60);

/// Slow workers, so that a run has few jobs. Only the ratio of load and throughput matters.
fn any_slow_worker() -> impl Strategy<Value = Worker> {
    (1_u64..120, 50_u64..400, 50_u64..400, 1_u32..16).prop_map(|(cold_start, base, item, batch_limit)| Worker {
        cold_start: Duration::from_secs(cold_start),
        batch_base: Duration::from_millis(base),
        batch_item: Duration::from_millis(item),
        batch_limit,
    })
}

/// The successive numbers of workers, without repetitions, from `SETTLED` on.
fn numbers(trace: &Trace, worker: Worker, pairs: &[(&str, &str)], rules: Rules) -> Vec<u32> {
    let mut decider = decider(&metadata(pairs), rules, &Conditions::default()).unwrap();
    let outcome = run(trace, worker, Duration::from_secs(5), &mut *decider);
    let settled = outcome.series.iter().filter(|view| (SETTLED..WATCHED).contains(&view.now));
    let mut numbers: Vec<u32> = settled.map(|view| view.ready() + view.loading()).collect();
    numbers.dedup();
    numbers
}

/// How often a rise follows a fall, or a fall follows a rise.
fn turns(numbers: &[u32]) -> usize {
    numbers.windows(3).filter(|three| (three[0] < three[1]) != (three[1] < three[2])).count()
}

/// Two turns for each period in which no worker stops after a rise.
fn max_turns(hold: Duration) -> usize {
    2 * (WATCHED - SETTLED).div_duration_f64(hold).ceil() as usize
}

fn evenly(rate: f64) -> Trace {
    Trace { jobs: even(rate, Duration::ZERO, WATCHED).collect(), length: WATCHED }
}

/// The load in workers: from far below one to many.
fn any_demand() -> impl Strategy<Value = f64> {
    prop_oneof![0.005..0.1_f64, 0.1..1.0_f64, 1.0..10.0_f64]
}

/// Mode latency with an objective of more than three full batches, or mode rate with a target below the throughput.
///
/// In a pool near its capacity there are two batches at times, one of them running. If the slack of the objective is at
/// most two batches, the policy then wants one more worker. With that worker there is only one batch. Such a pool is
/// not stable.
fn any_mode(worker: Worker) -> impl Strategy<Value = [(&'static str, String); 2]> {
    let (throughput, full) = (worker.batch_time().throughput(), worker.batch_time().full_seconds());
    prop_oneof![
        (3.5..20.0_f64).prop_map(move |batches| {
            let milliseconds = (batches * full * 1000.0).ceil();
            [("mode", "latency".to_owned()), ("latency", format!("{milliseconds}ms"))]
        }),
        (0.3..0.8_f64).prop_map(move |share| {
            [("mode", "rate".to_owned()), ("jobsPerSecond", (throughput * share).to_string())]
        }),
    ]
}

fn any_worker_and_mode() -> impl Strategy<Value = (Worker, [(&'static str, String); 2])> {
    any_slow_worker().prop_flat_map(|worker| (Just(worker), any_mode(worker)))
}

fn rules(is_recommended: bool) -> Rules {
    if is_recommended { recommended() } else { defaults() }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn under_evenly_spaced_jobs_modes_latency_and_rate_become_stable(
        (worker, mode) in any_worker_and_mode(), demand in any_demand(), is_recommended in any::<bool>(),
    ) {
        let pairs = mode.each_ref().map(|(key, value)| (*key, &**value));
        let trace = evenly(worker.batch_time().throughput() * demand);
        let numbers = numbers(&trace, worker, &pairs, rules(is_recommended));
        prop_assert!(numbers.len() == 1 && numbers[0] > 0, "{numbers:?}");
    }
}

proptest! {
    #![proptest_config(cases(8))]

    /// Under a random load, no number of workers is right all the time. A window limits the number of turns to two per
    /// window. It is the HPA's window. The recommended behaviour has none, so there it is the window of the policy.
    /// (The maximum in 100 runs of 25 minutes was 5 turns with the defaults. With the recommended behaviour it was 9 in
    /// mode latency and 12 in mode rate.)
    #[test]
    fn under_random_jobs_modes_latency_and_rate_rarely_turn(
        (worker, mode) in any_worker_and_mode(),
        demand in any_demand(),
        is_recommended in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let pairs = mode.each_ref().map(|(key, value)| (*key, &**value));
        let trace = Pattern::Poisson { rate: worker.batch_time().throughput() * demand }.trace(WATCHED, seed);
        let numbers = numbers(&trace, worker, &pairs, rules(is_recommended));
        let hold = match (is_recommended, &*mode[0].1) {
            (false, _) => defaults().down.stabilization_window,
            (true, "latency") => Duration::from_secs(120),
            (true, _) => Duration::from_secs(60),
        };
        prop_assert!(turns(&numbers) <= max_turns(hold), "{numbers:?}");
    }

    /// A threshold on the backlog is not stable if no number of workers results in the backlog that requires this
    /// number. One worker fewer is too slow for the load, but the full number leaves almost no backlog. The HPA's
    /// window limits the number of turns. After a rise no worker stops within the window, so there are at most two
    /// turns per window.
    #[test]
    fn a_threshold_on_the_backlog_turns_only_as_often_as_the_window_allows(
        worker in any_slow_worker(),
        demand in any_demand(),
        value in 1_u32..50,
        is_even in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let rate = worker.batch_time().throughput() * demand;
        let trace = if is_even { evenly(rate) } else { Pattern::Poisson { rate }.trace(WATCHED, seed) };
        let numbers = numbers(&trace, worker, &[("value", &value.to_string())], defaults());
        prop_assert!(turns(&numbers) <= max_turns(defaults().down.stabilization_window), "{numbers:?}");
    }
}
