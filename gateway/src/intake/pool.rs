//! A pool as the gateway sees it.

use std::sync::Arc;
use std::time::Duration;

use crate::Admission;

/// What the gateway must know of a pool to take jobs for it.
#[derive(Clone)]
pub struct Pool {
    /// What its model takes.
    pub admission: Arc<dyn Admission>,
    /// How many times a worker may start a job, at least 1.
    pub max_attempts: u32,
    /// How long the record and result of a job are kept after it ended.
    pub retention: Duration,
    /// How long from its submission a job may wait to be started when it names no deadline. `None`: for ever.
    pub deadline: Option<Duration>,
}
