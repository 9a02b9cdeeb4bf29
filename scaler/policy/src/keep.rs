//! How long workers are kept.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// How long workers are kept, and what the replay of the history shows of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Keep {
    /// How long, in seconds.
    pub seconds: f64,
    /// The share of late jobs in the replay with this time.
    pub late_share: f64,
    /// The smallest share of late jobs in a replay with any time.
    pub least_late_share: f64,
    /// The cost in the replay with this time, in worker-hours per day.
    pub worker_hours_per_day: f64,
    /// The time that was replayed, in seconds.
    pub replayed_seconds: f64,
}

/// The result of a replay counts for this time. A replay is the most expensive part of a decision, and a minute changes
/// little in a history of hours.
const COUNTS_FOR: Duration = Duration::from_secs(60);

/// The last result for one set of settings. A pool rarely has more than one ScaledObject.
#[derive(Debug, Default)]
pub(crate) struct LastKeep(Mutex<Option<(u64, Duration, Keep)>>);

impl LastKeep {
    /// The last result if it is recent and has the same settings, or else a new one.
    pub(crate) fn or_compute(&self, settings: u64, now: Duration, compute: impl FnOnce() -> Keep) -> Keep {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((of, at, keep)) if of == settings && now.saturating_sub(at) < COUNTS_FOR => keep,
            _ => {
                let keep = compute();
                *last = Some((settings, now, keep));
                keep
            }
        }
    }
}

impl Clone for LastKeep {
    fn clone(&self) -> Self {
        Self(Mutex::new(*self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_counts_for_a_minute_and_for_its_settings() {
        let last = LastKeep::default();
        let keep = |settings, second, seconds| {
            last.or_compute(settings, Duration::from_secs(second), || Keep { seconds, ..Keep::default() }).seconds
        };
        assert_eq!((keep(1, 0, 10.0), keep(1, 59, 20.0), keep(1, 60, 30.0)), (10.0, 10.0, 30.0));
        assert_eq!((keep(2, 61, 40.0), keep(1, 62, 50.0)), (40.0, 50.0));
    }
}
