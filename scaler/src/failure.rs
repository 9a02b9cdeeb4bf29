//! Why the scaler has no current reading of a pool.

use std::fmt;
use std::time::Duration;

/// A failed reading. The text may be shown to any client: it holds no address and no text of a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadFailure {
    /// `ledger`, `gauge` or `roster`.
    pub(crate) source: &'static str,
    /// What happened, as a verb phrase.
    pub(crate) reason: String,
}

impl ReadFailure {
    pub(crate) fn new(source: &'static str, reason: impl Into<String>) -> Self {
        Self { source, reason: reason.into() }
    }
}

/// The last reading of a pool is missing or too old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoCurrentReading {
    /// The age of the last reading, and the maximum age. `None`: there is no reading.
    pub(crate) age: Option<(Duration, Duration)>,
    /// The failure of the reading after it.
    pub(crate) failure: Option<ReadFailure>,
}

impl fmt::Display for NoCurrentReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.age {
            Some((age, max_age)) => {
                let (age, max_age) = (age.as_secs_f64(), max_age.as_secs_f64());
                write!(f, "the last reading is {age:.1} s old, more than {max_age:.1} s")?;
            }
            None => f.write_str("there is no reading yet")?,
        }
        match &self.failure {
            Some(ReadFailure { source, reason }) => write!(f, ": the {source} {reason}"),
            None => Ok(()),
        }
    }
}
