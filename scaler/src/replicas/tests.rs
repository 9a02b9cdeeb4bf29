use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn seen(value: f64) -> Option<Observation> {
    Some(Observation { active: value > 0.0, value, target: 10.0 })
}

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn rules() -> Rules {
    Rules { max: 100, ..Rules::default() }
}

/// Drives the loops from where they are until `end`, and returns each change with its second.
fn drive(replicas: &mut Replicas, end: u64, answer: impl Fn(u64) -> Option<Observation>) -> Vec<(u64, u32)> {
    let mut changes = Vec::new();
    while replicas.due() <= at(end) {
        let (now, before) = (replicas.due(), replicas.count());
        if replicas.observe(now, answer(now.as_secs())) != before {
            changes.push((now.as_secs(), replicas.count()));
        }
    }
    changes
}

#[test]
fn a_job_in_an_empty_pool_starts_one_replica_and_the_cooldown_takes_it_away() {
    let mut replicas = Replicas::new(rules(), 0, at(0));
    let changes = drive(&mut replicas, 1000, |second| seen(if (20..50).contains(&second) { 1.0 } else { 0.0 }));
    // Polls at 30, 60, …: active last at 30; more than 300 s later is 360.
    assert_eq!(changes, [(30, 1), (360, 0)]);
}

#[test]
fn at_the_end_of_the_cooldown_any_number_goes_to_zero_in_one_step() {
    let mut replicas = Replicas::new(Rules { cooldown: at(60), ..rules() }, 40, at(0));
    assert_eq!(drive(&mut replicas, 30, |_| seen(400.0)), []);
    assert_eq!(drive(&mut replicas, 600, |_| seen(0.0)), [(120, 0)]);
}

#[test]
fn a_workload_that_was_never_active_goes_to_zero_after_its_initial_cooldown() {
    let mut replicas = Replicas::new(Rules { initial_cooldown: at(60), ..rules() }, 2, at(0));
    assert_eq!(drive(&mut replicas, 600, |_| seen(0.0)), [(90, 0)]);
}

#[test]
fn a_burst_grows_the_pool_by_four_or_by_doubling_per_period() {
    let mut replicas = Replicas::new(rules(), 0, at(0));
    let changes = drive(&mut replicas, 120, |_| seen(1000.0));
    assert_eq!(changes[..5], [(0, 5), (15, 10), (30, 20), (45, 40), (60, 80)]);
    assert_eq!(replicas.count(), 100);
}

#[test]
fn additions_are_counted_over_the_whole_period() {
    let mut replicas = Replicas::new(Rules { sync_interval: SECOND, ..rules() }, 1, at(0));
    assert_eq!(drive(&mut replicas, 16, |_| seen(1000.0)), [(0, 5), (15, 10)]);
}

#[test]
fn the_number_falls_to_the_largest_one_wanted_within_the_window() {
    let mut replicas = Replicas::new(rules(), 10, at(0));
    let changes = drive(&mut replicas, 900, |second| seen(if second < 60 { 100.0 } else { 20.0 }));
    // Ten were wanted last at 45 s, and the window is 300 s.
    assert_eq!(changes, [(345, 2)]);
}

#[test]
fn within_the_tolerance_nothing_moves() {
    for (value, count) in [(91.0, 10), (109.0, 10), (112.0, 12)] {
        let mut replicas = Replicas::new(rules(), 10, at(0));
        assert_eq!(replicas.observe(at(0), seen(value)), count, "{value}");
    }
    let mut replicas = Replicas::new(Rules { stabilization_window: Duration::ZERO, ..rules() }, 10, at(0));
    assert_eq!(replicas.observe(at(0), seen(88.0)), 9);
}

#[test]
fn a_value_under_half_a_thousandth_is_nothing() {
    let tiny = Observation { active: true, value: 0.000_4, target: 0.001 };
    let mut replicas = Replicas::new(Rules { stabilization_window: Duration::ZERO, ..rules() }, 3, at(0));
    assert_eq!(replicas.observe(at(0), Some(tiny)), 1);
}

#[test]
fn an_error_keeps_the_number_past_the_cooldown() {
    let mut replicas = Replicas::new(rules(), 0, at(0));
    assert_eq!(drive(&mut replicas, 15, |_| seen(50.0)), [(0, 5)]);
    assert_eq!(drive(&mut replicas, 3600, |_| None), []);
    let nonsense = Some(Observation { active: false, value: f64::NAN, target: 10.0 });
    assert_eq!(drive(&mut replicas, 7200, |_| nonsense), []);
}

#[test]
fn a_pool_with_a_minimum_never_goes_below_it() {
    let mut replicas = Replicas::new(Rules { min: 2, ..rules() }, 0, at(0));
    assert_eq!(drive(&mut replicas, 3600, |_| seen(0.0)), [(0, 2)]);
    let mut replicas = Replicas::new(Rules { min: 2, ..rules() }, 0, at(0));
    assert_eq!(replicas.observe(at(0), seen(1.0)), 2);
}

