//! Jobs that ended badly: what was tried, and what can be done about them.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use super::{JobRecord, JobState};
use crate::{BlobRef, Error, ErrorKind, JobError, JobId, PoolName, WorkerId};

/// One failed attempt at a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which attempt it was, from 1. A requeue begins at 1 again.
    pub number: u32,
    /// Who made it.
    pub worker: WorkerId,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// When its failure was written or, of a holder that vanished, noticed.
    pub ended_at: Timestamp,
    /// Why it failed.
    pub error: JobError,
}

/// Which dead jobs are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadFilter {
    /// Those of one pool; `None`: of all.
    pub pool: Option<PoolName>,
    /// [`JobState::Dead`] or [`JobState::Failed`]; of any other state there are none.
    pub state: JobState,
}

/// Some dead jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadPage {
    /// Those that ended last first.
    pub jobs: Vec<JobRecord>,
    /// Where the next page begins. `None`: this is the last.
    pub next: Option<DeadPosition>,
}

/// A place in the list of dead jobs: just after this one. Later endings come first; of one moment, greater ids.
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
    /// It is queued, and will be published.
    Queued {
        /// The blob of the former input, where another took its place: the caller's to delete.
        replaced: Option<BlobRef>,
    },
    /// It is in this state, which no requeue leaves: nothing was changed.
    NotDead(JobState),
    /// No such job, or its retention is over.
    Unknown,
}

/// The answer to forgetting a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forgotten {
    /// It is forgotten; the blobs it referred to are the caller's to delete.
    Forgotten(Vec<BlobRef>),
    /// It is in this state, and is kept: it has not ended, or it was cancelled. Of a job that was cancelled a message may
    /// still wait in the broker, and only the record tells whoever gets it not to run it.
    Kept(JobState),
    /// No such job.
    Unknown,
}

/// What a purge of dead jobs came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purged {
    /// How many jobs were forgotten. Less than the limit: there are no more.
    pub jobs: usize,
    /// The blobs they referred to, the caller's to delete.
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
            Error::new(ErrorKind::Refused, format_args!("{shown:?} is not a position that a page of dead jobs named"))
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
