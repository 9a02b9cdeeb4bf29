//! The delays between attempts that fail.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// Half of the first delay and half of the longest delay. The random part adds up to the same time.
const HALF_OF_FIRST: Duration = Duration::from_millis(25);
const HALF_OF_LONGEST: Duration = Duration::from_secs(1);

/// Delays that double from 50 ms to 2 s. Each is shortened by a random part of up to a half, so that many processes do
/// not retry in step.
pub(crate) struct Backoff(ExponentialBackoff);

impl Default for Backoff {
    fn default() -> Self {
        let delays = ExponentialBuilder::new().with_min_delay(HALF_OF_FIRST).with_max_delay(HALF_OF_LONGEST);
        Self(delays.without_max_times().with_jitter().build())
    }
}

impl Backoff {
    /// How long to wait after one more failure.
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.0.next().unwrap_or(2 * HALF_OF_LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_50_milliseconds_to_2_seconds_less_up_to_a_half() {
        let mut backoff = Backoff::default();
        for longest in [50, 100, 200, 400, 800, 1_600, 2_000, 2_000] {
            let delay = backoff.next_delay().as_secs_f64() * 1_000.0;
            assert!((f64::from(longest) * 0.499..=f64::from(longest) * 1.001).contains(&delay), "{delay} {longest}");
        }
    }
}
