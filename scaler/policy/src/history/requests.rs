//! The workers that were requested, and how long they take until they register.

use std::collections::VecDeque;
use std::time::Duration;

/// The weights of a new sample in the mean and in the mean deviation, and the number of deviations above the mean
/// (Jacobson and Karels, *Congestion avoidance and control*, 1988; RFC 6298).
const MEAN_WEIGHT: f64 = 1.0 / 8.0;
const DEVIATION_WEIGHT: f64 = 1.0 / 4.0;
const DEVIATIONS: f64 = 2.0;

/// A request that is not met within this time will not be met: there is a quota or a limit that this scaler does not know.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);

/// Requests of more workers than this many different numbers are forgotten, the oldest first.
const MAX_REQUESTS: usize = 32;

/// The numbers of workers that were requested and are not registered yet.
///
/// A pod that waits for a node or an image is in no roster. Without a record of the request, its absence would look
/// like a reason to request another one.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    /// Rising numbers of workers, with the time of the first request of each.
    pending: VecDeque<(Duration, f64)>,
    registered: f64,
    /// The number of registered workers above which a request was not met. It holds until one more registers, or until
    /// fewer are requested.
    limit: Option<f64>,
    now: Duration,
    mean_seconds: Option<f64>,
    deviation_seconds: f64,
}

impl Requests {
    /// Records a request for a total number of workers.
    pub(super) fn add(&mut self, at: Duration, workers: f64) {
        let mut workers = workers.ceil();
        if workers <= self.registered {
            self.limit = None;
        }
        workers = self.limit.map_or(workers, |limit| workers.min(limit));
        // A lower number cancels what exceeds it.
        let mut since = at;
        while let Some((requested, _)) = self.pending.back().copied().filter(|(_, number)| *number > workers) {
            self.pending.pop_back();
            since = requested;
        }
        let highest = self.pending.back().map_or(self.registered, |last| last.1);
        if workers > highest {
            if self.pending.len() == MAX_REQUESTS {
                self.pending.pop_front();
            }
            self.pending.push_back((since, workers));
        }
    }

    /// Records the number of registered workers.
    pub(super) fn observe(&mut self, now: Duration, registered: u64) {
        let registered = registered as f64;
        while let Some((at, workers)) = self.pending.front().copied()
            && workers <= registered
        {
            self.pending.pop_front();
            self.sample(now.saturating_sub(at).as_secs_f64());
        }
        (self.registered, self.now) = (registered, now);
        self.limit = self.limit.filter(|limit| registered <= *limit);
        if self.oldest().is_some_and(|age| age > MAX_AGE) {
            self.limit = Some(registered);
            self.pending.clear();
        }
    }

    fn sample(&mut self, seconds: f64) {
        match &mut self.mean_seconds {
            None => (self.mean_seconds, self.deviation_seconds) = (Some(seconds), seconds / 4.0),
            Some(mean) => {
                self.deviation_seconds += DEVIATION_WEIGHT * ((seconds - *mean).abs() - self.deviation_seconds);
                *mean += MEAN_WEIGHT * (seconds - *mean);
            }
        }
    }

    /// How long a worker takes until it registers, and at least the time since the oldest request: a worker that has not
    /// registered takes longer than that.
    pub(super) fn registration(&self) -> Option<Duration> {
        let measured = self.mean_seconds.map(|mean| mean + DEVIATIONS * self.deviation_seconds);
        let measured = measured.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        measured.max(self.oldest())
    }

    pub(super) fn on_the_way(&self) -> f64 {
        self.pending.back().map_or(0.0, |(_, workers)| (workers - self.registered).max(0.0))
    }

    pub(super) fn oldest(&self) -> Option<Duration> {
        self.pending.front().map(|(at, _)| self.now.saturating_sub(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_time_until_a_requested_worker_registers_is_measured() {
        let mut requests = Requests::default();
        requests.observe(SECOND, 1);
        requests.add(SECOND * 2, 3.2);
        requests.add(SECOND * 17, 4.0);
        // 3.2 workers are 4 as well, so the second request adds nothing.
        assert_eq!((requests.on_the_way(), requests.mean_seconds), (3.0, None));
        requests.observe(SECOND * 60, 3);
        assert_eq!((requests.on_the_way(), requests.mean_seconds), (1.0, None));
        assert_eq!(requests.registration(), Some(SECOND * 58), "the oldest request takes at least this long");
        requests.observe(SECOND * 62, 4);
        let registration = requests.registration().unwrap().as_secs_f64();
        // The first sample is the mean, and a quarter of it the deviation.
        assert_eq!(registration, 60.0 + 2.0 * 15.0);
        assert_eq!(requests.on_the_way(), 0.0);
    }

    #[test]
    fn a_request_that_a_limit_prevents_is_forgotten_and_not_repeated() {
        let mut requests = Requests::default();
        for second in (0..2000).step_by(15) {
            requests.observe(SECOND * second, 2);
            requests.add(SECOND * second, 5.0);
        }
        assert_eq!((requests.on_the_way(), requests.registration()), (0.0, None));
        // The limit is raised.
        requests.observe(SECOND * 2001, 3);
        requests.add(SECOND * 2010, 5.0);
        assert_eq!(requests.on_the_way(), 2.0);
    }

    #[test]
    fn workers_that_are_not_wanted_any_more_are_not_on_the_way() {
        let mut requests = Requests::default();
        requests.add(SECOND, 5.0);
        requests.add(SECOND * 16, 9.0);
        requests.add(SECOND * 31, 2.0);
        assert_eq!(requests.on_the_way(), 2.0);
        requests.add(SECOND * 46, 0.0);
        assert_eq!((requests.on_the_way(), requests.oldest()), (0.0, None));
    }
}
