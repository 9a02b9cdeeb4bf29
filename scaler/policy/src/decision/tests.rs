use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::reading::{BatchTime, Fleet, Measurements};
use crate::replicas::{Observation, Replicas, Rules};

const SECOND: Duration = Duration::from_secs(1);

fn scaling(pairs: &[(&str, &str)]) -> Scaling {
    let metadata = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Scaling::of_metadata(&metadata).unwrap()
}

fn latency() -> Scaling {
    scaling(&[("mode", "latency"), ("latency", "5s")])
}

/// 100 jobs per second in full batches of half a second.
fn measurements() -> Measurements {
    let batch_time = BatchTime { base_seconds: 0.1, item_seconds: 0.008, limit_items: 50.0 };
    Measurements { batch_time: Some(batch_time), cold_start: Some(SECOND * 60) }
}

fn fleet(ready: u64, loading: u64) -> Fleet {
    Fleet { ready, loading, measurements: measurements(), ..Fleet::default() }
}

/// A pool with a constant rate of arrivals for five minutes, which ended at the same rate.
fn steady(rate: u64, workers: u64, backlog: u64) -> History {
    let mut history = History::default();
    for second in 0..=300 {
        history.add(Reading {
            taken_at: SECOND * second,
            waiting: [0, backlog, 0],
            ended: rate * u64::from(second),
            fleet: fleet(workers, 0),
            ..Reading::default()
        });
    }
    history
}

fn one(reading: Reading) -> History {
    let mut history = History::default();
    history.add(reading);
    history
}

fn decided(history: &History, scaling: &Scaling) -> Decision {
    decide(history, scaling, Timestamp::UNIX_EPOCH).unwrap()
}

fn wanted(history: &History, scaling: &Scaling) -> f64 {
    let decision = decided(history, scaling);
    decision.value / decision.target
}

#[test]
fn there_is_no_decision_before_the_first_reading() {
    assert_eq!(decide(&History::default(), &latency(), Timestamp::UNIX_EPOCH), None);
}

/// C10, C11.
#[test]
fn a_pool_is_active_with_a_backlog_above_its_activation_or_a_lease_or_a_loading_worker() {
    let active = |reading: Reading, activation: &str| {
        decided(&one(reading), &scaling(&[("activationValue", activation)])).active
    };
    let idle = Reading::default;
    assert!(!active(idle(), "0"));
    assert!(active(Reading { waiting: [0, 1, 0], ..idle() }, "0"));
    assert!(active(Reading { retry: 1, ..idle() }, "0"));
    assert!(!active(Reading { waiting: [0, 5, 0], ..idle() }, "5"));
    assert!(active(Reading { waiting: [0, 6, 0], ..idle() }, "5"));
    assert!(active(Reading { leased: 1, ..idle() }, "5"));
    assert!(active(Reading { in_flight: 1, ..idle() }, "5"));
    assert!(active(Reading { fleet: fleet(0, 1), ..idle() }, "5"));
    assert!(!active(Reading { fleet: fleet(1, 0), ..idle() }, "0"));
}

/// C4, C5.
#[test]
fn integers_are_rounded_up() {
    assert_eq!([0.001, 1.0, 1.2, 10.0].map(whole_target), [1, 1, 2, 10]);
    assert_eq!([0.0, 0.001, 1.0, 1.2].map(whole_value), [0, 1, 1, 2]);
}

/// C5.
#[test]
fn the_largest_possible_numbers_make_a_finite_value() {
    let most = Reading {
        waiting: [u64::MAX; 3],
        in_flight: u64::MAX,
        leased: u64::MAX,
        retry: u64::MAX,
        ended: u64::MAX,
        fleet: fleet(u64::MAX / 2, 3),
        ..Reading::default()
    };
    for scaling in [scaling(&[]), latency(), scaling(&[("mode", "rate"), ("jobsPerSecond", "0.001")])] {
        let decision = decided(&one(most.clone()), &scaling);
        assert!(decision.value.is_finite() && whole_value(decision.value) > 0, "{decision:?}");
    }
}