#[test]
fn a_push_starts_the_first_replica_at_once_and_restarts_the_cooldown() {
    let mut replicas = Replicas::new(Rules { cooldown: at(60), ..rules() }, 0, at(0));
    drive(&mut replicas, 0, |_| seen(0.0));
    assert_eq!(replicas.pushed(at(1), false), 0);
    assert_eq!(replicas.pushed(at(1), true), 1);
    assert_eq!(drive(&mut replicas, 600, |_| seen(0.0)), [(90, 0)]);
}

#[test]
fn before_its_time_nothing_changes() {
    let mut replicas = Replicas::new(rules(), 0, at(0));
    replicas.observe(at(0), seen(0.0));
    assert_eq!(replicas.due(), at(15));
    assert_eq!(replicas.observe(at(14), seen(500.0)), 0);
}

#[test]
fn a_laptops_short_intervals_take_a_pool_up_and_down_within_seconds() {
    let millis = Duration::from_millis;
    let short = Rules {
        polling_interval: millis(200),
        sync_interval: millis(200),
        cooldown: millis(2000),
        stabilization_window: millis(1000),
        up_period: millis(500),
        max: 3,
        ..rules()
    };
    let mut replicas = Replicas::new(short, 0, at(0));
    let mut highest = 0;
    while replicas.due() < at(10) {
        let now = replicas.due();
        highest = highest.max(replicas.observe(now, seen(if now < at(3) { 200.0 } else { 0.0 })));
        assert!(now <= at(6) || replicas.count() == 0, "{now:?}");
    }
    assert_eq!(highest, 3);
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let periods = (1_u64..40, 0_u64..400, 1_u64..40, 0_u64..400, 0_u64..40);
    (0_u32..4, 1_u32..60, periods, 0.0..0.5_f64, 0_u32..6, 0_u32..200).prop_map(
        |(min, max, (poll, cooldown, sync, window, period), tolerance, up_replicas, up_percent)| Rules {
            min,
            max: max.max(min),
            polling_interval: at(poll),
            cooldown: at(cooldown),
            initial_cooldown: Duration::ZERO,
            sync_interval: at(sync),
            tolerance,
            stabilization_window: at(window),
            up_replicas: up_replicas.max(1),
            up_percent,
            up_period: at(period),
        },
    )
}

fn any_answer() -> impl Strategy<Value = Option<Observation>> {
    let value = prop_oneof![Just(0.0), 0.0..2000.0_f64];
    prop::option::weighted(0.8, (any::<bool>(), value, 0.001..50.0_f64)).prop_map(|answer| {
        answer.map(|(active, value, target)| Observation { active: active || value > 0.0, value, target })
    })
}

/// A workload with some history, standing at the moment of its next question.
fn any_replicas() -> impl Strategy<Value = Replicas> {
    (any_rules(), 0_u32..60, prop::collection::vec(any_answer(), 0..40)).prop_map(|(rules, count, answers)| {
        let count = count.min(rules.max);
        let mut replicas = Replicas::new(rules, count, at(0));
        for answer in answers {
            replicas.observe(replicas.due(), answer);
        }
        replicas
    })
}

proptest! {
    #[test]
    fn a_pool_that_is_active_is_never_taken_to_zero(mut replicas in any_replicas(), value in 0.0..2000.0_f64) {
        let active = Some(Observation { active: true, value, target: 10.0 });
        let (polls, before) = (replicas.next_poll <= replicas.due(), replicas.count());
        let count = replicas.observe(replicas.due(), active);
        prop_assert!(count >= 1 || (before == 0 && !polls));
    }

    #[test]
    fn an_error_changes_nothing(mut replicas in any_replicas()) {
        let before = replicas.count();
        for _ in 0..100 {
            prop_assert_eq!(replicas.observe(replicas.due(), None), before);
        }
    }

    #[test]
    fn a_larger_backlog_never_asks_for_fewer(replicas in any_replicas(), one in 0.0..2000.0_f64, other in 0.0..2000.0_f64) {
        let asked = |value: f64| {
            let mut replicas = replicas.clone();
            replicas.observe(replicas.due(), seen(value))
        };
        prop_assert!(asked(one.min(other)) <= asked(one.max(other)));
    }

    #[test]
    fn the_number_stays_within_its_limits(mut replicas in any_replicas(), answers in prop::collection::vec(any_answer(), 1..40)) {
        for answer in answers {
            let count = replicas.observe(replicas.due(), answer);
            prop_assert!(count <= replicas.rules.max.max(1));
        }
    }

    #[test]
    fn under_a_constant_load_the_number_settles(mut replicas in any_replicas(), value in 0.0..2000.0_f64) {
        // Long enough for every window to pass and for any number to be reached, one at a time.
        let settled = replicas.due() + at(6000);
        while replicas.due() < settled {
            replicas.observe(replicas.due(), seen(value));
        }
        let count = replicas.count();
        for _ in 0..200 {
            prop_assert_eq!(replicas.observe(replicas.due(), seen(value)), count);
        }
    }
}
