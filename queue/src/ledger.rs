//! The ledger: a record of every job with its state, attempts, lease and result.
//!
//! ```text
//!            submit            claim             finish(succeeded)
//!   (nothing) ────► queued ────────────► leased ─────────────────► succeeded
//!                    ▲ │ ▲                │ │ │  finish(failed)
//!                    │ │ │ finish(released),│ │ └────────────────► failed
//!          due       │ │ └──lease expired─┘ │    finish(retry)
//!   retry ───────────┘ │                    ├────────────────────► retry
//!                      │                    └────────────────────► dead      (no attempts left)
//!                      ├─────────────────────────────────────────► expired   (deadline passed, found at claim)
//!   any open state ────┴─────────────────────────────────────────► cancelled
//!
//!   failed, dead ───────────requeue───────────────────────────────► queued
//! ```
//!
//! A record's fence grows with every claim and with every publication of a due job. A result with an older fence is
//! rejected, so a worker that lost its lease cannot overwrite a newer result.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    BlobRef, Class, Error, ErrorKind, Input, Job, JobError, JobId, Output, PoolName, Result, Risk, StoreId, Usage,
    WorkerId,
};

mod dead;

pub use dead::{Attempt, DEAD_RETENTION, DeadFilter, DeadPage, DeadPosition, Forgotten, Purged, Requeued};

