//! What became of every job: state, attempts, lease, result.
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
//! A record's fence grows with every claim and every publication of what was due; a worker that comes back late with an
//! older one is refused.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use uuid::Uuid;

use crate::{BlobRef, Class, Input, Job, JobError, JobId, Output, PoolName, Result, Risk, WorkerId};

mod dead;

pub use dead::{Attempt, DeadFilter, DeadPage, DeadPosition, Forgotten, Purged, Requeued};

/// What became of every job. All calls that change state are durable when they return, and take batches.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Opens a record for each job, in state `queued`; one answer per job, in order.
    ///
    /// An id that is there already changes nothing: the answer is its record, so a client may repeat a submission.
    /// The new record's job counts as unpublished until [`Ledger::published`] says otherwise.
    async fn submit(&self, jobs: &[Job]) -> Result<Vec<Submitted>>;

    /// The broker has confirmed these publications. A job of which this is never said is given out by [`Ledger::due`].
    /// May be said late, or twice, or of jobs that have gone on since.
    async fn published(&self, publications: &[Publication]) -> Result<()>;

    /// Claims jobs for `worker` until `lease` from now; one answer per request, in order.
    ///
    /// A job without a record (from a producer that does not know the ledger) is opened first.
    ///
    /// After an error any part of them may have been claimed: make the same requests again, as they are. A request that
    /// holds its job already is given the same lease once more, extended.
    async fn claim(&self, worker: &WorkerId, requests: Vec<ClaimRequest>, lease: Duration) -> Result<Vec<Claim>>;

    /// Said before a suspect (`Claim::Go { alone: true }`) is run: from here on its attempt counts even if its holder
    /// vanishes. `false`: the lease is lost. A suspect whose holder vanished before that is not charged for the attempt.
    ///
    /// It must come before the first step that could kill the holder, or a job that does would never be out of attempts.
    /// May be said twice; said of a job that is no suspect it changes nothing.
    async fn begin(&self, lease: &Lease) -> Result<bool>;

    /// Extends leases to `lease` from now; one answer per lease, in order: `false` where it is lost.
    async fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<bool>>;

    /// Writes how attempts ended, each fenced by its lease; one answer per job, in order.
    async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Finished>>;

    /// Ends an open job as `cancelled`. A job that has ended stays what it is. `None`: no such job.
    async fn cancel(&self, id: &JobId) -> Result<Option<JobRecord>>;

    /// The record of a job, its output and its history included. `None`: no such job, or its retention is over.
    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>>;

    /// What the job is given, as it was submitted or last edited. `None`: no such job.
    async fn input(&self, id: &JobId) -> Result<Option<Input>>;

    /// The record now and, unless it has ended already, the record when it has; then the stream ends. Changes in
    /// between may be seen too. Empty: no such job.
    async fn watch(&self, id: &JobId) -> Result<BoxStream<'static, Result<JobRecord>>>;

    /// Takes up to `limit` jobs that must be published (again): submitted but never confirmed, retry due, or lease
    /// expired, or requeued. Each is given out to one caller; unless [`Ledger::published`] is said of it, it is due again
    /// later.
    async fn due(&self, limit: usize) -> Result<Vec<DueJob>>;

    /// How many jobs of each pool are open, and how many have ended; one answer per pool, in order. Costs a round trip,
    /// however many pools and jobs there are. A pool that the ledger knows no job of has none.
    async fn counts(&self, pools: &[PoolName]) -> Result<Vec<JobCounts>>;

    /// Names pools that may have got work, from when this returns: a job was submitted, requeued, or given out to be
    /// published again, by whatever process. Told within milliseconds; a pool may be named without cause, and once for
    /// many jobs.
    ///
    /// An error says that nothing can be heard for now. The stream goes on by itself and does not end, but what happens
    /// meanwhile is never told: who listens must also look, after an error and now and then.
    async fn arrivals(&self) -> Result<BoxStream<'static, Result<PoolName>>>;

    /// Forgets up to `limit` ended jobs whose retention is over; the blobs they referred to are the caller's to delete.
    /// `None` in place of a list: nothing was over.
    async fn purge(&self, limit: usize) -> Result<Option<Vec<BlobRef>>>;

    /// Up to `limit` jobs that ended as dead (or failed, as the filter says), those that ended last first, from `after`
    /// on; `None` starts at the first. Paging misses nothing that was there throughout and gives nothing twice, whatever
    /// is added or purged meanwhile. The records come without output and history.
    async fn dead(&self, filter: &DeadFilter, after: Option<&DeadPosition>, limit: usize) -> Result<DeadPage>;

    /// Puts a dead or failed job back into state `queued`, with all its attempts before it again and, if one is given,
    /// another input. It is due at once, so whoever runs [`crate::Upkeep`] publishes it.
    ///
    /// Its fence grows, its retention begins anew when it ends again, and its deadline is dropped: who requeues a job
    /// wants it run. Its history, its last error and, if it was one, its being a suspect stay.
    ///
    /// A message of the job that is still in the broker carries the former input, and may be run in place of the new one.
    async fn requeue(&self, id: &JobId, input: Option<Input>) -> Result<Requeued>;

    /// Forgets an ended job now, as [`Ledger::purge`] does when its retention is over. An open job stays what it is, and
    /// so does one that was cancelled.
    async fn forget(&self, id: &JobId) -> Result<Forgotten>;

    /// Forgets up to `limit` of the jobs that [`Ledger::dead`] lists for `filter`, as [`Ledger::forget`] does.
    async fn purge_dead(&self, filter: &DeadFilter, limit: usize) -> Result<Purged>;

    /// What about this ledger, as it is set up now, may lose or delay jobs. Changes nothing. An unreachable server is an
    /// error like that of any call.
    async fn risks(&self) -> Result<Vec<Risk>>;
}

