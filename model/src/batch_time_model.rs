//! The batch time model: the time of a batch by its size, estimated from batches that ran. It is pure, without a clock.

use std::time::Duration;

/// The factor by which the weight of a batch falls with every further batch. After 34 batches, half of the weight is
/// left; after 400 batches, 1/3000.
const DECAY: f64 = 0.98;

/// The number of standard errors that are added to the fitted slope. With normal errors, 98 % of the true slopes are
/// below the sum.
const STANDARD_ERRORS: f64 = 2.0;

/// The assumed noise of a batch time, as a share of it, until enough batches show the real noise.
const FIRST_NOISE: f64 = 0.25;

/// The largest batch for which the line is trusted, as a multiple of the largest recent batch.
const REACH: f64 = 2.0;

/// The seconds of a batch over its items, as a line. The line is fitted to the batches that ran. If these show too
/// little, the estimated times are too long, not too short.
///
/// The fit is weighted least squares; the weight of a batch falls with every further batch by `DECAY`. Let n be items
/// and t seconds, and let S be sums over the weighted deviations from the weighted means. The slope is then S_nt /
/// S_nn. Its standard error is at most σ / √S_nn, because no weight exceeds 1. The line passes through (mean n, mean t)
/// (Draper and Smith, *Applied Regression Analysis*, chapter 1). The sums are updated without cancellation (West,
/// *Updating mean and variance estimates: an improved method*, 1979).
///
/// The scaler reads the time of full batches from the line, while most batches may be small. With a slope that is too
/// low, the model would promise a throughput that no full batch has shown. So the line passes through the means, and
/// its slope is
/// - `STANDARD_ERRORS` above the fitted slope. σ² is the mean square of the residuals. The weights need some batches
///   to grow to their limit. Until then, the missing share of them counts with the noise `FIRST_NOISE`;
/// - at least the slope at which a full batch has the throughput of a batch of `REACH` times the largest recent
///   batch. Larger batches raise the throughput of hardware only up to a size, and a line through small batches cannot
///   show that size. If the estimate lets a pool shrink, the remaining workers run larger batches, which show more;
/// - at most mean t / mean n, the slope of a line from the origin: batching gains nothing. If the sizes vary too
///   little, the standard error is large, and this is the line;
/// - at least 0.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchTimeModel {
    max_batch_items: f64,
    weight: f64,
    mean_items: f64,
    mean_seconds: f64,
    /// S_nn, S_nt, S_tt.
    items_items: f64,
    items_seconds: f64,
    seconds_seconds: f64,
    /// The largest recent batch: it shrinks by `DECAY` with every further batch.
    largest: f64,
}

/// A batch of n items takes `base_seconds` + n × `item_seconds`. Neither is negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchTime {
    /// The part that does not depend on the size.
    pub base_seconds: f64,
    /// The additional time of each item.
    pub item_seconds: f64,
}

impl BatchTimeModel {
    /// The model of an instance that runs batches of up to `max_batch_items`, before its first batch.
    pub fn new(max_batch_items: usize) -> Self {
        Self {
            max_batch_items: max_batch_items as f64,
            weight: 0.0,
            mean_items: 0.0,
            mean_seconds: 0.0,
            items_items: 0.0,
            items_seconds: 0.0,
            seconds_seconds: 0.0,
            largest: 0.0,
        }
    }

    /// Adds a batch that ran. A batch without items is ignored.
    pub fn add(&mut self, items: usize, took: Duration) {
        if items == 0 {
            return;
        }
        // A coarse clock can measure 0, but no batch takes no time.
        let (items, seconds) = (items as f64, took.max(Duration::from_nanos(1)).as_secs_f64());
        self.largest = items.max(self.largest * DECAY);
        self.weight = self.weight * DECAY + 1.0;
        let (from_items, from_seconds) = (items - self.mean_items, seconds - self.mean_seconds);
        self.mean_items += from_items / self.weight;
        self.mean_seconds += from_seconds / self.weight;
        self.items_items = self.items_items * DECAY + from_items * (items - self.mean_items);
        self.items_seconds = self.items_seconds * DECAY + from_items * (seconds - self.mean_seconds);
        self.seconds_seconds = self.seconds_seconds * DECAY + from_seconds * (seconds - self.mean_seconds);
    }

    /// The present estimate. Both parts are 0 before the first batch.
    pub fn estimate(&self) -> BatchTime {
        if self.weight == 0.0 {
            return BatchTime { base_seconds: 0.0, item_seconds: 0.0 };
        }
        let without_gain = self.mean_seconds / self.mean_items;
        let slope = match self.cautious_slope() {
            Some(slope) if slope < without_gain => slope,
            _ => return BatchTime { base_seconds: 0.0, item_seconds: without_gain },
        };
        let item_seconds = slope.max(self.least_slope(slope)).min(without_gain);
        BatchTime { base_seconds: (self.mean_seconds - item_seconds * self.mean_items).max(0.0), item_seconds }
    }

    /// The fitted slope plus `STANDARD_ERRORS`, and at least 0. `None`: all batches had one size.
    fn cautious_slope(&self) -> Option<f64> {
        let fitted = self.items_seconds / self.items_items;
        let residuals = (self.seconds_seconds - fitted * self.items_seconds).max(0.0) / self.weight;
        // The sum of the weights grows to a limit of 1 / (1 - DECAY).
        let missing = (1.0 - self.weight * (1.0 - DECAY)).max(0.0);
        let noise = residuals + missing * (FIRST_NOISE * self.mean_seconds).powi(2);
        let slope = fitted + STANDARD_ERRORS * (noise / self.items_items).sqrt();
        slope.is_finite().then_some(slope.max(0.0))
    }

    /// The least slope at which a full batch has no more throughput than the largest batch for which `slope` is
    /// trusted.
    fn least_slope(&self, slope: f64) -> f64 {
        let trusted = REACH * self.largest.max(self.mean_items);
        if trusted >= self.max_batch_items {
            return slope;
        }
        let trusted_seconds = self.mean_seconds + slope * (trusted - self.mean_items);
        (trusted_seconds * self.max_batch_items / trusted - self.mean_seconds)
            / (self.max_batch_items - self.mean_items)
    }
}

#[cfg(test)]
mod tests;