/// The records of all jobs. A call that changes state takes a batch, and is durable when it returns.
///
/// The record of an ended job stays for [`Job::retention`]. A ledger is opened with the least retention of dead and failed
/// jobs, because these can be requeued. It applies to the jobs that this process ends, whatever process deletes them.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Opens a record for each job, in state `queued`; one answer per job, in order.
    ///
    /// If an id already has a record, the record does not change and the answer contains it. So a client may repeat a
    /// submission. The job of a new record counts as unpublished until [`Ledger::published`] names it.
    async fn submit(&self, jobs: &[Job]) -> Result<Vec<Submitted>>;

    /// The store of the records, if it can hold a broker too.
    fn store(&self) -> Option<StoreId> {
        None
    }

    /// Like [`Ledger::submit`], but also publishes each job whose publication is missing, and records its confirmation. All
    /// of this is one step per job: after a crash either all of it has happened, or nothing. So the caller publishes
    /// nothing, and need not call [`Ledger::published`]. An answer contains a publication that this call has made.
    ///
    /// Only for a producer whose [`Producer::store`](crate::Producer::store) is [`Ledger::store`]. Any other ledger refuses.
    async fn submit_and_publish(&self, _jobs: &[Job]) -> Result<Vec<Submitted>> {
        Err(Error::new(ErrorKind::Refused, "this ledger has no broker in its store: submit, and then publish"))
    }

    /// Records that the broker has confirmed these publications. [`Ledger::due`] returns a job whose publication is
    /// never confirmed. A confirmed one is due at its deadline, or after [`CHECK_AFTER`](crate::driver::CHECK_AFTER) in
    /// case the broker lost the message. The call may be late or repeated. It has no effect on a job whose state has
    /// changed since.
    async fn published(&self, publications: &[Publication]) -> Result<()>;

    /// Claims jobs for `worker` until `lease` from now; one answer per request, in order.
    ///
    /// A job without a record comes from an outside producer: its record is opened first.
    ///
    /// After an error some of them may have been claimed: repeat the same requests unchanged. A repeated request that was
    /// granted before gets the same lease again, extended.
    async fn claim(&self, worker: &WorkerId, requests: Vec<ClaimRequest>, lease: Duration) -> Result<Vec<Claim>>;

    /// Begins the attempt at a suspect (`Claim::Granted { alone: true }`). After this call the attempt counts, even if
    /// its worker disappears. `false`: the lease is lost. If the worker disappears before this call, the attempt is not
    /// charged.
    ///
    /// The worker must call this before the first step that could kill it. Otherwise a job that kills its workers would
    /// never use up its attempts. The call may be repeated. It has no effect on a job that is not a suspect.
    async fn begin(&self, lease: &Lease) -> Result<bool>;

    /// Extends leases to `lease` from now; one answer per lease, in order: `false` where it is lost.
    async fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<bool>>;

    /// Records how attempts ended, each fenced by its lease; one answer per job, in order.
    async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Finished>>;

    /// Ends an open job as `cancelled`. A job that has ended is not changed. `None`: no such job.
    async fn cancel(&self, id: &JobId) -> Result<Option<JobRecord>>;

    /// The record of a job with its output and history. `None`: no such job, or its retention is over.
    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>>;

    /// The input of a job as it was submitted or last edited. `None`: no such job, or it succeeded. The ledger deletes the
    /// input of a job that succeeds, because nothing needs it any more. A blob stays until its record is deleted.
    async fn input(&self, id: &JobId) -> Result<Option<Input>>;

    /// The current record and, unless the job has ended already, the record at its end; then the stream ends. It may also
    /// return records of changes in between. Empty: no such job.
    async fn watch(&self, id: &JobId) -> Result<BoxStream<'static, Result<JobRecord>>>;

    /// Takes up to `limit` jobs that must be published (again). Their publication was never confirmed, their retry is
    /// due, their lease has expired, their message may be lost, or they were requeued. Each job goes to one caller. It is
    /// due again later unless [`Ledger::published`] confirms it. A queued job past its deadline ends as expired instead.
    async fn due(&self, limit: usize) -> Result<Vec<DueJob>>;

    /// The number of open and of ended jobs of each pool; one answer per pool, in order. Costs one round trip for any
    /// number of pools and jobs. A pool without a record has none.
    async fn counts(&self, pools: &[PoolName]) -> Result<Vec<JobCounts>>;

    /// Reports pools that may have new work, from the moment this returns. The cause is a process that submitted or
    /// requeued a job, or took a due one. A notice arrives within milliseconds. One notice may stand for many jobs, and
    /// a notice may have no cause.
    ///
    /// An error means that notices are interrupted. The stream resumes by itself and does not end, but the notices of
    /// the gap are lost. So the caller must also read the counts, after an error and at intervals.
    async fn arrivals(&self) -> Result<BoxStream<'static, Result<PoolName>>>;

    /// Takes or keeps the upkeep of this ledger for `holder` until `lease` from now. `false`: another holder has it. A lease
    /// of zero gives it up.
    ///
    /// This only spares work: [`Ledger::due`] and [`Ledger::purge`] are safe in several processes at once. A call also
    /// shows that a process can reach the ledger, as a call of [`Ledger::due`] does.
    async fn hold_upkeep(&self, holder: &str, lease: Duration) -> Result<bool>;

    /// Deletes up to `limit` records of ended jobs whose retention is over. The caller deletes the returned blobs.
    /// `None` instead of a list: there were no such jobs.
    async fn purge(&self, limit: usize) -> Result<Option<Vec<BlobRef>>>;

    /// Up to `limit` jobs that ended as dead or failed; the filter selects the state. The latest ending comes first.
    /// The page starts after `after`, or at the first job if that is `None`. Paging neither skips nor repeats a job
    /// that stays in the list, even if other jobs are added or purged meanwhile. The records come without output and
    /// history.
    async fn dead(&self, filter: &DeadFilter, after: Option<&DeadPosition>, limit: usize) -> Result<DeadPage>;

    /// Puts a dead or failed job back into state `queued`, with all its attempts and, if one is given, a new input. It is
    /// due at once, so [`crate::Upkeep`] publishes it.
    ///
    /// Its fence grows, and its retention begins again at its next end. That of a success is [`Job::retention`]. Its deadline is removed, because a requeued job
    /// should run. Its history, its last error and its mark as a suspect stay.
    ///
    /// A message of the job that is still in the broker carries the former input, and may run instead of the new one.
    async fn requeue(&self, id: &JobId, input: Option<Input>) -> Result<Requeued>;

    /// Deletes the record of an ended job now, as [`Ledger::purge`] does when its retention is over. Open and cancelled
    /// jobs are not changed.
    async fn forget(&self, id: &JobId) -> Result<Forgotten>;

    /// Deletes up to `limit` of the records that [`Ledger::dead`] lists for `filter`, as [`Ledger::forget`] does.
    async fn purge_dead(&self, filter: &DeadFilter, limit: usize) -> Result<Purged>;

    /// The id of this ledger. The first call makes it, and each later call returns the same one, also in other processes. A
    /// ledger that has lost all its records has another id.
    async fn id(&self) -> Result<String>;

    /// The id of the blob store that belongs to this ledger. If none is recorded yet, `found` is recorded. Every later call
    /// returns the same id, also in other processes. `None`: none is recorded, and `found` is `None`.
    async fn blob_store(&self, found: Option<&str>) -> Result<Option<String>>;

    /// The settings of this ledger that may lose or delay jobs. Changes nothing. An unreachable server is an error, as in
    /// any call.
    async fn risks(&self) -> Result<Vec<Risk>>;

    /// The room that records take. Changes nothing. May take seconds with millions of jobs. `None`: no record of an ended
    /// job is there to be measured, or the ledger cannot measure.
    async fn usage(&self) -> Result<Option<Usage>> {
        Ok(None)
    }
}

