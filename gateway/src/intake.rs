//! Accepts jobs from every door.
//!
//! A door is an API by which jobs arrive. It reads a [`Submission`] from its protocol and calls [`Intake::accept`].
//! Then it turns [`Accepted`] or [`IntakeError`] into an answer of its protocol. This module does not depend on a
//! protocol: it must not import axum, directly or through another module. The test `gateway/tests/modules.rs` checks
//! this.
//!
//! The intake writes to the ledger first, and then publishes to the broker. A job is accepted after both. So an
//! accepted job is never lost: upkeep publishes a job that is in the ledger and not in the broker. Where ledger and broker
//! are one store, one call writes both.
//!
//! Concurrent submissions to one queue of the broker share their calls. Other queues have calls of their own, so that a
//! slow or full queue does not delay the submissions to others.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use queue::{
    BlobRef, Blobs, Body, Class, Clock, ErrorKind, Input, Job, JobId, JobRecord, Ledger, PoolName, Producer, Role,
};
use service::trace;
use tokio::sync::OwnedSemaphorePermit;

use crate::aside;

mod acceptor;
mod combiner;
mod confirmations;
mod error;
mod pool;
mod span;
mod submission;

pub(crate) use confirmations::ConfirmationWriter;
pub(crate) use error::IntakeError;
pub use pool::Pool;
pub(crate) use submission::{JobOptions, Submission};

use acceptor::Acceptor;
use combiner::Combiner;

/// Accepts jobs for the configured pools.
pub(crate) struct Intake {
    pools: BTreeMap<PoolName, OpenPool>,
    blobs: Blobs,
}

/// A configured pool, and the submissions to each of its queues, by class.
struct OpenPool {
    pool: Pool,
    queues: [Submissions; Class::ALL.len()],
}

/// The submissions to one queue, which share their calls.
type Submissions = Combiner<Request, Result<Accepted, IntakeError>>;

/// A job, and the room for its input in memory.
type Request = (Job, Option<OwnedSemaphorePermit>);

/// An accepted job: ledger and broker have it durably.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The job as it was submitted.
    pub(crate) job: Job,
    /// The record of the job if an earlier submission opened it. `None`: the job is new.
    pub(crate) existing: Option<JobRecord>,
    /// Whether the record, or the message in the broker, refers to the input of this submission.
    is_input_used: bool,
}

impl Intake {
    /// An intake, and the task that records its confirmed publications in the ledger.
    pub(crate) fn new(
        pools: BTreeMap<PoolName, Pool>,
        ledger: Arc<dyn Ledger>,
        producer: Arc<dyn Producer>,
        blobs: Blobs,
    ) -> (Self, ConfirmationWriter) {
        let (confirmations, writer) = confirmations::channel(Arc::clone(&ledger));
        let acceptor = Arc::new(Acceptor { ledger, producer, confirmations });
        let open = |pool| OpenPool { pool, queues: Class::ALL.map(|_| submissions(&acceptor)) };
        let pools = pools.into_iter().map(|(name, pool)| (name, open(pool))).collect();
        (Self { pools, blobs }, writer)
    }

    /// A configured pool. A door can refuse an unknown pool before it reads a large input.
    pub(crate) fn pool(&self, name: &PoolName) -> Result<&Pool, IntakeError> {
        self.open_pool(name).map(|open| &open.pool)
    }

    fn open_pool(&self, name: &PoolName) -> Result<&OpenPool, IntakeError> {
        self.pools.get(name).ok_or_else(|| IntakeError::UnknownPool(name.clone()))
    }

    /// Accepts a job.
    ///
    /// A client may submit the same id, pool and input again: this is still one job. After an error, a repetition with
    /// the same id is safe. If this future is dropped, a submission that reached the ledger is handled to its end, but the
    /// blob of its input stays if nothing refers to it.
    pub(crate) async fn accept(&self, mut submission: Submission) -> Result<Accepted, IntakeError> {
        let room = submission.room.take();
        let mut job = self.job(submission).await?;
        let span = span::publish(&mut job);
        let (id, blob) = (job.id.clone(), blob_of(&job));
        let queue = &self.open_pool(&job.pool)?.queues[job.class as usize];
        let accepted = queue.answer((job, room)).await.unwrap_or(Err(IntakeError::NoAnswer(id)));
        if let Err(error) = &accepted {
            trace::failed(&span, "not_accepted", error);
        }
        drop(span);
        if let Some(blob) = blob
            && is_unused_input(&accepted)
            && let Err(error) = self.blobs.delete(&blob).await
        {
            tracing::warn!(%error, blob = blob.key, "cannot delete the input of a submission without a record");
        }
        accepted
    }