/// The state of a job. `queued`, `leased` and `retry` are open; the others have ended and never change again, unless
/// somebody requeues a job that is `failed` or `dead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobState {
    /// Entered by submit, due, a release or a requeue; left by a claim. It is, or is about to be, in the broker.
    Queued,
    /// Entered by a claim; left by finish, by another's claim, or when the lease has run out. If its holder vanishes the
    /// job becomes a suspect; the attempt counts, unless it was one before and [`Ledger::begin`] was never said.
    Leased,
    /// Entered by a failed attempt with attempts left; left when due. It waits in the ledger.
    Retry,
    /// It has a result.
    Succeeded,
    /// The job itself was at fault: no repetition would help. Left by a requeue, which may edit the input.
    Failed,
    /// Somebody asked for it.
    Cancelled,
    /// Its deadline passed before it was started.
    Expired,
    /// No attempts are left. Left by a requeue.
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

/// A job as the ledger knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Its pool.
    pub pool: PoolName,
    /// Its class.
    pub class: Class,
    /// Where it stands.
    pub state: JobState,
    /// How many times a worker has claimed it and not given it back unstarted; claims of a suspect whose holder
    /// vanished before it began do not count.
    pub attempts: u32,
    /// How many times a worker may.
    pub max_attempts: u32,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it must have been started.
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
    /// The failed attempts that counted, the oldest first; at most the last [`JobRecord::HISTORY_LIMIT`]. Only
    /// [`Ledger::get`] fills it in.
    pub history: Vec<Attempt>,
}

impl JobRecord {
    /// How many failed attempts of a job are remembered.
    pub const HISTORY_LIMIT: usize = 20;
}

/// The answer to a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// The record was opened now.
    New,
    /// The id was there already, with the same pool and input.
    Known {
        /// The job as it stands.
        record: Box<JobRecord>,
        /// It is not known to be in the broker: who submits it must publish it. `None`: it is there, or has ended.
        publish: Option<Publication>,
    },
    /// The id was there already, with another pool or input.
    Conflict,
}

/// One publication of a job. The fence tells it from earlier and later ones.
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

/// A job that somebody must publish.
#[derive(Debug, Clone, PartialEq)]
pub struct DueJob {
    /// The job, with its input.
    pub job: Job,
    /// What to tell the ledger when the broker has confirmed it.
    pub publication: Publication,
}

/// What a worker asks to claim. A clone is the same request.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The job as delivered.
    pub job: Job,
    /// As the delivery says. The broker has given up on the former holder, so a live lease may be taken over.
    pub redelivered: bool,
    token: Uuid,
}

impl ClaimRequest {
    /// A request of its own, told from every other: of this delivery, once.
    pub fn new(job: Job, redelivered: bool) -> Self {
        Self { job, redelivered, token: Uuid::now_v7() }
    }

    /// What the ledger knows the request by when it is made again.
    pub fn token(&self) -> &[u8] {
        self.token.as_bytes()
    }
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// Run it.
    Go {
        /// The claim, to renew and finish with.
        lease: Lease,
        /// A former holder vanished while it held the job, which makes it a suspect: it may be what killed them. Say
        /// [`Ledger::begin`] and then run it, alone.
        alone: bool,
    },
    /// It has ended already (cancelled included): settle the delivery as done.
    Ended(JobState),
    /// Another holds it or it waits for its retry, and its own delivery will come: settle this one as done.
    Held,
}

/// A worker's claim on a job. The fence tells it from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// Grows with every claim, from 1.
    pub fence: u64,
    /// Attempts so far, this one included.
    pub attempt: u32,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The claim it was made under.
    pub lease: Lease,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// With a result.
    Succeeded(Output),
    /// The job is at fault: it ends as `failed`.
    Failed(JobError),
    /// The attempt failed: again after `after`, or `dead` if that was the last attempt.
    Retry {
        /// Why.
        error: JobError,
        /// How long to wait before the next attempt.
        after: Duration,
    },
    /// It was never started: the attempt does not count, and the delivery is given back to the broker.
    Released,
}

/// The answer to a finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// Recorded; the job is in this state now.
    Recorded(JobState),
    /// The lease is no longer this worker's (another has it, or the job was cancelled): nothing was written.
    LeaseLost,
}

/// How many jobs of a pool are open, by what they wait for, and how many have ended. The sum of the open ones is what is
/// still to be done, except for what only the broker knows of: messages of producers that do not write to the ledger, until
/// they are first claimed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// They are in the broker, for all that the ledger knows, whether it counts them as waiting or handed out.
    pub queued: u64,
    /// A worker holds them. A lease that has run out counts until another takes over: its work is still to be done.
    pub leased: u64,
    /// They wait for their retry, or were given out by [`Ledger::due`] and are not known to be in the broker yet.
    pub retry: u64,
    /// How many have ever ended, in whatever state: written with the ending itself, and never less, whatever is forgotten
    /// since. A job that is requeued and ends again counts again. Counted since the ledger began, or since it was first
    /// used by a version that counts them: for what happens between two looks, and for no more.
    pub ended: u64,
}
