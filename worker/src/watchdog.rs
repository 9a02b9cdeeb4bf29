//! Finds work that does not return. A thread cannot be stopped, so such work ends the worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use queue::JobId;
use tokio::time::sleep;

/// The longest time between two looks at the running work.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// The work that runs now, with its time limit.
pub(crate) struct Watchdog {
    limit: Duration,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    started: u64,
    by_number: BTreeMap<u64, WatchedWork>,
}

/// Work that calls foreign code.
#[derive(Debug, Clone)]
pub(crate) struct WatchedWork {
    pub(crate) step: &'static str,
    pub(crate) jobs: Arc<[JobId]>,
    since: Instant,
}

/// Watches its work until it is dropped.
pub(crate) struct Watch<'w> {
    watchdog: &'w Watchdog,
    number: u64,
}

impl Watchdog {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, running: Mutex::default() }
    }

    /// Watches work that begins now. `jobs` are the jobs that it is for.
    pub(crate) fn watch(&self, step: &'static str, jobs: Arc<[JobId]>) -> Watch<'_> {
        let mut running = self.running.lock();
        running.started += 1;
        let number = running.started;
        running.by_number.insert(number, WatchedWork { step, jobs, since: Instant::now() });
        Watch { watchdog: self, number }
    }

    /// Waits until work has run for longer than the limit, and returns this work.
    pub(crate) async fn overdue(&self) -> WatchedWork {
        loop {
            let overdue =
                self.running.lock().by_number.values().find(|work| work.since.elapsed() > self.limit).cloned();
            if let Some(work) = overdue {
                return work;
            }
            sleep((self.limit / 4).clamp(Duration::from_millis(1), LONGEST_LOOK)).await;
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.watchdog.running.lock().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_work_that_has_not_ended_is_overdue() {
        let watchdog = Watchdog::new(Duration::from_millis(5));
        drop(watchdog.watch("a batch", Arc::from([])));
        let _watch = watchdog.watch("preparing an input", Arc::from(["stuck".parse().unwrap()]));
        let work = watchdog.overdue().await;
        assert_eq!((work.step, work.jobs[0].as_str()), ("preparing an input", "stuck"));
    }
}
