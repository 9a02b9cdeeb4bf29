//! Endings of jobs, as they are published to the route for results.

use jiff::Timestamp;

use crate::{JobError, JobId, JobRecord, JobState, Origin, Output, PoolName};

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// The job.
    pub id: JobId,
    /// Its pool.
    pub pool: PoolName,
    /// Its final state.
    pub state: JobState,
    /// When it ended, as in its record.
    pub finished_at: Timestamp,
    /// The result of a job that succeeded.
    pub output: Option<Output>,
    /// Why the job failed.
    pub error: Option<JobError>,
    /// The event that requested the job.
    pub origin: Option<Origin>,
    /// The W3C trace context it belongs to.
    pub trace_parent: Option<String>,
}

impl Ending {
    /// The ending of the job of a record. `None`: the job is open.
    pub fn of_record(record: JobRecord, origin: Option<Origin>, trace_parent: Option<String>) -> Option<Self> {
        let JobRecord { id, pool, state, finished_at, output, error, .. } = record;
        let finished_at = finished_at.filter(|_| state.has_ended())?;
        Some(Self { id, pool, state, finished_at, output, error, origin, trace_parent })
    }
}