    /// The input of job `id`, checked against the model of the pool, and durable.
    pub(crate) async fn input(
        &self,
        id: &JobId,
        pool: &Pool,
        media_type: String,
        bytes: Bytes,
    ) -> Result<Input, IntakeError> {
        check(pool, &media_type, &bytes).await?;
        self.store(id, media_type, bytes).await
    }

    /// Stores a large input in the blob store; a small one travels with the job.
    async fn store(&self, id: &JobId, media_type: String, bytes: Bytes) -> Result<Input, IntakeError> {
        let body = self.blobs.body(id, Role::Input, bytes).await.map_err(IntakeError::Blobs)?;
        Ok(Input { media_type, body })
    }

    async fn job(&self, submission: Submission) -> Result<Job, IntakeError> {
        let Submission { pool: name, options, media_type, bytes, trace_parent, room: _ } = submission;
        let pool = self.pool(&name)?;
        check(pool, &media_type, &bytes).await?;
        let created_at = Clock::default().now();
        let deadline_at = match options.deadline {
            Some(deadline) => {
                Some(created_at.checked_add(deadline).map_err(|_| IntakeError::DeadlineTooFar(deadline))?)
            }
            None => pool.deadline.and_then(|deadline| created_at.checked_add(deadline).ok()),
        };
        let id = options.id.unwrap_or_else(JobId::generate);
        let input = self.store(&id, media_type, bytes).await?;
        Ok(Job {
            id,
            pool: name,
            class: options.class.unwrap_or_default(),
            input,
            created_at,
            deadline_at,
            max_attempts: pool.max_attempts,
            retention: pool.retention,
            trace_parent,
            origin: None,
        })
    }
}

fn submissions(acceptor: &Arc<Acceptor>) -> Submissions {
    let acceptor = Arc::clone(acceptor);
    let handler = move |requests: Vec<Request>| {
        let acceptor = Arc::clone(&acceptor);
        async move {
            let (jobs, _rooms): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
            acceptor.accept(jobs).await
        }
        .boxed()
    };
    Combiner::new(inline_bytes, Box::new(handler))
}

fn inline_bytes((job, _): &Request) -> usize {
    match &job.input.body {
        Body::Inline(bytes) => bytes.len(),
        Body::Reference(_) => 0,
    }
}

fn blob_of(job: &Job) -> Option<BlobRef> {
    match &job.input.body {
        Body::Inline(_) => None,
        Body::Reference(blob) => Some(blob.clone()),
    }
}

/// Whether neither a record nor a message refers to the input of a submission with this answer.
fn is_unused_input(accepted: &Result<Accepted, IntakeError>) -> bool {
    match accepted {
        Ok(accepted) => !accepted.is_input_used,
        // A submission without an answer may have opened a record, which needs its input.
        Err(IntakeError::Ledger { source, .. }) => wrote_nothing(source),
        Err(IntakeError::Unpublishable { is_input_used, .. }) => !is_input_used,
        Err(error) => matches!(error, IntakeError::IdConflict(_)),
    }
}

/// Checks an input. A large one is checked on another thread, because other requests wait for this one.
async fn check(pool: &Pool, media_type: &str, bytes: &Bytes) -> Result<(), model::InputFault> {
    if bytes.len() < aside::LARGE_BYTES {
        return pool.input_check.check(media_type, bytes);
    }
    let (check, media_type, bytes) = (pool.input_check.clone(), media_type.to_owned(), bytes.clone());
    aside::run(move || check.check(&media_type, &bytes)).await
}

/// Whether a call of the ledger that ended with this error has changed nothing.
pub(crate) fn wrote_nothing(error: &queue::Error) -> bool {
    matches!(error.kind(), ErrorKind::Full | ErrorKind::Conflict | ErrorKind::Refused)
}
