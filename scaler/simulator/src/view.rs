//! The state of a simulated pool at one moment.

use std::time::Duration;

use jiff::Timestamp;
use policy::reading::{Fleet, Reading};

/// The state of a simulated pool at one moment: the numbers that the scaler's sampler would read.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct View {
    /// The time.
    pub now: Duration,
    /// Jobs that wait, by class (in the order of [`queue::Class::ALL`]).
    pub waiting: [u64; 3],
    /// Jobs that workers hold.
    pub leased: u64,
    /// The waiting time of the oldest waiting job.
    pub oldest_wait: Duration,
    /// Jobs that have arrived so far.
    pub arrived: u64,
    /// Jobs that have ended so far.
    pub ended: u64,
    /// Workers that were started and have not registered yet. No reading contains them.
    pub provisioning: u32,
    /// The registered workers, as the scaler reads them.
    pub fleet: Fleet,
}

impl View {
    /// Jobs that wait, of all classes.
    pub fn waiting(&self) -> u64 {
        self.waiting.iter().sum()
    }

    /// Workers that take jobs.
    pub fn ready(&self) -> u32 {
        u32::try_from(self.fleet.ready).unwrap_or(u32::MAX)
    }

    /// Workers that are loading.
    pub fn loading(&self) -> u32 {
        u32::try_from(self.fleet.loading).unwrap_or(u32::MAX)
    }

    /// All workers that have a cost, except those that stop after their present batch.
    pub fn present(&self) -> u32 {
        self.provisioning + self.ready() + self.loading()
    }

    /// The same numbers as a reading of the scaler.
    pub fn reading(&self) -> Reading {
        Reading {
            taken_at: self.now,
            waiting: self.waiting,
            leased: self.leased,
            ended: self.ended,
            oldest_wait: (self.waiting() > 0).then_some(self.oldest_wait),
            fleet: self.fleet,
            ..Reading::default()
        }
    }
}

/// The date and time of a moment of a trace. A trace begins on a Monday at midnight, UTC.
pub fn clock(at: Duration) -> Timestamp {
    // 1970-01-05, the first Monday after the epoch.
    const MONDAY_SECONDS: i128 = 4 * 24 * 3600;
    let nanoseconds = i128::try_from(at.as_nanos()).unwrap_or(i128::MAX);
    Timestamp::from_nanosecond(nanoseconds.saturating_add(MONDAY_SECONDS * 1_000_000_000)).unwrap_or(Timestamp::MAX)
}
