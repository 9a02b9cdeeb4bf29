//! Reads the inputs of jobs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use queue::{Blobs, Body, Error, ErrorKind, JobErrorKind, Ledger};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use super::memory::{HeldMemory, InputMemory, Share, TooLarge};
use super::{ClaimedJob, Disposition};
use crate::runtime::Model;

/// The wait before an input is looked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// The number of times that a worker looks for a missing or damaged input.
const LOOKS_FOR_MISSING: u32 = 3;

/// What is done with an input.
#[derive(Debug, Clone, Copy)]
enum Look {
    /// The bytes are read, with memory of the part for reading.
    Read,
    /// The bytes are read, and no other job waits for the memory.
    ReadAlone,
    /// The input is there and not too large. There are no bytes.
    Check,
}

/// Why the bytes of an input are not there.
enum NotRead {
    Failed(Error),
    Ended(Disposition),
}

/// Reads inputs that are inline or in the blob store.
#[derive(Clone)]
pub(crate) struct Inputs {
    pub(crate) blobs: Blobs,
    pub(crate) ledger: Arc<dyn Ledger>,
    /// A larger input is not read.
    pub(crate) max_bytes: u64,
    pub(crate) memory: Arc<InputMemory>,
}

impl Inputs {
    /// The bytes of a job's input, with the memory to read and to prepare them. The error is the end of the job.
    pub(crate) async fn read(
        &self,
        job: &mut ClaimedJob,
        model: &dyn Model,
        stop: &CancellationToken,
    ) -> Result<Bytes, Disposition> {
        let body = self.in_time(job, Look::Read, stop).await?;
        let needed = memory_to_prepare(job, model, &body);
        let permit = self.reserve(job, self.memory.preparing(), needed, stop).await?;
        job.memory.hold_to_prepare(permit);
        Ok(body)
    }

    /// The bytes of a suspect's input. At most one suspect runs, so it takes no memory from a part: the jobs that hold
    /// the memory may wait for the device of this suspect. The error is the end of the job.
    pub(crate) async fn read_alone(
        &self,
        job: &mut ClaimedJob,
        stop: &CancellationToken,
    ) -> Result<Bytes, Disposition> {
        self.in_time(job, Look::ReadAlone, stop).await
    }

    /// Refuses an input of a suspect that takes more memory than the whole part for preparing inputs.
    pub(crate) fn check_memory(&self, job: &ClaimedJob, model: &dyn Model, body: &Bytes) -> Result<(), Disposition> {
        self.memory.preparing().check(memory_to_prepare(job, model, body)).map_err(refused)
    }

    /// Checks the size of a job's input, and reads none of its bytes. The error is the end of the job.
    pub(crate) async fn check(&self, job: &mut ClaimedJob, stop: &CancellationToken) -> Result<(), Disposition> {
        self.in_time(job, Look::Check, stop).await.map(drop)
    }

    /// While the blob store is away, the job waits and its lease is renewed. A missing blob is looked for again, because
    /// a shared folder may show a new file late.
    async fn in_time(&self, job: &mut ClaimedJob, look: Look, stop: &CancellationToken) -> Result<Bytes, Disposition> {
        let mut looks = 1;
        loop {
            let error = match self.present(job, look, stop).await {
                Ok(found) => return Ok(found),
                Err(NotRead::Ended(end)) => return Err(end),
                Err(NotRead::Failed(error)) => error,
            };
            match error.kind() {
                ErrorKind::Refused => return Err(Disposition::Failed(JobErrorKind::BadInput.error(error.to_string()))),
                ErrorKind::Corrupt if looks >= LOOKS_FOR_MISSING => {
                    return Err(Disposition::Failed(JobErrorKind::InputUnreadable.error(error.to_string())));
                }
                ErrorKind::Corrupt => {}
                kind if kind.is_outage() => {}
                _ => return Err(Disposition::Retry(JobErrorKind::InputUnreadable.error(error.to_string()))),
            }
            if stop.is_cancelled() {
                return Err(Disposition::Released);
            }
            if let Some(end) = job.ended_before_start() {
                return Err(end);
            }
            tracing::warn!(%error, job = %job.lease.lease().id, "cannot read an input; trying again");
            stop.run_until_cancelled(sleep(PAUSE)).await;
            looks += 1;
        }
    }

