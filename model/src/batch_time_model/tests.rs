//! The estimates of the batch time model for batches of many kinds.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The number of batches after which the model follows a change of up to ten times.
const FOLLOWED: usize = 400;

impl BatchTime {
    fn of(self, items: f64) -> f64 {
        self.base_seconds + items * self.item_seconds
    }
}

/// Batches whose times are on a line, with noise.
#[derive(Debug, Clone)]
struct Batches {
    truth: BatchTime,
    /// The items of each batch, and its noise as a share of its time.
    sizes: Vec<(usize, f64)>,
}

impl Batches {
    fn add_to(&self, model: &mut BatchTimeModel) {
        for (items, noise) in &self.sizes {
            let seconds = self.truth.of(*items as f64) * (1.0 + noise);
            model.add(*items, Duration::from_secs_f64(seconds));
        }
    }
}

/// Batch times from all base to none, and from milliseconds to minutes.
fn batch_times() -> impl Strategy<Value = BatchTime> {
    ((-3.0..2.0_f64), (0.0..=1.0_f64)).prop_map(|(magnitude, share)| {
        let seconds = 10_f64.powf(magnitude);
        BatchTime { base_seconds: seconds * share, item_seconds: seconds * (1.0 - share) / 16.0 }
    })
}

fn batches(sizes: std::ops::RangeInclusive<usize>, noise: f64, count: usize) -> impl Strategy<Value = Batches> {
    (batch_times(), vec((sizes, -noise..=noise), count)).prop_map(|(truth, sizes)| Batches { truth, sizes })
}

proptest! {
    #[test]
    fn the_base_and_the_item_of_noisy_batches_are_found(batches in batches(1..=32, 0.1, FOLLOWED)) {
        let mut model = BatchTimeModel::new(32);
        batches.add_to(&mut model);
        let (estimate, truth) = (model.estimate(), batches.truth);
        // The time of the largest batch sets the scale of the noise.
        let scale = truth.of(32.0);
        prop_assert!((estimate.base_seconds - truth.base_seconds).abs() < 0.1 * scale, "{estimate:?} is not {truth:?}");
        let item_error = (estimate.item_seconds - truth.item_seconds).abs();
        prop_assert!(32.0 * item_error < 0.15 * scale, "{estimate:?} is not {truth:?}");
        prop_assert!((estimate.of(32.0) / scale - 1.0).abs() < 0.1, "{estimate:?} is not {truth:?}");
    }

    #[test]
    fn batches_exactly_on_a_line_give_that_line(batches in batches(1..=32, 0.0, FOLLOWED)) {
        // The limit is low, so that `REACH` has no effect.
        let mut model = BatchTimeModel::new(16);
        batches.add_to(&mut model);
        let (estimate, truth) = (model.estimate(), batches.truth);
        for items in [1.0, 16.0, 32.0] {
            let off = estimate.of(items) - truth.of(items);
            prop_assert!(off.abs() < 0.01 * truth.of(32.0), "{estimate:?} is not {truth:?}");
        }
    }

    #[test]
    fn both_parts_are_always_finite_and_not_negative_and_never_both_zero(
        limit: usize,
        batches in vec((any::<usize>(), any::<Duration>()), 1..200),
    ) {
        let mut model = BatchTimeModel::new(limit);
        for (items, took) in batches {
            model.add(items.max(1), took);
            let estimate = model.estimate();
            prop_assert!(estimate.base_seconds.is_finite() && estimate.item_seconds.is_finite(), "{estimate:?}");
            // A larger batch takes no less time, and its throughput is no lower.
            prop_assert!(estimate.base_seconds >= 0.0 && estimate.item_seconds >= 0.0, "{estimate:?}");
            prop_assert!(estimate.base_seconds + estimate.item_seconds > 0.0, "{estimate:?}");
        }
    }

    #[test]
    fn batches_of_one_size_promise_no_gain_from_larger_ones(
        items in 1..=256_usize,
        took in vec(1..1000_u64, 1..200),
    ) {
        let mut model = BatchTimeModel::new(256);
        took.iter().for_each(|took| model.add(items, Duration::from_millis(*took)));
        let estimate = model.estimate();
        let (least, most) = (took.iter().min().unwrap(), took.iter().max().unwrap());
        prop_assert_eq!(estimate.base_seconds, 0.0);
        let item = estimate.item_seconds * 1000.0 * items as f64;
        prop_assert!(item > *least as f64 * 0.999 && item < *most as f64 * 1.001, "{item} ms");
    }

    #[test]
    fn the_model_follows_a_change_within_400_batches(
        before in batches(1..=32, 0.05, FOLLOWED),
        sizes in vec((1..=32_usize, -0.05..0.05_f64), FOLLOWED),
        times in 0.1..10.0_f64,
    ) {
        let mut model = BatchTimeModel::new(32);
        before.add_to(&mut model);
        let BatchTime { base_seconds, item_seconds } = before.truth;
        let truth = BatchTime { base_seconds: base_seconds * times, item_seconds: item_seconds * times };
        let after = Batches { truth, sizes };
        after.add_to(&mut model);
        for items in [1.0, 32.0] {
            let off = model.estimate().of(items) - truth.of(items);
            prop_assert!(off.abs() < 0.2 * truth.of(32.0), "{off} s at {items} of {truth:?}");
        }
    }

    /// The noise is a tenth, and the batches have few sizes. The model must not promise a throughput of full batches
    /// that was not measured.
    #[test]
    fn small_batches_do_not_promise_a_throughput_that_full_batches_do_not_have(
        batches in batches(1..=3, 0.1, 40),
        limit in 3..=256_usize,
    ) {
        let mut model = BatchTimeModel::new(limit);
        batches.add_to(&mut model);
        let limit = limit as f64;
        let estimate = model.estimate();
        prop_assert!(estimate.of(limit) > 0.85 * batches.truth.of(limit), "{estimate:?}");
    }

    /// A device whose batch time is constant up to some size and proportional to the size above it.
    #[test]
    fn beyond_twice_the_largest_batch_no_gain_is_promised(largest in 1..=32_usize, seed in vec(0.0..1.0_f64, 100)) {
        let mut model = BatchTimeModel::new(1024);
        for part in seed {
            model.add(1 + (part * largest as f64) as usize, Duration::from_millis(10));
        }
        let estimate = model.estimate();
        let throughput = |items: f64| items / estimate.of(items);
        prop_assert!(throughput(1024.0) <= 2.0 * largest as f64 / 0.010 * 1.001, "{estimate:?}");
    }
}

