//! Reports of this worker: its heartbeat to the roster, with the measured batch times, and its metrics.

pub(crate) mod heartbeat;
pub(crate) mod metrics;
pub(crate) mod spans;

use std::time::Duration;

use jiff::Timestamp;
use queue::Job;

/// The time since a job arrived. Zero if the clock of its producer is ahead.
pub(crate) fn age(job: &Job) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(job.created_at)).unwrap_or_default()
}
