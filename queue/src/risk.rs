//! What about a broker or ledger, as it is set up, may lose or delay jobs.

use std::fmt;
use std::time::Duration;

use crate::PoolName;

/// How bad it can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing: it may delay jobs, or needs more than one mishap to do harm.
    Warning,
    /// Jobs may be lost, repeated for ever or stuck.
    Severe,
}

impl Severity {
    /// The name shown to people and programs.
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

/// One thing that may go wrong, and the setting that causes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Risk {
    /// How bad it can get.
    pub severity: Severity,
    /// What is at risk: a queue, a topic, a server, a folder. Never a password.
    pub subject: String,
    /// The setting that causes it, by the name its owner gives it, such as `consumer_timeout`.
    pub setting: String,
    /// What it is now.
    pub found: String,
    /// What can happen because of it.
    pub why: String,
    /// What to do.
    pub advice: String,
}

/// What the configuration, and what was measured, let a pool ask of its broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolExpectation {
    /// The pool.
    pub pool: PoolName,
    /// The most workers it may have at once.
    pub max_workers: u32,
    /// The longest a job may wait to be started, where the configuration bounds it. `None`: for ever.
    pub deadline: Option<Duration>,
    /// The longest a worker is thought to keep a delivery unsettled, by the batch times that its workers measured.
    /// `None`: nothing was measured yet.
    pub holding: Option<Duration>,
}
