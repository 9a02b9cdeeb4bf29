//! Logs what the queue denies to this gateway. Every request fails with it, so not each failure is logged.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The interval at which a lasting denial is logged again.
const LOG_EVERY: Duration = Duration::from_secs(60);

static LOGGED: Mutex<Option<LoggedDenial>> = Mutex::new(None);

struct LoggedDenial {
    at: Instant,
    /// The number of denials after it that were not logged.
    unlogged: u64,
}

/// Logs a denial, at most once per [`LOG_EVERY`].
pub(super) fn log(error: &queue::Error) {
    if let Some(unlogged) = next(&mut LOGGED.lock().unwrap_or_else(PoisonError::into_inner), Instant::now()) {
        tracing::error!(%error, unlogged, "the queue denies requests of this gateway; check credentials and rights");
    }
}

/// The number of unlogged denials if one is to be logged now.
fn next(logged: &mut Option<LoggedDenial>, now: Instant) -> Option<u64> {
    if let Some(logged) = logged
        && now.duration_since(logged.at) < LOG_EVERY
    {
        logged.unlogged += 1;
        return None;
    }
    let before = logged.replace(LoggedDenial { at: now, unlogged: 0 });
    Some(before.map_or(0, |logged| logged.unlogged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_denial_is_logged_once_a_minute_with_the_number_of_the_others() {
        let (mut logged, start) = (None, Instant::now());
        assert_eq!(next(&mut logged, start), Some(0));
        assert_eq!(next(&mut logged, start), None);
        assert_eq!(next(&mut logged, start + Duration::from_secs(59)), None);
        assert_eq!(next(&mut logged, start + LOG_EVERY), Some(2));
    }
}
