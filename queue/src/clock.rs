//! The time a backend goes by, so that tests of leases and deadlines need not wait for them.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use std::time::Duration;

use jiff::Timestamp;

/// The system's clock, or one that a test moves by hand.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    manual_milliseconds: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// A clock that stands at `start` until it is moved.
    pub fn manual(start: Timestamp) -> Self {
        Self { manual_milliseconds: Some(Arc::new(AtomicI64::new(start.as_millisecond()))) }
    }

    /// Now, in milliseconds since the Unix epoch.
    pub fn now_milliseconds(&self) -> i64 {
        match &self.manual_milliseconds {
            Some(milliseconds) => milliseconds.load(Ordering::SeqCst),
            None => Timestamp::now().as_millisecond(),
        }
    }

    /// Now, in whole milliseconds.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_milliseconds()).unwrap_or(Timestamp::MAX)
    }

    /// Moves a manual clock; the system's clock moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Some(milliseconds) = &self.manual_milliseconds {
            milliseconds.fetch_add(milliseconds_of(by), Ordering::SeqCst);
        }
    }
}

/// A duration in whole milliseconds, as the stores keep it.
pub(crate) fn milliseconds_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