#[test]
fn a_steady_load_gets_the_number_of_workers_that_its_rate_needs() {
    for (rate, workers) in [(50, 1), (150, 2), (950, 10)] {
        let decision = decided(&steady(rate, workers, 20), &latency());
        assert_eq!(decision.value.ceil(), workers as f64, "{decision:?}");
        let Terms::Latency(terms) = decision.terms else { panic!("another mode") };
        assert!((terms.arrivals / rate as f64 - 1.0).abs() < 0.01, "{terms:?}");
        assert_eq!(terms.catch_up, 0.0, "{terms:?}");
        assert!(decision.clamps.iter().all(|clamp| clamp.rule == "found_at_start"), "{:?}", decision.clamps);
    }
}

#[test]
fn a_backlog_asks_for_workers_that_finish_it_and_loading_workers_count() {
    // 30,000 jobs: five minutes of one worker. It does a fifth of them while the other workers load.
    let without = wanted(&steady(0, 1, 30_000), &latency());
    assert!((8.0..20.0).contains(&without), "{without}");
    let mut loading = steady(0, 1, 30_000);
    loading.add(Reading {
        taken_at: SECOND * 301,
        waiting: [0, 30_000, 0],
        fleet: Fleet { loading_for: SECOND * 90, ..fleet(1, 7) },
        ..Reading::default()
    });
    let with = wanted(&loading, &latency());
    // The workers that load are still needed for the jobs that wait.
    assert!((8.0..=without + 1.0).contains(&with), "with seven workers loading: {with}; without them: {without}");
}

#[test]
fn a_pool_that_was_never_measured_gets_one_worker_to_measure_it() {
    let reading = Reading { waiting: [0, 100_000, 0], ..Reading::default() };
    assert_eq!(wanted(&one(reading), &latency()), 1.0);
}

#[test]
fn workers_stay_until_the_history_is_long_enough_to_show_that_fewer_suffice() {
    let reading = Reading { fleet: fleet(7, 1), ..Reading::default() };
    let decision = decided(&one(reading.clone()), &latency());
    assert_eq!(decision.value, 8.0);
    assert_eq!(decision.clamps[0].rule, "short_history");
    // Workers that the scaler found at its start stay for the look-back time. Workers started later may leave earlier.
    let later = |second, ready| Reading { taken_at: SECOND * second, fleet: fleet(ready, 1), ..Reading::default() };
    let mut history = one(reading);
    history.add(later(121, 9));
    let decision = decided(&history, &latency());
    assert_eq!((decision.value, decision.clamps[0].rule), (8.0, "found_at_start"));
    history.add(later(122, 3));
    assert_eq!(decided(&history, &latency()).value, 4.0, "workers that left are not requested again");
    history.add(later(20 * 60, 7));
    assert_eq!(decided(&history, &latency()).value, 1.0, "a worker is loading");
    let rate = scaling(&[("mode", "rate"), ("jobsPerSecond", "1")]);
    history = one(later(0, 7));
    history.add(later(61, 7));
    assert_eq!(decided(&history, &rate).value, 0.0, "{:?}", decided(&history, &rate));
}

#[test]
fn the_first_jobs_after_a_start_do_not_make_a_rate() {
    let mut history = History::default();
    for half in 0..4_u32 {
        let fleet = fleet(1, 0);
        let taken_at = SECOND * half / 2;
        history.add(Reading { taken_at, waiting: [0, 10 * u64::from(half.min(1)), 0], fleet, ..Reading::default() });
    }
    for scaling in [latency(), scaling(&[("mode", "rate"), ("jobsPerSecond", "100")])] {
        assert!(wanted(&history, &scaling) <= 1.0, "{:?}", decided(&history, &scaling));
    }
}

#[test]
fn a_limit_prevents_the_rise_for_the_tolerance() {
    let history = steady(3_000, 19, 20);
    let most = |pairs: &[(&str, &str)]| {
        let pairs = [&[("mode", "latency"), ("latency", "5s")], pairs].concat();
        decided(&history, &scaling(&pairs)).value
    };
    assert_eq!(most(&[("maxWorkers", "20")]), 20.0);
    assert!(most(&[]) >= 30.0);
}

