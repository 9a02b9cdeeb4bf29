//! Reads the inputs of jobs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use queue::{Blobs, Body, Delivery, Error, ErrorKind, JobErrorKind, Ledger};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{ClaimedJob, Disposition};

/// The wait before an input is looked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// The number of times that a worker looks for a missing or damaged input.
const LOOKS_FOR_MISSING: u32 = 3;

/// Whether the bytes of an input are read.
#[derive(Debug, Clone, Copy)]
enum Look {
    Read,
    /// The input is there and not too large. There are no bytes.
    Check,
}

/// Reads inputs that are inline or in the blob store.
#[derive(Clone)]
pub(crate) struct Inputs {
    pub(crate) blobs: Blobs,
    pub(crate) ledger: Arc<dyn Ledger>,
    /// A larger input is not read.
    pub(crate) max_bytes: u64,
}

impl Inputs {
    /// The bytes of a job's input. The error is the end of the job.
    pub(crate) async fn read(&self, job: &mut ClaimedJob, stop: &CancellationToken) -> Result<Bytes, Disposition> {
        self.in_time(job, Look::Read, stop).await
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
            let error = match self.present(&mut job.delivery, look).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::Refused => return Err(Disposition::Failed(JobErrorKind::BadInput.error(error.to_string()))),
                ErrorKind::Corrupt if looks >= LOOKS_FOR_MISSING => {
                    return Err(Disposition::Failed(JobErrorKind::InputUnreadable.error(error.to_string())));
                }
                // The store may be back, have room or accept this client later.
                ErrorKind::Corrupt | ErrorKind::Unavailable | ErrorKind::Full | ErrorKind::Denied => {}
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
    async fn present(&self, delivery: &mut Delivery, look: Look) -> Result<Bytes, Error> {
        let missing = match self.look(&delivery.job.input.body, look).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => error,
            found => return found,
        };
        match self.ledger.input(&delivery.job.id).await? {
            Some(input) if input != delivery.job.input => delivery.job.input = input,
            _ => return Err(missing),
        }
        self.look(&delivery.job.input.body, look).await
    }

    async fn look(&self, body: &Body, look: Look) -> Result<Bytes, Error> {
        match look {
            Look::Read => self.blobs.bytes_up_to(body, self.max_bytes).await,
            Look::Check => self.blobs.check(body, self.max_bytes).await.map(|()| Bytes::new()),
        }
    }
}
