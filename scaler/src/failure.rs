//! Why nothing can be said of a pool.

use std::fmt;
use std::time::Duration;

/// Why a reading failed, in words that may be shown to anybody: no address and no text of a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// `ledger`, `gauge` or `roster`.
    pub(crate) source: &'static str,
    /// What came of it.
    pub(crate) reason: String,
}

impl Failure {
    pub(crate) fn new(source: &'static str, reason: impl Into<String>) -> Self {
        Self { source, reason: reason.into() }
    }
}

/// Nothing can be said of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unknown {
    /// How old the last reading is, and how old it may be.
    pub(crate) age: Option<(Duration, Duration)>,
    /// Why there is no newer one.
    pub(crate) failure: Option<Failure>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.age {
            Some((age, max_age)) => {
                write!(
                    f,
                    "the last reading is {:.1} s old, more than {:.1} s",
                    age.as_secs_f64(),
                    max_age.as_secs_f64()
                )?;
            }
            None => f.write_str("there is no reading yet")?,
        }
        match &self.failure {
            Some(Failure { source, reason }) => write!(f, ": the {source} {reason}"),
            None => Ok(()),
        }
    }
}
