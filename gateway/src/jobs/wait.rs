//! Waits for a job to end.

use std::time::Duration;

use futures::StreamExt;
use queue::{JobId, JobRecord, Ledger, Result};
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// Returns the record when the job has ended, when `wait` is over, or when the gateway stops. `None`: there is no such
/// job.
pub(crate) async fn until_ended(
    ledger: &dyn Ledger,
    id: &JobId,
    wait: Duration,
    stop: &CancellationToken,
) -> Result<Option<JobRecord>> {
    if wait.is_zero() {
        return ledger.get(id).await;
    }
    let _waiting = metrics::WaitingRequest::new();
    let over = tokio::time::sleep(wait);
    tokio::pin!(over);
    let mut records = ledger.watch(id).await?;
    // The current record is always returned, even if the wait is very short.
    let mut last = records.next().await.transpose()?;
    while last.as_ref().is_some_and(|record| !record.state.has_ended()) {
        tokio::select! {
            next = records.next() => match next.transpose()? {
                Some(record) => last = Some(record),
                None => break,
            },
            () = &mut over => break,
            () = stop.cancelled() => break,
        }
    }
    Ok(last)
}