/// The state of a job. `queued`, `leased` and `retry` are open. The others are final, except that a requeue reopens a job
/// that is `failed` or `dead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobState {
    /// Entered by submit, due, a release or a requeue; left by a claim. The job is in the broker, or is about to be.
    Queued,
    /// Entered by a claim; left by finish, by the claim of another worker, or when the lease has expired. If its worker
    /// disappears, the job becomes a suspect and the attempt counts. The attempt of a job that was a suspect already
    /// counts only after [`Ledger::begin`].
    Leased,
    /// Entered by a failed attempt with attempts left; left when due. It waits in the ledger.
    Retry,
    /// Entered by finish. It has a result.
    Succeeded,
    /// Entered by finish: the job itself is at fault, so a retry would fail too. Left by a requeue, which may edit the input.
    Failed,
    /// Entered by cancel, at the request of a client.
    Cancelled,
    /// Entered by a claim after the deadline: it was not started in time.
    Expired,
    /// Entered by finish or a claim when no attempts are left. Left by a requeue.
    Dead,
}

impl JobState {
    /// All states, in the order of their codes in a store.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Leased,
        Self::Retry,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
        Self::Dead,
    ];

    /// Whether the job has ended.
    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Queued | Self::Leased | Self::Retry)
    }

    /// Whether [`Ledger::requeue`] reopens the job.
    pub fn can_be_requeued(self) -> bool {
        matches!(self, Self::Failed | Self::Dead)
    }

    /// The name used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Retry => "retry",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Dead => "dead",
        }
    }
}

/// The record of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Its pool.
    pub pool: PoolName,
    /// Its class.
    pub class: Class,
    /// Its state.
    pub state: JobState,
    /// The number of claims. It does not include claims that were released before the start. It does not include claims
    /// of a suspect whose worker disappeared before [`Ledger::begin`].
    pub attempts: u32,
    /// The most attempts.
    pub max_attempts: u32,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// A job that has not started by then ends as expired.
    pub deadline_at: Option<Timestamp>,
    /// When it was last claimed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The worker of the last claim.
    pub worker: Option<WorkerId>,
    /// Why the last attempt, or the job, failed.
    pub error: Option<JobError>,
    /// The result of a job that succeeded.
    pub output: Option<Output>,
    /// The failed attempts that counted, the oldest first, at most the last [`JobRecord::HISTORY_LIMIT`]. Empty except
    /// from [`Ledger::get`].
    pub history: Vec<Attempt>,
}

impl JobRecord {
    /// The most failed attempts in a record.
    pub const HISTORY_LIMIT: usize = 20;
}

/// The answer to a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// The record was opened now.
    New,
    /// The id had a record already, with the same pool and input.
    Existing {
        /// That record.
        record: Box<JobRecord>,
        /// The job may be missing in the broker, so the caller must publish it. `None`: the job is in the broker, or
        /// has ended.
        publish: Option<Publication>,
    },
    /// The id had a record already, with another pool or input.
    Conflict,
}