    /// Looks at the present input. The message may be older than the input: editing the input deletes the former blob. So
    /// if the blob is missing, the input in the ledger counts.
    async fn present(&self, job: &mut ClaimedJob, look: Look, stop: &CancellationToken) -> Result<Bytes, NotRead> {
        let missing = match self.look(job, look, stop).await {
            Err(NotRead::Failed(error)) if error.kind() == ErrorKind::Corrupt => error,
            found => return found,
        };
        let present = self.ledger.input(&job.delivery.job.id).await.map_err(NotRead::Failed)?;
        match present {
            Some(input) if input != job.delivery.job.input => job.delivery.job.input = input,
            _ => return Err(NotRead::Failed(missing)),
        }
        self.look(job, look, stop).await
    }

    async fn look(&self, job: &mut ClaimedJob, look: Look, stop: &CancellationToken) -> Result<Bytes, NotRead> {
        let body = &job.delivery.job.input.body;
        let size_bytes = match body {
            // Inline bytes are in memory already; the window counts them.
            Body::Inline(bytes) => return Ok(bytes.clone()),
            Body::Reference(blob) => blob.size_bytes,
        };
        match look {
            Look::Check => {
                self.blobs.check(body, self.max_bytes).await.map_err(NotRead::Failed)?;
                return Ok(Bytes::new());
            }
            Look::Read => {
                // A known size needs no call. The read compares both sizes.
                let known = size_bytes.filter(|bytes| *bytes <= self.max_bytes);
                let size_bytes = match known {
                    Some(size_bytes) => size_bytes,
                    None => self.blobs.check(body, self.max_bytes).await.map_err(NotRead::Failed)?,
                };
                // A former attempt may hold memory.
                job.memory = HeldMemory::default();
                let permit =
                    self.reserve(job, self.memory.reading(), size_bytes, stop).await.map_err(NotRead::Ended)?;
                job.memory.hold_to_read(permit);
            }
            Look::ReadAlone => {}
        }
        self.blobs.bytes_up_to(&job.delivery.job.input.body, self.max_bytes).await.map_err(NotRead::Failed)
    }

    /// Waits for memory. Meanwhile the job may end.
    async fn reserve(
        &self,
        job: &ClaimedJob,
        share: &Share,
        bytes: u64,
        stop: &CancellationToken,
    ) -> Result<Option<OwnedSemaphorePermit>, Disposition> {
        if bytes == 0 {
            return Ok(None);
        }
        if let Some(permit) = share.try_reserve(bytes) {
            return Ok(Some(permit));
        }
        let mut reserving = pin!(share.reserve(bytes));
        let mut looks = interval(PAUSE / 4);
        loop {
            tokio::select! {
                reserved = &mut reserving => return reserved.map_err(refused),
                () = stop.cancelled() => return Err(Disposition::Released),
                _ = looks.tick() => job.ended_before_start().map_or(Ok(()), Err)?,
            }
        }
    }
}

/// The memory to prepare an input. If reading its header panics, preparing the input does so too.
fn memory_to_prepare(job: &ClaimedJob, model: &dyn Model, body: &Bytes) -> u64 {
    let measure = || model.memory_to_prepare(&job.delivery.job.input.media_type, body);
    catch_unwind(AssertUnwindSafe(measure)).unwrap_or(0)
}

/// The end of a job that needs more memory than there is.
fn refused(error: TooLarge) -> Disposition {
    Disposition::Failed(JobErrorKind::BadInput.error(error.to_string()))
}
