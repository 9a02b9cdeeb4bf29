use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// The answer of the scaler in one turn.
type Answer = Result<Observation, CallFailure>;

fn backlog(value: f64) -> Answer {
    Ok(Observation { active: value > 0.0, value, target: 10.0 })
}

const FAILED: Answer = Err(CallFailure::Metrics { target: 10.0 });

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn rules() -> Rules {
    Rules { max: 100, ..Rules::default() }
}

/// Rules without a stabilization window for falls.
fn at_once() -> Rules {
    let down = Behavior { stabilization_window: Duration::ZERO, ..rules().down };
    Rules { down, ..with_behavior() }
}

/// The defaults of Kubernetes for an HPA whose `behavior` is given.
fn with_behavior() -> Rules {
    Rules { has_behavior: true, ..rules() }
}

/// Runs both loops until `end`. Returns each change with its second.
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
fn a_job_in_an_empty_pool_starts_one_replica_and_the_cooldown_removes_it() {
    let mut replicas = Replicas::new(rules(), 0, at(0));
    let changes = drive(&mut replicas, 1000, |second| backlog(if (20..50).contains(&second) { 1.0 } else { 0.0 }));
    // Polls at 30, 60, …. The last activity is at 30, and the first poll more than 300 s later is at 360.
    assert_eq!(changes, [(30, 1), (360, 0)]);
}

#[test]
fn at_the_end_of_the_cooldown_any_number_goes_to_zero_in_one_step() {
    let mut replicas = Replicas::new(Rules { cooldown: at(60), ..rules() }, 40, at(0));
    assert_eq!(drive(&mut replicas, 30, |_| backlog(400.0)), []);
    assert_eq!(drive(&mut replicas, 600, |_| backlog(0.0)), [(120, 0)]);
}

#[test]
fn a_workload_that_was_never_active_goes_to_zero_after_its_initial_cooldown() {
    let mut replicas = Replicas::new(Rules { initial_cooldown: at(60), ..rules() }, 2, at(0));
    assert_eq!(drive(&mut replicas, 600, |_| backlog(0.0)), [(90, 0)]);
}

#[test]
fn without_a_behavior_a_burst_doubles_the_replicas_per_turn_or_raises_them_to_four() {
    let mut replicas = Replicas::new(rules(), 0, at(0));
    let changes = drive(&mut replicas, 120, |_| backlog(1000.0));
    assert_eq!(changes[..6], [(0, 4), (15, 8), (30, 16), (45, 32), (60, 64), (75, 100)]);
    // No period: the limit is per turn.
    let mut replicas = Replicas::new(Rules { sync_interval: SECOND, ..rules() }, 1, at(0));
    assert_eq!(drive(&mut replicas, 3, |_| backlog(1000.0)), [(0, 4), (1, 8), (2, 16), (3, 32)]);
}

/// `stabilizeRecommendation` returns the largest recommendation of the window also for a rise.
#[test]
fn without_a_behavior_the_number_rises_to_the_largest_recommendation_of_the_window() {
    let answer = |second| backlog(if second < 15 { 100.0 } else { 60.0 });
    let mut replicas = Replicas::new(rules(), 1, at(0));
    assert_eq!(drive(&mut replicas, 60, answer), [(0, 4), (15, 8), (30, 10)]);
    let mut replicas = Replicas::new(Rules { up: slow(), ..with_behavior() }, 1, at(0));
    assert_eq!(drive(&mut replicas, 60, answer), [(0, 4), (15, 6)]);
}

/// Three replicas per 15 s.
fn slow() -> Behavior {
    Behavior { policies: vec![Policy { step: Step::Pods(3), period: at(15) }], ..rules().up }
}

#[test]
fn the_loops_of_keda_and_the_hpa_have_phases_of_their_own() {
    let mut replicas = Replicas::with_phases(with_behavior(), 0, at(0), at(10), at(4));
    // Polls at 10, 40, …; turns of the HPA at 4, 19, ….
    assert_eq!(drive(&mut replicas, 40, |_| backlog(1000.0)), [(10, 1), (19, 5), (34, 10)]);
}