#[test]
fn before_the_first_batch_the_estimate_is_zero() {
    let mut model = BatchTimeModel::new(8);
    model.add(0, Duration::from_secs(1));
    assert_eq!(model.estimate(), BatchTime { base_seconds: 0.0, item_seconds: 0.0 });
}

#[test]
fn a_light_load_shows_the_throughput_of_full_batches_although_the_average_batch_does_not() {
    let truth = BatchTime { base_seconds: 0.090, item_seconds: 0.010 };
    let mut model = BatchTimeModel::new(16);
    for number in 0..200 {
        let items = 1 + number % 8;
        model.add(items, Duration::from_secs_f64(truth.of(items as f64)));
    }
    let (promised, real) = (16.0 / model.estimate().of(16.0), 16.0 / truth.of(16.0));
    let average = 4.5 / truth.of(4.5);
    assert!(promised > 0.9 * real && promised < 1.1 * real && average < 0.6 * real, "{promised}, {real}, {average}");
}

#[test]
fn one_slow_first_batch_does_not_make_large_batches_look_free() {
    let truth = BatchTime { base_seconds: 0.010, item_seconds: 0.010 };
    let mut model = BatchTimeModel::new(64);
    model.add(1, Duration::from_secs(5));
    for number in 0..200 {
        let items = 1 + number % 4;
        model.add(items, Duration::from_secs_f64(truth.of(items as f64)));
        let estimate = model.estimate();
        assert!(estimate.of(64.0) > 0.8 * truth.of(64.0), "after {number}: {estimate:?}");
    }
    let estimate = model.estimate();
    assert!(estimate.of(64.0) < 2.0 * truth.of(64.0), "{estimate:?}");
}
