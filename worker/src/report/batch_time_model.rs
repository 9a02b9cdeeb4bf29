//! What a batch takes by its size, from the batches seen: pure, without a clock.

use std::time::Duration;

/// How much of the weight of a batch is left after the next one. After 34 batches half of it is left, after 400 a
/// three-thousandth part.
const KEPT: f64 = 0.98;

/// How far the slope is taken above the fitted one, in standard errors: for a normal error, 98 % of the true slopes are
/// less.
const STANDARD_ERRORS: f64 = 2.0;

/// How much of its time a batch is taken to vary by before batches have shown it.
const FIRST_NOISE: f64 = 0.25;

/// Up to how many times the largest batch seen lately the line is followed.
const REACH: f64 = 2.0;

/// Seconds of a batch over its items, as a line: fitted to the batches seen, and careful where they do not tell.
///
/// The fit is that of weighted least squares, a batch's weight falling with every further one by [`KEPT`]. With n for
/// items, t for seconds and the sums S over the weighted deviations from the weighted means, its slope is S_nt /
/// S_nn, its standard error at most σ / √S_nn, as no weight is over 1, and it passes through (mean n, mean t) (Draper
/// and Smith, *Applied Regression Analysis*, chapter 1). The sums are kept by updates that do not cancel (West,
/// *Updating mean and variance estimates: an improved method*, 1979).
///
/// What is asked of the line is the time of full batches, while most batches may be small. Too low a slope would
/// promise a throughput that no full batch has shown. So the line passes through the means, and its slope is
/// - [`STANDARD_ERRORS`] above the fitted one. σ² is the mean square of the residuals; until many batches were seen,
///   part of the square of [`FIRST_NOISE`] of the mean t is added: the part by which a full memory weighs more;
/// - at least one with which a full batch has no more throughput than one of [`REACH`] times the largest batch seen
///   (whose size is forgotten like all else). Hardware gains from larger batches only up to a size, which no line
///   through small ones can show. If the promise lets a pool go down to fewer workers, their batches are larger, and
///   tell more;
/// - at most mean t / mean n, which is that of a line from the origin: no gain from batching. Where sizes vary too
///   little to tell, the standard error is large, and this is the line;
/// - at least 0.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve {
    limit: f64,
    weight: f64,
    items: f64,
    seconds: f64,
    /// S_nn, S_nt, S_tt.
    items_items: f64,
    items_seconds: f64,
    seconds_seconds: f64,
    /// The largest batch seen, forgotten like all else.
    largest: f64,
}

/// A batch of n items takes `base_seconds` + n × `item_seconds`. Neither is negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    pub(crate) base_seconds: f64,
    pub(crate) item_seconds: f64,
}

impl Curve {
    /// Of an instance that runs batches of up to `max_batch_items` and has run none.
    pub(crate) fn new(max_batch_items: usize) -> Self {
        Self {
            limit: max_batch_items as f64,
            weight: 0.0,
            items: 0.0,
            seconds: 0.0,
            items_items: 0.0,
            items_seconds: 0.0,
            seconds_seconds: 0.0,
            largest: 0.0,
        }
    }

    /// A batch was seen. One of no items is none.
    pub(crate) fn batch(&mut self, items: usize, took: Duration) {
        if items == 0 {
            return;
        }
        // A clock may not have moved; a batch is not free for that.
        let (items, seconds) = (items as f64, took.max(Duration::from_nanos(1)).as_secs_f64());
        self.largest = items.max(self.largest * KEPT);
        self.weight = self.weight * KEPT + 1.0;
        let (from_items, from_seconds) = (items - self.items, seconds - self.seconds);
        self.items += from_items / self.weight;
        self.seconds += from_seconds / self.weight;
        self.items_items = self.items_items * KEPT + from_items * (items - self.items);
        self.items_seconds = self.items_seconds * KEPT + from_items * (seconds - self.seconds);
        self.seconds_seconds = self.seconds_seconds * KEPT + from_seconds * (seconds - self.seconds);
    }

    /// What batches take by now; all 0 before the first.
    pub(crate) fn line(&self) -> Line {
        if self.weight == 0.0 {
            return Line { base_seconds: 0.0, item_seconds: 0.0 };
        }
        let without_gain = self.seconds / self.items;
        let slope = match self.careful_slope() {
            Some(slope) if slope < without_gain => slope,
            _ => return Line { base_seconds: 0.0, item_seconds: without_gain },
        };
        let item_seconds = slope.max(self.least_slope(slope)).min(without_gain);
        Line { base_seconds: (self.seconds - item_seconds * self.items).max(0.0), item_seconds }
    }

    /// The fitted slope and so many standard errors; at least 0. `None`: all batches were of one size.
    fn careful_slope(&self) -> Option<f64> {
        let fitted = self.items_seconds / self.items_items;
        let residuals = (self.seconds_seconds - fitted * self.items_seconds).max(0.0) / self.weight;
        // 1 - KEPT is one over the weight of a memory that is full.
        let missing = (1.0 - self.weight * (1.0 - KEPT)).max(0.0);
        let noise = residuals + missing * (FIRST_NOISE * self.seconds).powi(2);
        let slope = fitted + STANDARD_ERRORS * (noise / self.items_items).sqrt();
        slope.is_finite().then_some(slope.max(0.0))
    }

    /// The least slope with which a full batch has no more throughput than one as large as can be told of by `slope`.
    fn least_slope(&self, slope: f64) -> f64 {
        let told = REACH * self.largest.max(self.items);
        if told >= self.limit {
            return slope;
        }
        let seconds_told = self.seconds + slope * (told - self.items);
        (seconds_told * self.limit / told - self.seconds) / (self.limit - self.items)
    }
}

#[cfg(test)]
mod tests;