#[test]
fn with_the_default_behavior_a_burst_adds_four_replicas_or_doubles_them_per_period() {
    let mut replicas = Replicas::new(with_behavior(), 0, at(0));
    let changes = drive(&mut replicas, 120, |_| backlog(1000.0));
    assert_eq!(changes[..5], [(0, 5), (15, 10), (30, 20), (45, 40), (60, 80)]);
    assert_eq!(replicas.count(), 100);
}

#[test]
fn additions_are_counted_over_the_whole_period() {
    let mut replicas = Replicas::new(Rules { sync_interval: SECOND, ..with_behavior() }, 1, at(0));
    assert_eq!(drive(&mut replicas, 16, |_| backlog(1000.0)), [(0, 5), (15, 10)]);
}

#[test]
fn the_number_falls_to_the_largest_recommendation_within_the_window() {
    let mut replicas = Replicas::new(rules(), 10, at(0));
    let changes = drive(&mut replicas, 900, |second| backlog(if second < 60 { 100.0 } else { 20.0 }));
    // The last recommendation of 10 is at 45 s, and the window is 300 s.
    assert_eq!(changes, [(345, 2)]);
}

#[test]
fn within_the_tolerance_the_number_does_not_change() {
    for (value, count) in [(91.0, 10), (109.0, 10), (112.0, 12)] {
        let mut replicas = Replicas::new(rules(), 10, at(0));
        assert_eq!(replicas.observe(at(0), backlog(value)), count, "{value}");
    }
    let mut replicas = Replicas::new(at_once(), 10, at(0));
    assert_eq!(replicas.observe(at(0), backlog(88.0)), 9);
}

#[test]
fn a_value_below_half_a_thousandth_counts_as_zero() {
    let tiny = Observation { active: true, value: 0.000_4, target: 0.001 };
    let mut replicas = Replicas::new(at_once(), 3, at(0));
    assert_eq!(replicas.observe(at(0), Ok(tiny)), 1);
}

#[test]
fn an_error_keeps_the_number_past_the_cooldown() {
    let mut replicas = Replicas::new(with_behavior(), 0, at(0));
    assert_eq!(drive(&mut replicas, 15, |_| backlog(50.0)), [(0, 5)]);
    assert_eq!(drive(&mut replicas, 3600, |_| FAILED), []);
    let nonsense = Ok(Observation { active: false, value: f64::NAN, target: 10.0 });
    assert_eq!(drive(&mut replicas, 7200, |_| nonsense), []);
}

#[test]
fn a_pool_with_a_minimum_never_goes_below_it() {
    let mut replicas = Replicas::new(Rules { min: 2, ..rules() }, 0, at(0));
    assert_eq!(drive(&mut replicas, 3600, |_| backlog(0.0)), [(0, 2)]);
    let mut replicas = Replicas::new(Rules { min: 2, ..rules() }, 0, at(0));
    assert_eq!(replicas.observe(at(0), backlog(1.0)), 2);
}

#[test]
fn a_push_starts_the_first_replica_at_once_and_restarts_the_cooldown() {
    let mut replicas = Replicas::new(Rules { cooldown: at(60), ..rules() }, 0, at(0));
    drive(&mut replicas, 0, |_| backlog(0.0));
    assert_eq!(replicas.pushed(at(1), false), 0);
    assert_eq!(replicas.pushed(at(1), true), 1);
    assert_eq!(drive(&mut replicas, 600, |_| backlog(0.0)), [(90, 0)]);
}

#[test]
fn an_answer_before_the_next_turn_has_no_effect() {
    let mut replicas = Replicas::new(rules(), 0, at(0));
    replicas.observe(at(0), backlog(0.0));
    assert_eq!(replicas.due(), at(15));
    assert_eq!(replicas.observe(at(14), backlog(500.0)), 0);
}

