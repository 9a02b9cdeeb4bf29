//! A short-horizon forecast of arrivals: level and trend.

use std::time::Duration;

use serde::Serialize;

use crate::history::History;

/// Arrivals are counted in parts of this length.
const PART: Duration = Duration::from_secs(10);

/// How much the newest part weighs in the level, and its difference to the one before in the trend.
const LEVEL_WEIGHT: f64 = 0.4;
const TREND_WEIGHT: f64 = 0.1;

/// With fewer forecasts that have been put to the test, none is made.
const FEWEST_TESTS: usize = 6;

/// What is foreseen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Forecast {
    /// Jobs per second that will arrive.
    pub arrivals: f64,
    /// In so many seconds.
    pub horizon_seconds: f64,
    /// By how many jobs per second the forecasts of the history seen were off, on average.
    pub mean_absolute_error: f64,
}

impl Forecast {
    /// Double exponential smoothing (Holt 1957), and how well it would have done before. `None`: too little has been seen.
    pub fn of(history: &History, horizon: Duration) -> Option<Self> {
        let now = history.latest()?.taken_at;
        let parts = (history.span().as_secs() / PART.as_secs()) as u32;
        let steps = horizon.as_secs_f64().div_euclid(PART.as_secs_f64()).max(1.0);
        let mut pending = std::collections::VecDeque::new();
        let (mut level, mut trend) = (0.0, 0.0);
        let (mut error, mut tests) = (0.0, 0);
        for number in (0..parts).rev() {
            let until = now.saturating_sub(PART * number);
            let rate = history.arrivals_per_second(PART, until);
            if pending.len() as f64 >= steps
                && let Some(foreseen) = pending.pop_front()
            {
                error += f64::abs(rate - foreseen);
                tests += 1;
            }
            if number + 1 == parts {
                level = rate;
            } else {
                let before = level;
                level = LEVEL_WEIGHT * rate + (1.0 - LEVEL_WEIGHT) * (level + trend);
                trend = TREND_WEIGHT * (level - before) + (1.0 - TREND_WEIGHT) * trend;
            }
            pending.push_back(f64::max(level + steps * trend, 0.0));
        }
        let arrivals = pending.pop_back().filter(|_| tests >= FEWEST_TESTS)?;
        Some(Self { arrivals, horizon_seconds: steps * PART.as_secs_f64(), mean_absolute_error: error / tests as f64 })
    }
}
