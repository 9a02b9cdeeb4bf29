//! A forecast of arrivals for a short time ahead, from their level and trend.

use std::time::Duration;

use serde::Serialize;

use crate::history::History;

/// Arrivals are counted in intervals of this length.
const INTERVAL: Duration = Duration::from_secs(10);

/// The weight of the newest interval in the level, and of its difference to the interval before in the trend.
const LEVEL_WEIGHT: f64 = 0.4;
const TREND_WEIGHT: f64 = 0.1;

/// The smallest number of past forecasts that were compared with the real arrivals. With fewer comparisons there is no
/// forecast.
const MIN_TESTS: usize = 6;

/// A forecast of arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Forecast {
    /// The expected jobs per second.
    pub arrivals: f64,
    /// How far the forecast looks ahead, in seconds.
    pub horizon_seconds: f64,
    /// The mean absolute error of the earlier forecasts, in jobs per second.
    pub mean_absolute_error: f64,
}

impl Forecast {
    /// Double exponential smoothing (Holt 1957), and its error on the history so far. `None`: the history is too short.
    pub fn of(history: &History, horizon: Duration) -> Option<Self> {
        let now = history.latest()?.taken_at;
        let intervals = (history.span().as_secs() / INTERVAL.as_secs()) as u32;
        let steps = horizon.as_secs_f64().div_euclid(INTERVAL.as_secs_f64()).max(1.0);
        let mut pending = std::collections::VecDeque::new();
        let (mut level, mut trend) = (0.0, 0.0);
        let (mut error, mut tests) = (0.0, 0);
        for number in (0..intervals).rev() {
            let until = now.saturating_sub(INTERVAL * number);
            let rate = history.arrivals_per_second(INTERVAL, until);
            if pending.len() as f64 >= steps
                && let Some(expected) = pending.pop_front()
            {
                error += f64::abs(rate - expected);
                tests += 1;
            }
            if number + 1 == intervals {
                level = rate;
            } else {
                let before = level;
                level = LEVEL_WEIGHT * rate + (1.0 - LEVEL_WEIGHT) * (level + trend);
                trend = TREND_WEIGHT * (level - before) + (1.0 - TREND_WEIGHT) * trend;
            }
            pending.push_back(f64::max(level + steps * trend, 0.0));
        }
        let arrivals = pending.pop_back().filter(|_| tests >= MIN_TESTS)?;
        Some(Self {
            arrivals,
            horizon_seconds: steps * INTERVAL.as_secs_f64(),
            mean_absolute_error: error / tests as f64,
        })
    }
}
