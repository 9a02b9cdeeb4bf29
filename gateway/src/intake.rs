//! Accepts jobs from every door.
//!
//! A door is an API by which jobs arrive. It reads a [`Submission`] from its protocol and calls [`Intake::accept`].
//! Then it turns [`Accepted`] or [`IntakeError`] into an answer of its protocol. This module does not depend on a
//! protocol: it must not import axum, directly or through another module. The test `gateway/tests/modules.rs` checks
//! this.
//!
//! The intake writes to the ledger first, and then publishes to the broker. A job is accepted after both. So an
//! accepted job is never lost: upkeep publishes a job that is in the ledger and not in the broker.

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use queue::{
    Blobs, Body, Clock, ErrorKind, Input, Job, JobId, JobRecord, Ledger, PoolName, Producer, Publication, Role,
    Submitted,
};

use crate::{aside, metrics};

mod confirmations;
mod error;
mod pool;
mod submission;

pub(crate) use confirmations::ConfirmationWriter;
pub(crate) use error::IntakeError;
pub use pool::Pool;
pub(crate) use submission::{JobOptions, Submission};

use confirmations::Confirmations;

/// Accepts jobs for the configured pools.
pub(crate) struct Intake {
    pools: BTreeMap<PoolName, Pool>,
    ledger: Arc<dyn Ledger>,
    producer: Arc<dyn Producer>,
    blobs: Blobs,
    confirmations: Confirmations,
}

/// An accepted job: ledger and broker have it durably.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The job as it was submitted.
    pub(crate) job: Job,
    /// The record of the job if an earlier submission opened it. `None`: the job is new.
    pub(crate) existing: Option<JobRecord>,
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
        (Self { pools, ledger, producer, blobs, confirmations }, writer)
    }

    /// A configured pool. A door can refuse an unknown pool before it reads a large input.
    pub(crate) fn pool(&self, name: &PoolName) -> Result<&Pool, IntakeError> {
        self.pools.get(name).ok_or_else(|| IntakeError::UnknownPool(name.clone()))
    }

    /// Accepts a job.
    ///
    /// A client may submit the same id, pool and input again: this is still one job. After an error, a repetition with
    /// the same id is safe.
    pub(crate) async fn accept(&self, submission: Submission) -> Result<Accepted, IntakeError> {
        let job = self.job(submission).await?;
        let submitting = self.ledger.submit(slice::from_ref(&job)).await;
        let mut submitted = match submitting {
            Ok(submitted) => submitted,
            Err(source) => {
                // A submission without an answer may have opened a record, which needs its input.
                if wrote_nothing(&source) {
                    self.delete_input(&job).await;
                }
                return Err(IntakeError::Ledger { id: job.id, source });
            }
        };
        match submitted.pop() {
            Some(Submitted::New) => {
                metrics::submitted(&job.pool, job.class, "new");
                metrics::input_bytes(&job.pool, &job.input.body);
                self.publish(&job, Publication::first(job.id.clone())).await?;
                Ok(Accepted { job, existing: None })
            }
            Some(Submitted::Existing { record, publish }) => {
                metrics::submitted(&job.pool, job.class, "known");
                match publish {
                    Some(publication) => self.publish(&job, publication).await?,
                    None => self.delete_input(&job).await,
                }
                Ok(Accepted { job, existing: Some(*record) })
            }
            Some(Submitted::Conflict) => {
                metrics::submitted(&job.pool, job.class, "conflict");
                self.delete_input(&job).await;
                Err(IntakeError::IdConflict(job.id))
            }
            None => Err(IntakeError::NoAnswer(job.id)),
        }
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
        let Submission { pool: name, options, media_type, bytes, trace_parent } = submission;
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

    /// Publishes the job and waits for the broker's confirmation.
    async fn publish(&self, job: &Job, publication: Publication) -> Result<(), IntakeError> {
        if let Err(error) = self.producer.publish(slice::from_ref(job)).await {
            tracing::warn!(%error, job = %job.id, "the broker did not confirm a job");
            return Err(IntakeError::NotConfirmed(job.id.clone()));
        }
        self.confirmations.send(publication);
        Ok(())
    }

    /// Deletes the input of a submission that opened no record: no record refers to it.
    async fn delete_input(&self, job: &Job) {
        if let Body::Reference(blob) = &job.input.body
            && let Err(error) = self.blobs.delete(blob).await
        {
            tracing::warn!(%error, blob = blob.key, "cannot delete the input of a submission without a record");
        }
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
