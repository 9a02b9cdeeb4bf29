//! What the curve says of batches of every kind.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// After so many batches a change of up to ten times is in the curve.
const FOLLOWED: usize = 400;

impl Line {
    fn batch(self, items: f64) -> f64 {
        self.base_seconds + items * self.item_seconds
    }
}

/// Batches that take a line, each off it by a share of its time.
#[derive(Debug, Clone)]
struct Batches {
    line: Line,
    /// The items, and by which share of its time the batch is off.
    seen: Vec<(usize, f64)>,
}

impl Batches {
    fn feed(&self, curve: &mut Curve) {
        for (items, off) in &self.seen {
            let seconds = self.line.batch(*items as f64) * (1.0 + off);
            curve.batch(*items, Duration::from_secs_f64(seconds));
        }
    }
}

/// From all base to none, from batches of a millisecond to such of minutes.
fn lines() -> impl Strategy<Value = Line> {
    ((-3.0..2.0_f64), (0.0..=1.0_f64)).prop_map(|(magnitude, share)| {
        let seconds = 10_f64.powf(magnitude);
        Line { base_seconds: seconds * share, item_seconds: seconds * (1.0 - share) / 16.0 }
    })
}

fn batches(sizes: std::ops::RangeInclusive<usize>, noise: f64, count: usize) -> impl Strategy<Value = Batches> {
    (lines(), vec((sizes, -noise..=noise), count)).prop_map(|(line, seen)| Batches { line, seen })
}

proptest! {
    #[test]
    fn the_base_and_the_item_of_noisy_batches_are_found(batches in batches(1..=32, 0.1, FOLLOWED)) {
        let mut curve = Curve::new(32);
        batches.feed(&mut curve);
        let (line, truth) = (curve.line(), batches.line);
        // Of what the largest batch takes, which is what the scale of the noise is.
        let scale = truth.batch(32.0);
        prop_assert!((line.base_seconds - truth.base_seconds).abs() < 0.1 * scale, "{line:?} is not {truth:?}");
        prop_assert!(32.0 * (line.item_seconds - truth.item_seconds).abs() < 0.15 * scale, "{line:?} is not {truth:?}");
        prop_assert!((line.batch(32.0) / scale - 1.0).abs() < 0.1, "{line:?} is not {truth:?}");
    }

    #[test]
    fn batches_exactly_on_a_line_give_that_line(batches in batches(1..=32, 0.0, FOLLOWED)) {
        // So small that the reach of what was seen plays no part.
        let mut curve = Curve::new(16);
        batches.feed(&mut curve);
        let (line, truth) = (curve.line(), batches.line);
        for items in [1.0, 16.0, 32.0] {
            let off = line.batch(items) - truth.batch(items);
            prop_assert!(off.abs() < 0.01 * truth.batch(32.0), "{line:?} is not {truth:?}");
        }
    }

    #[test]
    fn whatever_was_seen_both_are_finite_and_neither_negative_nor_are_both_nothing(
        limit: usize,
        seen in vec((any::<usize>(), any::<Duration>()), 1..200),
    ) {
        let mut curve = Curve::new(limit);
        for (items, took) in seen {
            curve.batch(items.max(1), took);
            let line = curve.line();
            prop_assert!(line.base_seconds.is_finite() && line.item_seconds.is_finite(), "{line:?}");
            // A larger batch takes no less, and gives no less per second.
            prop_assert!(line.base_seconds >= 0.0 && line.item_seconds >= 0.0, "{line:?}");
            prop_assert!(line.base_seconds + line.item_seconds > 0.0, "{line:?}");
        }
    }

    #[test]
    fn batches_of_one_size_promise_no_gain_from_larger_ones(
        items in 1..=256_usize,
        took in vec(1..1000_u64, 1..200),
    ) {
        let mut curve = Curve::new(256);
        took.iter().for_each(|took| curve.batch(items, Duration::from_millis(*took)));
        let line = curve.line();
        let (least, most) = (took.iter().min().unwrap(), took.iter().max().unwrap());
        prop_assert_eq!(line.base_seconds, 0.0);
        let item = line.item_seconds * 1000.0 * items as f64;
        prop_assert!(item > *least as f64 * 0.999 && item < *most as f64 * 1.001, "{item} ms");
    }

    #[test]
    fn a_change_is_followed_within_so_many_batches(
        before in batches(1..=32, 0.05, FOLLOWED),
        seen in vec((1..=32_usize, -0.05..0.05_f64), FOLLOWED),
        times in 0.1..10.0_f64,
    ) {
        let mut curve = Curve::new(32);
        before.feed(&mut curve);
        let Line { base_seconds, item_seconds } = before.line;
        let line = Line { base_seconds: base_seconds * times, item_seconds: item_seconds * times };
        let after = Batches { line, seen };
        after.feed(&mut curve);
        for items in [1.0, 32.0] {
            let off = curve.line().batch(items) - line.batch(items);
            prop_assert!(off.abs() < 0.2 * line.batch(32.0), "{off} s at {items} of {line:?}");
        }
    }

    /// A tenth of noise, batches of a few sizes: the throughput of full ones is not promised where it was not seen.
    #[test]
    fn small_batches_do_not_promise_full_ones_a_throughput_that_they_have_not(
        batches in batches(1..=3, 0.1, 40),
        limit in 3..=256_usize,
    ) {
        let mut curve = Curve::new(limit);
        batches.feed(&mut curve);
        let limit = limit as f64;
        prop_assert!(curve.line().batch(limit) > 0.85 * batches.line.batch(limit), "{:?}", curve.line());
    }

    /// On a device that is flat up to some size and linear from there, each further item costing as much as before.
    #[test]
    fn beyond_twice_the_largest_batch_no_gain_is_promised(largest in 1..=32_usize, seed in vec(0.0..1.0_f64, 100)) {
        let mut curve = Curve::new(1024);
        for part in seed {
            curve.batch(1 + (part * largest as f64) as usize, Duration::from_millis(10));
        }
        let line = curve.line();
        let throughput = |items: f64| items / line.batch(items);
        prop_assert!(throughput(1024.0) <= 2.0 * largest as f64 / 0.010 * 1.001, "{line:?}");
    }
}