#[test]
fn the_pushed_state_is_the_answered_state() {
    for reading in [
        Reading::default(),
        Reading { waiting: [1, 0, 0], ..Reading::default() },
        Reading { leased: 1, ..Reading::default() },
        Reading { fleet: fleet(0, 1), ..Reading::default() },
    ] {
        for scaling in [latency(), scaling(&[("classes", "batch")]), scaling(&[("minWorkers", "1")])] {
            let pushed = is_active(&one(reading.clone()), &scaling, Timestamp::UNIX_EPOCH);
            assert_eq!(pushed, decided(&one(reading.clone()), &scaling).active, "{reading:?} {scaling:?}");
        }
    }
}

#[test]
fn more_workers_than_consumers_are_not_requested_unless_allowed() {
    let reading = Reading { waiting: [0, 100, 0], max_consumers: Some(4), ..Reading::default() };
    let of = |pairs: &[(&str, &str)]| wanted(&one(reading.clone()), &scaling(pairs));
    assert_eq!(of(&[("value", "10")]), 4.0);
    assert_eq!(of(&[("value", "10"), ("allowIdleConsumers", "true")]), 10.0);
    // A number below that of the partitions is not rounded.
    assert_eq!(of(&[("value", "30")]), 100.0 / 30.0);
}

#[test]
fn the_minimum_and_the_maximum_apply_to_every_count_and_by_the_calendar() {
    let reading = Reading { waiting: [0, 100, 0], ..Reading::default() };
    assert_eq!(wanted(&one(reading), &scaling(&[("value", "1"), ("maxWorkers", "8")])), 8.0);
    let idle = decided(&one(Reading::default()), &scaling(&[("value", "5"), ("minWorkers", "2")]));
    assert_eq!((idle.value, idle.active, idle.clamps[0].rule), (10.0, true, "minWorkers"));
    // The epoch was a Thursday, at midnight.
    let floor = scaling(&[("value", "5"), ("schedule", "0 0 * * 4 UTC for 1h = 3")]);
    let then = decided(&one(Reading::default()), &floor);
    assert_eq!((then.value, then.active, then.clamps[0].rule), (15.0, true, "schedule"));
    let later = decide(&one(Reading::default()), &floor, "1970-01-01T01:00:00Z".parse().unwrap()).unwrap();
    assert_eq!((later.value, later.active), (0.0, false));
}

#[test]
fn a_rise_within_the_tolerance_of_the_hpa_becomes_just_large_enough() {
    let decision = decided(&steady(1_050, 10, 20), &latency());
    assert!(decision.value > 11.0 && decision.value < 11.1, "{decision:?}");
    let clamp = decision.clamps.last().unwrap();
    assert_eq!(clamp.rule, "tolerance");
    assert!((10.0..=11.0).contains(&clamp.from));
    let without = scaling(&[("mode", "latency"), ("latency", "5s"), ("tolerance", "0")]);
    assert_eq!(decided(&steady(1_050, 10, 20), &without).value.ceil(), 11.0);
}

#[test]
fn a_rise_below_three_decimals_is_ignored() {
    // 300.03 jobs per second are 3.0003 workers. With 4 workers the HPA would read 3.000 and remove one again.
    let mut history = History::default();
    for second in 0..=300 {
        let (taken_at, ended) = (SECOND * second, 300 * u64::from(second) + u64::from(second) * 3 / 100);
        history.add(Reading { taken_at, ended, fleet: fleet(3, 0), ..Reading::default() });
    }
    let decision = decided(&history, &latency());
    assert!(decision.value > 3.0 && decision.value < 3.0005, "{decision:?}");
    assert_eq!(decision.clamps, []);
}

#[test]
fn the_rate_counts_arrivals_and_backlog() {
    let rate = scaling(&[("mode", "rate"), ("jobsPerSecond", "50"), ("stableWindow", "1m")]);
    let decision = decided(&steady(200, 4, 600), &rate);
    assert_eq!(decision.target, 50.0);
    assert!((decision.value - 210.0).abs() < 0.1, "{decision:?}");
}

