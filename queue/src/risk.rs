//! Settings of a broker or ledger that may lose or delay jobs.

use std::fmt;
use std::time::Duration;

use crate::PoolName;

/// How severe a risk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It may delay jobs, or needs more than one failure to do harm.
    Warning,
    /// Jobs may be lost, stuck or repeated without end.
    Severe,
}

impl Severity {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Severe => "severe",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One risk and the setting that causes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Risk {
    /// How severe it is.
    pub severity: Severity,
    /// The queue, topic, server or folder at risk. Never a password.
    pub subject: String,
    /// The setting that causes it, by its name in the server or system, such as `consumer_timeout`.
    pub setting: String,
    /// Its current value.
    pub found: String,
    /// The possible consequence.
    pub why: String,
    /// The remedy.
    pub advice: String,
}

/// The demands of a pool on its broker, from its configuration and measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolExpectation {
    /// The pool.
    pub pool: PoolName,
    /// The most workers it may have at once.
    pub max_workers: u32,
    /// The longest time that a job may wait for its start. `None`: the configuration has no limit.
    pub deadline: Option<Duration>,
    /// The longest time for which a worker should hold an unsettled delivery, according to the measured batch times.
    /// `None`: there are no measurements yet.
    pub holding: Option<Duration>,
}