#[test]
fn short_intervals_scale_a_pool_up_and_down_within_seconds() {
    let millis = Duration::from_millis;
    let policy = |step| Policy { step, period: millis(500) };
    let short = Rules {
        max: 3,
        polling_interval: millis(200),
        cooldown: SECOND * 2,
        sync_interval: millis(200),
        up: Behavior { policies: vec![policy(Step::Pods(4)), policy(Step::Percent(100))], ..rules().up },
        down: Behavior { stabilization_window: SECOND, ..rules().down },
        has_behavior: true,
        ..Rules::default()
    };
    let mut replicas = Replicas::new(short, 0, at(0));
    let mut highest = 0;
    while replicas.due() < at(10) {
        let now = replicas.due();
        highest = highest.max(replicas.observe(now, backlog(if now < at(3) { 200.0 } else { 0.0 })));
        assert!(now <= at(6) || replicas.count() == 0, "{now:?}");
    }
    assert_eq!(highest, 3);
}

#[test]
fn a_push_is_lost_before_keda_knows_the_metric() {
    let mut replicas = Replicas::new(rules(), 0, at(0));
    assert_eq!(replicas.pushed(at(0), true), 0);
    replicas.observe(at(0), Err(CallFailure::Spec));
    assert_eq!(replicas.pushed(at(1), true), 0);
    replicas.observe(at(15), backlog(0.0));
    assert_eq!(replicas.pushed(at(16), true), 1);
}

#[test]
fn after_enough_failures_the_fallback_applies_until_the_scaler_answers_again() {
    let fallback = Some(Fallback { failure_threshold: 3, replicas: 6 });
    let mut replicas = Replicas::new(Rules { fallback, ..rules() }, 0, at(0));
    // Polls at 0, 30, 60 and 90: the HPA does not query the metric of an empty workload. The fourth failure exceeds the
    // threshold.
    assert_eq!(drive(&mut replicas, 120, |_| FAILED), [(90, 4), (105, 6)]);
    assert_eq!(drive(&mut replicas, 3600, |_| FAILED), []);
    assert_eq!(drive(&mut replicas, 3700, |_| backlog(100.0)), [(3615, 10)]);
    // With replicas, the HPA and the poll each count a failure: two at 0, one at 15, two at 30.
    let mut replicas = Replicas::new(Rules { fallback, ..rules() }, 2, at(0));
    assert_eq!(drive(&mut replicas, 120, |_| FAILED), [(30, 4), (45, 6)]);
    // A failed GetMetricSpec does not count.
    let mut replicas = Replicas::new(Rules { fallback, ..rules() }, 2, at(0));
    assert_eq!(drive(&mut replicas, 3600, |_| Err(CallFailure::Spec)), []);
}

#[test]
fn with_a_fallback_to_zero_replicas_an_error_counts_as_inactive() {
    for failure in [FAILED, Err(CallFailure::Spec)] {
        let fallback = Some(Fallback { failure_threshold: 1000, replicas: 0 });
        let mut replicas = Replicas::new(Rules { fallback, cooldown: at(60), ..rules() }, 3, at(0));
        drive(&mut replicas, 0, |_| backlog(30.0));
        assert_eq!(drive(&mut replicas, 600, |_| failure), [(90, 0)]);
    }
}

#[test]
fn an_idle_workload_has_no_replicas_and_starts_with_its_minimum() {
    let mut replicas = Replicas::new(Rules { min: 4, idle_at_zero: true, cooldown: at(60), ..rules() }, 4, at(0));
    let changes = drive(&mut replicas, 600, |second| backlog(if (300..330).contains(&second) { 20.0 } else { 0.0 }));
    assert_eq!(changes, [(30, 0), (300, 4), (390, 0)]);
}

