//! The measurements of a pool's workers, as far as they show full batches.

use std::time::Duration;

use crate::reading::{BatchTime, Measurements, Reading};

/// The time over which a changed batch time is averaged. Single batches vary, and the number of workers must not follow
/// each of them.
const AVERAGED: Duration = Duration::from_secs(60);

/// Batches of at least this share of the widest ones show the same throughput.
const AS_WIDE: f64 = 0.9;

/// A batch time model agrees with the batches that run now if their times differ by at most this share.
const AGREES: f64 = 0.25;

/// The measurements of a pool's workers.
///
/// The throughput of full batches is known only while the batches are wide. When the load falls, batches shrink, and a
/// worker's model promises no more than a multiple of the batches that it saw lately. The load of the past must not be
/// divided by that. So a model of narrower batches does not replace one of wider batches, unless the latter disagrees
/// with the batches that run now. Then the worker itself has changed.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    measurements: Measurements,
    /// The items per batch from which the batch time model was measured.
    widest_items: f64,
    /// Since when the workers' models disagree with the stored one.
    disagrees_since: Option<Duration>,
    /// The batch time model was measured before this history began.
    is_recalled: bool,
    last: Option<Duration>,
}

impl Measured {
    /// The measurements.
    pub fn measurements(&self) -> Measurements {
        self.measurements
    }

    /// Whether the batch time model was measured before this history began.
    pub fn is_recalled(&self) -> bool {
        self.is_recalled
    }

    /// Adds measurements from before this history began. Newer measurements have precedence.
    pub(super) fn recall(&mut self, earlier: Measurements) {
        if self.measurements.batch_time.is_none()
            && let Some(recalled) = earlier.batch_time
        {
            self.is_recalled = true;
            self.widest_items = recalled.limit_items;
        }
        self.measurements = self.measurements.or(earlier);
    }

    /// Adds the measurements of a reading. A pool without workers gets no new ones, and the last ones stay valid.
    pub(super) fn add(&mut self, reading: &Reading) {
        let (now, fleet) = (reading.taken_at, &reading.fleet);
        let since = self.last.replace(now).map_or(Duration::ZERO, |last| now.saturating_sub(last));
        self.measurements.cold_start = fleet.measurements.cold_start.or(self.measurements.cold_start);
        let Some(new) = fleet.measurements.batch_time else { return };
        self.is_recalled = false;
        let items = fleet.batch_items;
        let other_limit = |old: BatchTime| old.limit_items != new.limit_items;
        let Some(old) = self.measurements.batch_time.filter(|old| items > 0.0 && !other_limit(*old)) else {
            // A full batch is assumed where the width is not reported.
            self.widest_items = if items > 0.0 { items } else { new.limit_items };
            self.measurements.batch_time = Some(new);
            return;
        };
        let is_as_wide = items >= AS_WIDE * self.widest_items;
        let agrees = (fleet.batch_seconds / old.seconds_of(items) - 1.0).abs() <= AGREES;
        if agrees {
            self.disagrees_since = None;
        }
        if is_as_wide {
            self.widest_items = self.widest_items.max(items);
            self.measurements.batch_time = Some(old.toward(new, 1.0 - (-since.div_duration_f64(AVERAGED)).exp()));
        } else if !agrees && now.saturating_sub(*self.disagrees_since.get_or_insert(now)) >= AVERAGED {
            self.disagrees_since = None;
            self.widest_items = items;
            self.measurements.batch_time = Some(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Fleet;

    /// A reading at a second, whose workers ran batches of `items` and have this batch time model.
    fn reading(second: u64, items: f64, base_seconds: f64, item_seconds: f64) -> Reading {
        let batch_time = Some(BatchTime { base_seconds, item_seconds, limit_items: 64.0 });
        let measurements = Measurements { batch_time, cold_start: None };
        let batch_seconds = base_seconds + items * item_seconds;
        let fleet = Fleet { ready: 1, batch_items: items, batch_seconds, measurements, ..Fleet::default() };
        Reading { taken_at: Duration::from_secs(second), fleet, ..Reading::default() }
    }

    fn throughput(measured: &Measured) -> f64 {
        measured.measurements().batch_time.unwrap().throughput()
    }

    #[test]
    fn a_falling_load_does_not_shrink_the_throughput() {
        let mut measured = Measured::default();
        measured.add(&reading(0, 64.0, 1.0, 0.02));
        let full = throughput(&measured);
        // One job at a time: the worker's own model promises two jobs per batch.
        for second in 1..600 {
            measured.add(&reading(second, 1.0, 0.0, 1.02));
        }
        assert_eq!(throughput(&measured), full);
    }

    #[test]
    fn a_worker_that_has_become_slower_is_believed_after_a_minute() {
        let mut measured = Measured::default();
        measured.add(&reading(0, 64.0, 1.0, 0.02));
        let full = throughput(&measured);
        for second in 1..=30 {
            measured.add(&reading(second, 1.0, 0.0, 3.0));
        }
        assert_eq!(throughput(&measured), full, "a short disturbance");
        for second in 31..=70 {
            measured.add(&reading(second, 1.0, 0.0, 3.0));
        }
        assert!((throughput(&measured) - 1.0 / 3.0).abs() < 1e-9, "{}", throughput(&measured));
    }

    #[test]
    fn a_changed_time_of_full_batches_is_averaged_over_a_minute() {
        let mut measured = Measured::default();
        measured.add(&reading(0, 64.0, 1.0, 0.02));
        measured.add(&reading(1, 64.0, 2.0, 0.02));
        let base = |measured: &Measured| measured.measurements().batch_time.unwrap().base_seconds;
        assert!((1.0..1.1).contains(&base(&measured)), "{}", base(&measured));
        for second in 2..300 {
            measured.add(&reading(second, 64.0, 2.0, 0.02));
        }
        assert!((1.98..=2.0).contains(&base(&measured)), "{}", base(&measured));
    }
}