/// A scaling rule of each mode.
fn rules() -> impl Strategy<Value = Scaling> {
    prop_oneof![
        (1..200_u32).prop_map(|value| scaling(&[("value", &value.to_string())])),
        (1..30_u32).prop_map(|objective| scaling(&[("mode", "latency"), ("latency", &format!("{objective}s"))])),
        (1..200_u32).prop_map(|rate| scaling(&[("mode", "rate"), ("jobsPerSecond", &rate.to_string())])),
    ]
}

/// Readings at least a second apart, with random arrivals, ended jobs and workers.
fn histories() -> impl Strategy<Value = Vec<Reading>> {
    let step = (1..20_u64, 0..400_u64, 0..400_u64, 0..6_u64, 0..3_u64, 0..3_u64);
    prop::collection::vec(step, 1..60).prop_map(|steps| {
        let (mut at, mut backlog, mut ended) = (0, 0_u64, 0);
        steps
            .into_iter()
            .map(|(seconds, arrived, done, ready, loading, retry)| {
                at += seconds;
                let done = done.min(backlog + arrived);
                backlog = backlog + arrived - done;
                ended += done;
                let leased = backlog.min(ready * 3);
                Reading {
                    taken_at: Duration::from_secs(at),
                    waiting: [0, backlog - leased, 0],
                    leased,
                    retry,
                    ended,
                    fleet: Fleet { loading_for: SECOND * 5 * loading as u32, ..fleet(ready, loading) },
                    ..Reading::default()
                }
            })
            .collect()
    })
}

fn history_of(readings: &[Reading]) -> History {
    let mut history = History::default();
    readings.iter().for_each(|reading| history.add(reading.clone()));
    history
}

proptest! {
    #[test]
    fn a_larger_backlog_never_asks_for_fewer_workers(
        readings in histories(), scaling in rules(), more in 1..100_000_u64,
    ) {
        let before = wanted(&history_of(&readings), &scaling);
        let mut larger = readings;
        larger.last_mut().unwrap().waiting[1] += more;
        let after = wanted(&history_of(&larger), &scaling);
        prop_assert!(after >= before, "{after} is less than {before}");
    }

    #[test]
    fn a_pool_with_work_or_a_loading_worker_is_never_scaled_to_zero(
        readings in histories(), scaling in rules(),
    ) {
        let history = history_of(&readings);
        let last = readings.last().unwrap();
        let decision = decided(&history, &scaling);
        prop_assert!(decision.value.is_finite() && decision.value >= 0.0);
        let has_reason = last.backlog() > 0 || last.fleet.loading > 0;
        prop_assert!(decision.active || !has_reason);
        // Without a reason of its own, the pool is active only for workers that are kept.
        prop_assert!(has_reason || !decision.active || decision.value > 0.0);
        let rules = Rules { cooldown: Duration::ZERO, ..Rules::default() };
        let mut replicas = Replicas::new(rules, 1, Duration::ZERO);
        let answer = Observation { active: decision.active, value: decision.value, target: decision.target };
        for _ in 0..10 {
            let now = replicas.due();
            let count = replicas.observe(now, Ok(answer));
            prop_assert!(count > 0 || !has_reason);
        }
    }

    #[test]
    fn the_same_history_gives_the_same_decision_and_deciding_changes_nothing(readings in histories(), scaling in rules()) {
        let (one, other) = (history_of(&readings), history_of(&readings));
        let first = decided(&one, &scaling);
        for _ in 0..3 {
            prop_assert_eq!(&decided(&one, &scaling), &first);
        }
        prop_assert_eq!(&decided(&other, &scaling), &first);
    }

    #[test]
    fn replicas_that_read_at_different_times_agree_within_one_worker_on_a_steady_load(
        rate in 1..2_000_u64, offset in 0..1_000_u64,
    ) {
        let workers = |offset: u64| {
            let mut history = History::default();
            for tick in 0..600_u64 {
                let at = Duration::from_millis(tick * 500 + offset);
                let ended = rate * at.as_millis() as u64 / 1_000;
                history.add(Reading { taken_at: at, ended, fleet: fleet(rate.div_ceil(100), 0), ..Reading::default() });
            }
            wanted(&history, &scaling(&[("mode", "latency"), ("latency", "5s"), ("tolerance", "0")]))
        };
        prop_assert!((workers(0) - workers(offset)).abs() <= 1.0);
    }
}