#[test]
fn before_the_first_batch_there_is_nothing() {
    let mut curve = Curve::new(8);
    curve.batch(0, Duration::from_secs(1));
    assert_eq!(curve.line(), Line { base_seconds: 0.0, item_seconds: 0.0 });
}

#[test]
fn a_light_load_shows_what_full_batches_can_do_though_the_average_batch_does_not() {
    let truth = Line { base_seconds: 0.090, item_seconds: 0.010 };
    let mut curve = Curve::new(16);
    for number in 0..200 {
        let items = 1 + number % 8;
        curve.batch(items, Duration::from_secs_f64(truth.batch(items as f64)));
    }
    let (promised, real) = (16.0 / curve.line().batch(16.0), 16.0 / truth.batch(16.0));
    let average = 4.5 / truth.batch(4.5);
    assert!(promised > 0.9 * real && promised < 1.1 * real && average < 0.6 * real, "{promised}, {real}, {average}");
}

#[test]
fn one_cold_batch_does_not_make_large_ones_look_free() {
    let truth = Line { base_seconds: 0.010, item_seconds: 0.010 };
    let mut curve = Curve::new(64);
    curve.batch(1, Duration::from_secs(5));
    for number in 0..200 {
        let items = 1 + number % 4;
        curve.batch(items, Duration::from_secs_f64(truth.batch(items as f64)));
        assert!(curve.line().batch(64.0) > 0.8 * truth.batch(64.0), "after {number}: {:?}", curve.line());
    }
    assert!(curve.line().batch(64.0) < 2.0 * truth.batch(64.0), "{:?}", curve.line());
}
