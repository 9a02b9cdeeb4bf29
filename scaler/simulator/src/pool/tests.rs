//! Single pools, job by job.

use policy::history::History;
use policy::replicas::{Observation, Rules};

use super::*;
use crate::conditions::Provisioning;
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
        if view.now > SECOND * 3600 && view.waiting() + view.leased == 0 { 0 } else { self.0 }
    }
}

fn at(milliseconds: u64) -> Arrival {
    Arrival { at: Duration::from_millis(milliseconds), work: 1.0, class: Class::Standard }
}

#[test]
fn a_job_waits_for_its_worker_to_load_and_for_the_batch_before_its_own() {
    let trace = Trace { jobs: vec![at(0), at(60_050), at(60_060)], length: SECOND * 70 };
    let outcome = run(&trace, worker(), SECOND * 5, &mut Constant(1, Duration::ZERO));
    // The worker is ready at 60 s. A batch of one job takes 100 ms, a batch of two 110 ms.
    let expected = [60_100, 50 + 110, 40 + 110].map(Duration::from_millis);
    assert_eq!(outcome.latencies, expected);
    // The first job is late, because the pool had no worker.
    assert_eq!((outcome.within, outcome.late_from_zero), (2, 1));
    assert_eq!((outcome.starts, outcome.cold_starts), (1, 1));
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
            if view.arrived > 0 && view.waiting() + view.leased == 0 && view.now > SECOND * 700 { 0 } else { self.1 }
        }
    }
    let trace = Pattern::Poisson { rate: 60.0 }.trace(SECOND * 600, 3);
    let outcome = run(&trace, worker(), SECOND * 5, &mut Erratic(Duration::ZERO, 1));
    assert_eq!(outcome.latencies.len(), trace.jobs.len());
    assert!(outcome.within > 0 && outcome.within < trace.jobs.len() as u64);
    let total: Duration =
        outcome.series.windows(2).map(|pair| SERIES_INTERVAL * (pair[0].ready() + pair[0].loading())).sum();
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
    assert!(outcome.series.iter().any(|view| view.ready() >= 3));
    assert!(outcome.series.last().is_some_and(|view| view.ready() + view.loading() <= 1));
}

/// A constant number of workers until an hour after the last job, with what the readings show.
fn readings(conditions: &Conditions, trace: &Trace, number: u32) -> Vec<View> {
    run_under(trace, worker(), &for_all_classes(SECOND * 5), conditions, &mut Constant(number, Duration::ZERO)).series
}

#[test]
fn a_worker_is_invisible_until_it_is_provisioned_and_costs_from_its_request() {
    let provisioning = Provisioning { median: SECOND * 120, spread: 1.0 };
    let conditions = Conditions { provisioning, ..Conditions::default() };
    let trace = Trace { jobs: vec![at(0)], length: SECOND * 10 };
    let mut constant = Constant(1, Duration::ZERO);
    let outcome = run_under(&trace, worker(), &for_all_classes(SECOND * 5), &conditions, &mut constant);
    let view = |second: u32| outcome.series.iter().find(|view| view.now == SECOND * second).unwrap();
    assert_eq!((view(60).provisioning, view(60).fleet.total()), (1, 0));
    assert_eq!((view(150).provisioning, view(150).loading()), (0, 1));
    assert_eq!((view(150).fleet.loading_for, view(185).ready()), (SECOND * 30, 1));
    assert_eq!(outcome.latencies, [SECOND * 180 + Duration::from_millis(100)]);
    assert_eq!(outcome.worker_time, SECOND * 3610);
}

#[test]
fn provisioning_times_spread_around_their_median_and_depend_on_the_seed_alone() {
    let provisioning = Provisioning { median: SECOND * 100, spread: 1.5 };
    let fates = |seed| {
        let conditions = Conditions { provisioning, seed, ..Conditions::default() };
        let mut times: Vec<Duration> = (1..1000).map(|number| conditions.fate(number).provisioning).collect();
        times.sort_unstable();
        times
    };
    let (one, same, other) = (fates(1), fates(1), fates(2));
    assert!(one == same && one != other);
    assert!((90.0..110.0).contains(&one[500].as_secs_f64()) && (135.0..165.0).contains(&one[840].as_secs_f64()));
}

#[test]
fn workers_that_learn_do_not_show_the_throughput_of_full_batches_under_a_small_load() {
    let trace = Pattern::Poisson { rate: 2.0 }.trace(SECOND * 600, 1);
    let throughput = |learns| {
        let series = readings(&Conditions { learns, ..Conditions::default() }, &trace, 1);
        let view = series.iter().find(|view| view.now == SECOND * 500).unwrap();
        view.fleet.measurements.batch_time.unwrap().throughput()
    };
    assert!((throughput(false) - 78.0).abs() < 1.0, "{}", throughput(false));
    assert!(throughput(true) < 25.0, "{}", throughput(true));
}

#[test]
fn urgent_classes_are_served_first_and_a_class_without_objective_is_not_judged() {
    let job = |class| Arrival { class, ..at(0) };
    let jobs = [[job(Class::Batch); 32].as_slice(), &[job(Class::Premium); 32]].concat();
    let trace = Trace { jobs, length: SECOND };
    let objectives = [Some(SECOND * 61), Some(SECOND * 61), None];
    let mut constant = Constant(1, Duration::ZERO);
    let outcome = run_under(&trace, worker(), &objectives, &Conditions::default(), &mut constant);
    assert_eq!((outcome.latencies.len(), outcome.judged, outcome.within), (64, 32, 32));
}

#[test]
fn a_crashed_worker_loads_again_and_its_jobs_end_once() {
    let conditions = Conditions { crashes_after: Some(SECOND * 200), seed: 3, ..Conditions::default() };
    let trace = Pattern::Poisson { rate: 20.0 }.trace(SECOND * 1800, 1);
    let mut constant = Constant(2, Duration::ZERO);
    let outcome = run_under(&trace, worker(), &for_all_classes(SECOND * 5), &conditions, &mut constant);
    assert_eq!((outcome.latencies.len(), outcome.starts), (trace.jobs.len(), 2));
    let crashes = outcome.series.windows(2).filter(|pair| pair[1].loading() > pair[0].loading()).count();
    assert!(crashes >= 5, "{crashes}");
}

#[test]
fn a_worker_that_never_becomes_ready_loads_until_it_is_stopped() {
    let conditions = Conditions { never_ready: 1.0, ..Conditions::default() };
    let series = readings(&conditions, &Trace { jobs: vec![at(0)], length: SECOND }, 3);
    assert!(series.iter().filter(|view| view.now >= SECOND * 5).all(|view| view.ready() == 0));
    assert_eq!(series.iter().map(View::loading).max(), Some(3));
}

#[test]
fn a_pod_that_is_not_ready_stops_first_and_then_the_one_that_became_ready_last() {
    let known = Measurements::default();
    let mut fleet = Fleet::new(worker(), known, Conditions::default());
    for second in [0, 1000, 1900] {
        fleet.start(SECOND * second);
    }
    for (place, second) in [(0, 10), (1, 1010)] {
        fleet.register(place, SECOND * second);
        fleet.ready(place, SECOND * second);
    }
    assert_eq!(fleet.victim(SECOND * 2000), Some(2));
    fleet.stop(2, SECOND * 2000);
    // The ages as ready pods are 1090 s and 2090 s. The controller does not know that the younger one is busy.
    let job = WaitingJob { at: Duration::ZERO, work: 1.0, class: Class::Standard, found_none: false };
    fleet.begin_batch(1, vec![job], SECOND);
    assert_eq!(fleet.victim(SECOND * 2100), Some(1));
}
