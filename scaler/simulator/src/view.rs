//! What a policy sees of a pool at one moment.

use std::time::Duration;

use policy::reading::{Fleet, Measured, Reading};

/// What a policy sees of a pool: what the scaler's sampler reads.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct View {
    /// When.
    pub now: Duration,
    /// Jobs that nobody holds.
    pub waiting: u64,
    /// Jobs in workers' hands.
    pub leased: u64,
    /// How long the oldest of those that wait has waited.
    pub oldest: Duration,
    /// Jobs that have ever arrived.
    pub arrived: u64,
    /// Jobs that have ended.
    pub ended: u64,
    /// Workers that take jobs.
    pub ready: u32,
    /// Workers that load.
    pub loading: u32,
    /// Workers that end with the batch they run.
    pub draining: u32,
    /// For how long those that load have done so, in all.
    pub loading_for: Duration,
    /// What the workers have measured so far.
    pub measured: Measured,
}

impl View {
    /// The same as the scaler's sampler says it.
    pub fn reading(&self) -> Reading {
        Reading {
            taken_at: self.now,
            waiting: [0, self.waiting, 0],
            leased: self.leased,
            ended: self.ended,
            oldest: (self.waiting > 0).then_some(self.oldest),
            fleet: Fleet {
                ready: self.ready.into(),
                loading: self.loading.into(),
                draining: self.draining.into(),
                loading_for: self.loading_for,
                measured: self.measured,
            },
            ..Reading::default()
        }
    }
}
