use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// What the scaler answers in one turn.
type Answer = Result<Observation, Failure>;

fn seen(value: f64) -> Answer {
    Ok(Observation { active: value > 0.0, value, target: 10.0 })
}

const FAILED: Answer = Err(Failure::Metrics { target: 10.0 });

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn rules() -> Rules {
    Rules { max: 100, ..Rules::default() }
}

/// Without a window downwards.
fn at_once() -> Rules {
    let down = Behavior { stabilization_window: Duration::ZERO, ..rules().down };
    Rules { down, ..rules() }
}

/// Drives the loops from where they are until `end`, and returns each change with its second.
fn drive(replicas: &mut Replicas, end: u64, answer: impl Fn(u64) -> Answer) -> Vec<(u64, u32)> {
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
    let mut replicas = Replicas::new(at_once(), 10, at(0));
    assert_eq!(replicas.observe(at(0), seen(88.0)), 9);
}

#[test]
fn a_value_under_half_a_thousandth_is_nothing() {
    let tiny = Observation { active: true, value: 0.000_4, target: 0.001 };
    let mut replicas = Replicas::new(at_once(), 3, at(0));
    assert_eq!(replicas.observe(at(0), Ok(tiny)), 1);
}

#[test]
fn an_error_keeps_the_number_past_the_cooldown() {
    let mut replicas = Replicas::new(rules(), 0, at(0));
    assert_eq!(drive(&mut replicas, 15, |_| seen(50.0)), [(0, 5)]);
    assert_eq!(drive(&mut replicas, 3600, |_| FAILED), []);
    let nonsense = Ok(Observation { active: false, value: f64::NAN, target: 10.0 });
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
    let policy = |step| Policy { step, period: millis(500) };
    let short = Rules {
        max: 3,
        polling_interval: millis(200),
        cooldown: SECOND * 2,
        sync_interval: millis(200),
        up: Behavior { policies: vec![policy(Step::Pods(4)), policy(Step::Percent(100))], ..rules().up },
        down: Behavior { stabilization_window: SECOND, ..rules().down },
        ..Rules::default()
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

#[test]
fn a_push_is_lost_before_keda_knows_the_metric() {
    let mut replicas = Replicas::new(rules(), 0, at(0));
    assert_eq!(replicas.pushed(at(0), true), 0);
    replicas.observe(at(0), Err(Failure::Spec));
    assert_eq!(replicas.pushed(at(1), true), 0);
    replicas.observe(at(15), seen(0.0));
    assert_eq!(replicas.pushed(at(16), true), 1);
}

#[test]
fn after_enough_failures_the_fallback_is_believed_until_the_scaler_speaks_again() {
    let fallback = Some(Fallback { failure_threshold: 3, replicas: 6 });
    let mut replicas = Replicas::new(Rules { fallback, ..rules() }, 0, at(0));
    // Turns at 0, 15, 30 and 45: the fourth in a row is one too many. From 0 only the poll at 60 leads.
    assert_eq!(drive(&mut replicas, 90, |_| FAILED), [(60, 5), (75, 6)]);
    assert_eq!(drive(&mut replicas, 3600, |_| FAILED), []);
    assert_eq!(drive(&mut replicas, 3700, |_| seen(100.0)), [(3615, 10)]);
    // A spec that is not told does not count.
    let mut replicas = Replicas::new(Rules { fallback, ..rules() }, 2, at(0));
    assert_eq!(drive(&mut replicas, 3600, |_| Err(Failure::Spec)), []);
}

#[test]
fn a_workload_that_idles_has_no_replicas_and_wakes_to_its_minimum() {
    let mut replicas = Replicas::new(Rules { min: 4, idle_at_zero: true, cooldown: at(60), ..rules() }, 4, at(0));
    let changes = drive(&mut replicas, 600, |second| seen(if (300..330).contains(&second) { 20.0 } else { 0.0 }));
    assert_eq!(changes, [(30, 0), (300, 4), (390, 0)]);
}

#[test]
fn more_than_the_most_and_fewer_than_the_least_are_put_right_without_any_metric() {
    for (count, right) in [(40, 20), (1, 3)] {
        let mut replicas = Replicas::new(Rules { min: 3, max: 20, ..rules() }, count, at(0));
        assert_eq!(replicas.observe(at(0), FAILED), right, "{count}");
    }
}

#[test]
fn each_direction_has_its_own_tolerance_window_and_policies() {
    let up = Behavior { tolerance: 0.5, stabilization_window: at(60), ..rules().up };
    let step = |pods| Policy { step: Step::Pods(pods), period: at(60) };
    let down = Behavior {
        tolerance: 0.0,
        stabilization_window: Duration::ZERO,
        select: Select::Min,
        policies: vec![step(2), step(5)],
    };
    let rules = Rules { up, down, ..rules() };
    let mut replicas = Replicas::new(rules.clone(), 10, at(0));
    // Half more is near enough.
    assert_eq!(drive(&mut replicas, 45, |_| seen(149.0)), []);
    // What was wanted least in the last minute is 10, until 120.
    assert_eq!(drive(&mut replicas, 120, |_| seen(200.0)), [(105, 20)]);
    // Two a minute, though five would be allowed elsewhere.
    assert_eq!(drive(&mut replicas, 240, |_| seen(200.0)), []);
    assert_eq!(drive(&mut replicas, 330, |_| seen(100.0)), [(255, 18), (315, 16)]);
    let disabled = Rules { down: Behavior { select: Select::Disabled, ..rules.down.clone() }, ..rules };
    let mut replicas = Replicas::new(disabled, 10, at(0));
    assert_eq!(drive(&mut replicas, 3600, |_| seen(10.0)), []);
}

#[test]
fn a_share_downwards_is_cut_to_whole_replicas() {
    let policies = vec![Policy { step: Step::Percent(10), period: at(60) }];
    let down = Behavior { stabilization_window: Duration::ZERO, policies, ..rules().down };
    let mut replicas = Replicas::new(Rules { down, ..rules() }, 15, at(0));
    // 90 % of 15 is 13.5.
    assert_eq!(replicas.observe(at(0), seen(10.0)), 13);
}

fn any_behavior() -> impl Strategy<Value = Behavior> {
    let step = prop_oneof![(1_u32..8).prop_map(Step::Pods), (1_u32..200).prop_map(Step::Percent)];
    let policy = (step, 0_u64..40).prop_map(|(step, period)| Policy { step, period: at(period) });
    let select = prop_oneof![4 => Just(Select::Max), 1 => Just(Select::Min)];
    let behavior = (0.0..0.5_f64, 0_u64..400, select, prop::collection::vec(policy, 1..4));
    behavior.prop_map(|(tolerance, window, select, policies)| Behavior {
        tolerance,
        stabilization_window: at(window),
        select,
        policies,
    })
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let times = (1_u64..40, 0_u64..400, 1_u64..40);
    let fallback = prop::option::of((0_u32..4, 1_u32..20));
    (0_u32..4, 1_u32..60, times, fallback, any_behavior(), any_behavior()).prop_map(
        |(min, max, (poll, cooldown, sync), fallback, up, down)| Rules {
            min,
            max: max.max(min),
            idle_at_zero: false,
            polling_interval: at(poll),
            cooldown: at(cooldown),
            initial_cooldown: Duration::ZERO,
            fallback: fallback.map(|(failure_threshold, replicas)| Fallback { failure_threshold, replicas }),
            sync_interval: at(sync),
            up,
            down,
        },
    )
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let value = prop_oneof![Just(0.0), 0.0..2000.0_f64];
    let spoken = (any::<bool>(), value, 0.001..50.0_f64);
    prop_oneof![
        8 => spoken.prop_map(|(active, value, target)| Ok(Observation { active: active || value > 0.0, value, target })),
        1 => Just(FAILED),
        1 => Just(Err(Failure::Spec)),
    ]
}

/// A workload with some history, standing at the moment of its next question.
fn any_replicas() -> impl Strategy<Value = Replicas> {
    (any_rules(), 0_u32..60, prop::collection::vec(any_answer(), 0..40)).prop_map(|(rules, count, answers)| {
        let count = if count == 0 { 0 } else { count.clamp(rules.min, rules.max) };
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
        let active = Ok(Observation { active: true, value, target: 10.0 });
        let (polls, before) = (replicas.next_poll <= replicas.due(), replicas.count());
        let count = replicas.observe(replicas.due(), active);
        prop_assert!(count >= 1 || (before == 0 && !polls));
    }

    #[test]
    fn a_spec_that_is_not_told_changes_nothing(mut replicas in any_replicas()) {
        let before = replicas.count();
        for _ in 0..100 {
            prop_assert_eq!(replicas.observe(replicas.due(), Err(Failure::Spec)), before);
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
