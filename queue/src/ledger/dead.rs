//! Dead and failed jobs: their attempts, and how to list, requeue and delete them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

use super::{JobRecord, JobState};
use crate::{BlobRef, Error, ErrorKind, JobError, JobId, PoolName, WorkerId};

/// How long a ledger keeps dead and failed jobs by default. See [`crate::Ledger`].
pub const DEAD_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// One failed attempt at a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which attempt it was, from 1. A requeue begins at 1 again.
    pub number: u32,
    /// The worker that made it.
    pub worker: WorkerId,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// When its failure was recorded or, if the worker disappeared, detected.
    pub ended_at: Timestamp,
    /// Why it failed.
    pub error: JobError,
}

/// Selects dead jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadFilter {
    /// The jobs of one pool; `None`: of all pools.
    pub pool: Option<PoolName>,
    /// [`JobState::Dead`] or [`JobState::Failed`]; any other state selects no job.
    pub state: JobState,
}

/// A page of the list of dead jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadPage {
    /// The latest ending first.
    pub jobs: Vec<JobRecord>,
    /// Where the next page begins. `None`: this is the last page.
    pub next: Option<DeadPosition>,
}

/// A position in the list of dead jobs, directly after this job. Later endings come first. For endings at the same
/// time, greater ids come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadPosition {
    /// When it ended, to the millisecond.
    pub finished_at: Timestamp,
    /// Its id.
    pub id: JobId,
}

/// The answer to a requeue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requeued {
    /// It is queued, and upkeep will publish it.
    Queued {
        /// The blob of the former input if a new input replaced it. The caller deletes it.
        replaced: Option<BlobRef>,
    },
    /// The job is in this state, from which a requeue is not possible. Nothing was changed.
    NotDead(JobState),
    /// No such job, or its retention is over.
    Unknown,
}

/// The answer to [`Ledger::forget`](crate::Ledger::forget).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forgotten {
    /// The record is deleted. The caller deletes the returned blobs.
    Forgotten(Vec<BlobRef>),
    /// The job is in this state, so its record stays: the job is open or was cancelled. A message of a cancelled job
    /// may still wait in the broker. Without the record a worker would run it.
    Retained(JobState),
    /// No such job.
    Unknown,
}

/// The answer to [`Ledger::purge_dead`](crate::Ledger::purge_dead).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purged {
    /// The number of deleted records. If it is below the limit, there are no more.
    pub jobs: usize,
    /// The blobs of these records. The caller deletes them.
    pub blobs: Vec<BlobRef>,
}

impl fmt::Display for DeadPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.finished_at.as_millisecond(), self.id)
    }
}

impl FromStr for DeadPosition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let read = || {
            let (milliseconds, id) = text.split_once(':')?;
            let finished_at = Timestamp::from_millisecond(milliseconds.parse().ok()?).ok()?;
            Some(Self { finished_at, id: id.parse().ok()? })
        };
        read().ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            Error::new(ErrorKind::Refused, format_args!("{shown:?} is not a position from a page of dead jobs"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for text in ["1800000000123:job-1", "-1:a:b:c"] {
            assert_eq!(text.parse::<DeadPosition>().unwrap().to_string(), text);
        }
        for text in ["", "12", "12:", "x:a", ":a", "12:a b", "99999999999999999999:a"] {
            assert_eq!(text.parse::<DeadPosition>().unwrap_err().kind(), ErrorKind::Refused, "{text}");
        }
    }
}