/// One publication of a job. The fence distinguishes it from earlier and later ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The job.
    pub id: JobId,
    /// The record's fence at the time.
    pub fence: u64,
}

impl Publication {
    /// The publication of a job just submitted.
    pub fn first(id: JobId) -> Self {
        Self { id, fence: 0 }
    }
}

/// A job that the caller must publish.
#[derive(Debug, Clone, PartialEq)]
pub struct DueJob {
    /// The job, with its input.
    pub job: Job,
    /// The argument of [`Ledger::published`] when the broker has confirmed it.
    pub publication: Publication,
}

/// A request to claim a job. A clone is the same request.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The job as delivered.
    pub job: Job,
    /// As in the delivery. A hint: the broker considered the former consumer dead. A live lease is taken over only if its
    /// holder is not in the roster. A holder in the roster must renew it within seconds.
    pub redelivered: bool,
    token: Uuid,
}

impl ClaimRequest {
    /// A new request for one delivery, distinct from every other request.
    pub fn new(job: Job, redelivered: bool) -> Self {
        Self { job, redelivered, token: Uuid::now_v7() }
    }

    /// Identifies the request when it is repeated.
    pub fn token(&self) -> &[u8] {
        self.token.as_bytes()
    }
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// The worker has the job and runs it.
    Granted {
        /// The lease, to renew and finish with.
        lease: Lease,
        /// The job is a suspect: a worker disappeared while it held the job, and the job may be the cause. Call
        /// [`Ledger::begin`] and then run it alone.
        alone: bool,
    },
    /// It has ended already (cancelled included): acknowledge the delivery.
    Ended(JobState),
    /// Another worker has it or it waits for its retry: acknowledge this delivery. The job is due when the lease expires or
    /// the wait is over.
    HeldElsewhere,
}

/// A worker's claim on a job. The fence distinguishes it from every other claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// Grows with every claim, from 1.
    pub fence: u64,
    /// The number of this attempt, from 1.
    pub attempt: u32,
}

/// The end of an attempt, as the worker reports it.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The lease of the attempt.
    pub lease: Lease,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It has a result.
    Succeeded(Output),
    /// The job is at fault: it ends as `failed`.
    Failed(JobError),
    /// The attempt failed. The job is retried after `after`, or ends as `dead` if that was the last attempt.
    Retry {
        /// Why.
        error: JobError,
        /// How long to wait before the next attempt.
        after: Duration,
    },
    /// It was never started: the attempt does not count, and the worker requeues the delivery. The job is due after
    /// [`CHECK_RELEASED_AFTER`](crate::driver::CHECK_RELEASED_AFTER) if no worker has received it by then.
    Released,
}

/// The answer to a finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// The end of the attempt is recorded.
    Recorded {
        /// The state of the job now.
        state: JobState,
        /// When the job ended, as in [`JobRecord::finished_at`]. `None` while it is open.
        finished_at: Option<Timestamp>,
    },
    /// The worker has lost the lease, because another worker has claimed the job or a client has cancelled it. Nothing
    /// was written.
    LeaseLost,
}

impl Finished {
    /// The state of the job now. `None`: the lease was lost.
    pub fn state(&self) -> Option<JobState> {
        match self {
            Self::Recorded { state, .. } => Some(*state),
            Self::LeaseLost => None,
        }
    }
}

/// The number of open jobs of a pool, by state, and of ended ones. The sum of the open ones is the backlog without the
/// messages of outside producers. The ledger has no record of those until a worker claims them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Jobs that should be in the broker, waiting or delivered.
    pub queued: u64,
    /// Jobs that a worker holds. An expired lease counts until another worker takes over, since its work is not done.
    pub leased: u64,
    /// Jobs that wait for their retry, and jobs that [`Ledger::due`] returned and whose publication is not confirmed yet.
    pub retry: u64,
    /// All endings ever, in any final state. It is written with the ending itself and never decreases, even when records
    /// are deleted. A job that is requeued and ends again counts twice. The count starts with the ledger, or with the
    /// first version that counts: use the difference of two readings only.
    pub ended: u64,
}