#[test]
fn a_number_outside_the_limits_is_corrected_without_any_metric() {
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
    let rules = Rules { up, down, ..with_behavior() };
    let mut replicas = Replicas::new(rules.clone(), 10, at(0));
    // A rise by half is within the tolerance.
    assert_eq!(drive(&mut replicas, 45, |_| backlog(149.0)), []);
    // The lowest recommendation of the last minute is 10 until 105 s.
    assert_eq!(drive(&mut replicas, 120, |_| backlog(200.0)), [(105, 20)]);
    // Two per minute, although another policy allows five.
    assert_eq!(drive(&mut replicas, 240, |_| backlog(200.0)), []);
    assert_eq!(drive(&mut replicas, 330, |_| backlog(100.0)), [(255, 18), (315, 16)]);
    let disabled = Rules { down: Behavior { select: Select::Disabled, ..rules.down.clone() }, ..rules };
    let mut replicas = Replicas::new(disabled, 10, at(0));
    assert_eq!(drive(&mut replicas, 3600, |_| backlog(10.0)), []);
}

#[test]
fn a_percentage_down_is_truncated_to_whole_replicas() {
    let policies = vec![Policy { step: Step::Percent(10), period: at(60) }];
    let down = Behavior { stabilization_window: Duration::ZERO, policies, ..rules().down };
    let mut replicas = Replicas::new(Rules { down, ..with_behavior() }, 15, at(0));
    // 90 % of 15 is 13.5, truncated to 13.
    assert_eq!(replicas.observe(at(0), backlog(10.0)), 13);
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
    let directions = (any::<bool>(), any_behavior(), any_behavior());
    (0_u32..4, 1_u32..60, times, fallback, directions).prop_map(
        |(min, max, (poll, cooldown, sync), fallback, (has_behavior, up, down))| Rules {
            min,
            max: max.max(min),
            idle_at_zero: false,
            polling_interval: at(poll),
            cooldown: at(cooldown),
            initial_cooldown: Duration::ZERO,
            fallback: fallback.map(|(failure_threshold, replicas)| Fallback { failure_threshold, replicas }),
            sync_interval: at(sync),
            has_behavior,
            up,
            down,
        },
    )
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let value = prop_oneof![Just(0.0), 0.0..2000.0_f64];
    let success = (any::<bool>(), value, 0.001..50.0_f64);
    prop_oneof![
        8 => success.prop_map(|(active, value, target)| Ok(Observation { active: active || value > 0.0, value, target })),
        1 => Just(FAILED),
        1 => Just(Err(CallFailure::Spec)),
    ]
}

/// A workload with a random history, at the time of its next turn.
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
    fn a_failed_metric_spec_changes_nothing(mut replicas in any_replicas()) {
        let before = replicas.count();
        for _ in 0..100 {
            prop_assert_eq!(replicas.observe(replicas.due(), Err(CallFailure::Spec)), before);
        }
    }

    #[test]
    fn a_larger_backlog_never_asks_for_fewer_replicas(replicas in any_replicas(), one in 0.0..2000.0_f64, other in 0.0..2000.0_f64) {
        let wanted = |value: f64| {
            let mut replicas = replicas.clone();
            replicas.observe(replicas.due(), backlog(value))
        };
        prop_assert!(wanted(one.min(other)) <= wanted(one.max(other)));
    }

    #[test]
    fn the_number_stays_within_its_limits(mut replicas in any_replicas(), answers in prop::collection::vec(any_answer(), 1..40)) {
        for answer in answers {
            let count = replicas.observe(replicas.due(), answer);
            prop_assert!(count <= replicas.rules.max.max(1));
        }
    }

    #[test]
    fn under_a_constant_load_the_number_becomes_stable(mut replicas in any_replicas(), value in 0.0..2000.0_f64) {
        // Long enough for every window to pass, and for every number to be reached in steps of one.
        let settled = replicas.due() + at(6000);
        while replicas.due() < settled {
            replicas.observe(replicas.due(), backlog(value));
        }
        let count = replicas.count();
        for _ in 0..200 {
            prop_assert_eq!(replicas.observe(replicas.due(), backlog(value)), count);
        }
    }
}
