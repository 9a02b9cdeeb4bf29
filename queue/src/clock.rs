//! The clock of a backend. A test moves it by hand, so that it need not wait for leases and deadlines.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use std::time::Duration;

use jiff::Timestamp;

/// The system's clock, or one that a test moves by hand.
#[derive(Debug, Clone, Default)]
pub struct Clock(Kind);

#[derive(Debug, Clone, Default)]
enum Kind {
    #[default]
    System,
    /// A clock that does not run by itself. The value is its time, in milliseconds.
    Manual(Arc<AtomicI64>),
    /// A clock that runs by itself. The value is the difference to the system's clock, in milliseconds.
    Shifted(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self(Kind::Manual(Arc::new(AtomicI64::new(start.as_millisecond()))))
    }

    /// The system's clock, which a test may move ahead: for backends that use a server's time.
    pub fn shifted() -> Self {
        Self(Kind::Shifted(Arc::default()))
    }

    /// Now, in milliseconds since the Unix epoch.
    pub fn now_milliseconds(&self) -> i64 {
        match &self.0 {
            Kind::System => Timestamp::now().as_millisecond(),
            Kind::Manual(milliseconds) => milliseconds.load(Ordering::SeqCst),
            Kind::Shifted(offset) => Timestamp::now().as_millisecond() + offset.load(Ordering::SeqCst),
        }
    }

    /// Now, in whole milliseconds.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_milliseconds()).unwrap_or(Timestamp::MAX)
    }

    /// The milliseconds to add to a server's own time; 0 outside tests.
    pub fn offset_milliseconds(&self) -> i64 {
        match &self.0 {
            Kind::System => 0,
            Kind::Manual(milliseconds) => milliseconds.load(Ordering::SeqCst) - Timestamp::now().as_millisecond(),
            Kind::Shifted(offset) => offset.load(Ordering::SeqCst),
        }
    }

    /// Moves the clock of a test ahead. The system's clock is not changed.
    pub fn advance(&self, by: Duration) {
        if let Kind::Manual(milliseconds) | Kind::Shifted(milliseconds) = &self.0 {
            milliseconds.fetch_add(milliseconds_of(by), Ordering::SeqCst);
        }
    }

    /// Sets the clock of a test back. The system's clock is not changed.
    pub fn set_back(&self, by: Duration) {
        if let Kind::Manual(milliseconds) | Kind::Shifted(milliseconds) = &self.0 {
            milliseconds.fetch_sub(milliseconds_of(by), Ordering::SeqCst);
        }
    }
}

/// A duration in whole milliseconds, as it is stored.
pub fn milliseconds_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
