//! The readings of one pool, and why the latest one failed.

use std::time::Duration;

use policy::history::History;
use policy::reading::{Measurements, Reading};

use crate::failure::{NoCurrentReading, ReadFailure};

/// The readings of one pool.
#[derive(Debug, Default)]
pub(crate) struct PoolReadings {
    /// The successful readings.
    pub(crate) history: History,
    /// Whether the roster has answered the request for the measurements from before the history began.
    pub(crate) has_recalled: bool,
    /// The failure of the reading after the last successful one.
    pub(crate) failure: Option<ReadFailure>,
}

impl PoolReadings {
    /// The history, unless its last reading is missing or older than `max_age`. Without this check the answer would be
    /// 0, and 0 stops workers.
    pub(crate) fn current(&self, now: Duration, max_age: Duration) -> Result<&History, NoCurrentReading> {
        let missing = |age| NoCurrentReading { age, failure: self.failure.clone() };
        let reading = self.history.latest().ok_or_else(|| missing(None))?;
        let age = now.saturating_sub(reading.taken_at);
        if age > max_age { Err(missing(Some((age, max_age)))) } else { Ok(&self.history) }
    }

    /// Adds measurements from the roster. A reading follows and wakes subscribers, so this call returns false.
    pub(crate) fn recall(&mut self, earlier: Option<queue::Measured>) -> bool {
        self.history.recall(earlier.map_or_else(Measurements::default, Measurements::from));
        self.has_recalled = true;
        false
    }

    /// Adds a reading. Returns whether subscribers must be notified.
    pub(crate) fn add(&mut self, reading: Reading) -> bool {
        let latest = self.history.latest();
        if latest.is_some_and(|latest| latest.taken_at >= reading.taken_at) {
            // This reading began before the last one, but ended after it.
            return false;
        }
        let changed = self.failure.is_some() || !latest.is_some_and(|latest| latest.has_same_activity_as(&reading));
        self.history.add(reading);
        self.failure = None;
        changed
    }

    /// Records a failed reading. Returns whether subscribers must be notified.
    pub(crate) fn fail(&mut self, failure: ReadFailure) -> bool {
        self.failure.replace(failure).is_none()
    }

    /// Whether the pool had no backlog, so that a reported arrival is a reason to read it at once.
    pub(crate) fn is_idle(&self) -> bool {
        self.history.latest().is_none_or(|reading| reading.backlog() == 0)
    }
}
