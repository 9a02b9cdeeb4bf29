//! The state of a simulated pool at one moment.

use std::time::Duration;

use policy::reading::{Fleet, Measurements, Reading};

/// The state of a simulated pool at one moment: the numbers that the scaler's sampler would read.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct View {
    /// The time.
    pub now: Duration,
    /// Jobs that wait.
    pub waiting: u64,
    /// Jobs that workers hold.
    pub leased: u64,
    /// The waiting time of the oldest waiting job.
    pub oldest_wait: Duration,
    /// Jobs that have arrived so far.
    pub arrived: u64,
    /// Jobs that have ended so far.
    pub ended: u64,
    /// Workers that take jobs.
    pub ready: u32,
    /// Workers that are loading.
    pub loading: u32,
    /// Workers that stop after their present batch.
    pub draining: u32,
    /// The loading times of all loading workers so far, added up.
    pub loading_for: Duration,
    /// The measurements of the workers.
    pub measurements: Measurements,
}

impl View {
    /// The same numbers as a reading of the scaler.
    pub fn reading(&self) -> Reading {
        Reading {
            taken_at: self.now,
            waiting: [0, self.waiting, 0],
            leased: self.leased,
            ended: self.ended,
            oldest_wait: (self.waiting > 0).then_some(self.oldest_wait),
            fleet: Fleet {
                ready: self.ready.into(),
                loading: self.loading.into(),
                draining: self.draining.into(),
                loading_for: self.loading_for,
                measurements: self.measurements,
            },
            ..Reading::default()
        }
    }
}
