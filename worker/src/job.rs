//! A job in this worker, from its claim to its result.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use bytes::Bytes;
use model::HostTensor;
use queue::{Body, Delivery, JobError, JobErrorKind, Output};
use service::trace::WholeSpan;

use crate::runtime::{Item, Model, ModelError};

pub(crate) mod input;
pub(crate) mod leases;
pub(crate) mod memory;
pub(crate) mod window;

use leases::RenewedLease;
use memory::HeldMemory;
use window::Place;

/// A job that was received and claimed.
pub(crate) struct ClaimedJob {
    pub(crate) delivery: Delivery,
    pub(crate) lease: RenewedLease,
    pub(crate) place: Place,
    /// The memory of its input, and later of its output.
    pub(crate) memory: HeldMemory,
    /// The time at which the job was received. If its claim was repeated, the time of the last claim, because the wait
    /// for an unreachable ledger is not work.
    pub(crate) received: Instant,
    /// The deadline, by the clock of this process. `None`: there is none, or it had passed by this clock at the claim. The
    /// ledger's clock is then behind, and it has granted the claim.
    pub(crate) deadline: Option<Instant>,
    /// Whether the job is a suspect: a worker disappeared while it held the job, so the job must not share a batch.
    pub(crate) is_suspect: bool,
    /// The span of this attempt.
    pub(crate) span: WholeSpan,
}

impl ClaimedJob {
    /// The end of a job that must not start any more. The ledger ends a released job as expired at its next claim.
    pub(crate) fn ended_before_start(&self) -> Option<Disposition> {
        if self.lease.is_lost() {
            return Some(Disposition::LeaseLost);
        }
        self.deadline.is_some_and(|deadline| deadline <= Instant::now()).then_some(Disposition::Released)
    }

    /// Decodes and preprocesses the input. If a decoder panics, the cause is this input, so only this job fails.
    pub(crate) fn prepare(&self, model: &dyn Model, body: Bytes) -> Result<Item, JobError> {
        let media_type = &self.delivery.job.input.media_type;
        catch_unwind(AssertUnwindSafe(|| model.prepare(media_type, body)))
            .unwrap_or_else(|_| Err(JobErrorKind::BadInput.error("preparing the input panicked")))
    }
}

/// A job that waits for a device.
pub(crate) struct ReadyJob {
    pub(crate) job: ClaimedJob,
    pub(crate) input: ReadyInput,
}

/// The input of a job that waits for a device.
pub(crate) enum ReadyInput {
    /// The item can run in a batch.
    Prepared(Item),
    /// The input of a suspect is not read yet. Reading and preparing it may crash the worker, so that happens when the
    /// attempt counts, and without other jobs.
    Unread,
}

/// The result of one item of a batch.
pub(crate) type ItemResult = Result<Vec<HostTensor>, ModelError>;

/// A job whose batch ran, and whose output is not presented yet.
pub(crate) struct RunJob {
    pub(crate) job: ClaimedJob,
    pub(crate) result: ItemResult,
}

impl RunJob {
    /// Pairs the jobs of a batch with their results. After this call the jobs wait for the ledger.
    pub(crate) fn all(mut jobs: Vec<ClaimedJob>, results: Vec<ItemResult>) -> Vec<Self> {
        Place::wait_for_ledger(jobs.iter_mut().map(|job| &mut job.place));
        jobs.into_iter().zip(results).map(|(job, result)| Self { job, result }).collect()
    }
}

/// A job that has ended in this worker, and whose result is not written yet.
pub(crate) struct FinishedJob {
    pub(crate) job: ClaimedJob,
    pub(crate) disposition: Disposition,
}

impl FinishedJob {
    /// Ends jobs that did not run. After this call they wait for the ledger.
    pub(crate) fn not_run(jobs: impl IntoIterator<Item = (ClaimedJob, Disposition)>) -> Vec<Self> {
        let jobs = jobs.into_iter().map(|(job, end)| (ClaimedJob { memory: HeldMemory::default(), ..job }, end));
        let mut jobs: Vec<_> = jobs.map(|(job, disposition)| Self { job, disposition }).collect();
        Place::wait_for_ledger(jobs.iter_mut().map(|finished| &mut finished.job.place));
        jobs
    }
}

impl FinishedJob {
    /// Ends a job that ran. Its output counts until it is written.
    pub(crate) fn ran(mut job: ClaimedJob, disposition: Disposition) -> Self {
        let output_bytes = match &disposition {
            Disposition::Succeeded(Output { body: Body::Inline(output), .. }) => output.len() as u64,
            _ => 0,
        };
        job.memory.keep(output_bytes);
        if output_bytes > 0 {
            job.place.add_bytes(output_bytes);
        }
        Self { job, disposition }
    }
}

/// The end of a job in this worker.
#[derive(Debug)]
pub(crate) enum Disposition {
    /// The job has a result.
    Succeeded(Output),
    /// The job itself is at fault; a retry would not help.
    Failed(JobError),
    /// The attempt failed; another may succeed.
    Retry(JobError),
    /// The job was never started and must be requeued.
    Released,
    /// The job was never started and its lease is lost: another worker has claimed it, or it was cancelled.
    LeaseLost,
}
