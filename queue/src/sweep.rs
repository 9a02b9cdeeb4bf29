//! Deletes orphans: blobs of jobs without a record. A process that is killed between the write of a blob and the write of the
//! record leaves one.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::blob::FOLDERS;
use crate::{Blobs, ErrorKind, Ledger, Result};

/// The interval between two rounds. Each round looks at one of [`FOLDERS`] folders, so that a store with millions of blobs
/// does not notice it. All folders take 8.5 hours.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// A slow look at all blobs of a store.
///
/// An orphan is old, and its job has no record. It must be old for two reasons. The record of a young blob may not be written
/// yet. And after a loss of records, the message of a job may open its record again.
pub struct Sweep {
    ledger: Arc<dyn Ledger>,
    blobs: Blobs,
    folder: usize,
    after: Option<String>,
}

impl Sweep {
    /// The number of rounds that look at all folders, if none has many blobs.
    pub const ROUNDS: usize = FOLDERS;

    /// Begins at a folder chosen by chance, because no process knows where the last one ended.
    pub fn new(ledger: Arc<dyn Ledger>, blobs: Blobs) -> Self {
        // The last bits of an id are random.
        let folder = uuid::Uuid::now_v7().as_u128() as usize % FOLDERS;
        Self { ledger, blobs, folder, after: None }
    }

    /// Runs rounds while this process has the upkeep.
    pub(crate) async fn run(mut self, mut has_upkeep: watch::Receiver<bool>) {
        if !self.blobs.is_somewhere() {
            return;
        }
        let mut last_failure = None;
        // The sender is dropped when the upkeep ends.
        while has_upkeep.wait_for(|has_upkeep| *has_upkeep).await.is_ok() {
            let failure = match self.round(Timestamp::now()).await {
                Ok(deleted) => {
                    if deleted > 0 {
                        tracing::info!(deleted, "deleted blobs of jobs without a record");
                    }
                    None
                }
                Err(error) => {
                    log_failure(last_failure, &error);
                    Some(error.kind())
                }
            };
            last_failure = failure;
            sleep(SWEEP_EVERY).await;
        }
    }

    /// Looks at the next folder, or at the next part of a large one, and deletes its orphans at the time `now`. Returns their
    /// number. Deletes nothing if another ledger uses the store too.
    pub async fn round(&mut self, now: Timestamp) -> Result<usize> {
        if !self.is_owner().await? {
            return Ok(0);
        }
        let old = self.blobs.old(self.folder, self.after.as_deref(), now, self.blobs.orphan_age()).await?;
        let mut orphans = Vec::new();
        for (id, blob) in old.blobs {
            match self.ledger.get(&id).await {
                Ok(None) => orphans.push(blob),
                Ok(Some(_)) => {}
                // A record that cannot be read is a record.
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        // A ledger that has lost its data since has another id.
        if !orphans.is_empty() && !self.is_owner().await? {
            return Ok(0);
        }
        for blob in &orphans {
            tracing::debug!(key = blob.key, "deleting a blob of a job without a record");
            self.blobs.delete(blob).await?;
        }
        if old.next.is_none() {
            self.folder = (self.folder + 1) % FOLDERS;
        }
        self.after = old.next;
        Ok(orphans.len())
    }

    async fn is_owner(&self) -> Result<bool> {
        self.blobs.is_owned_by(&self.ledger.id().await?).await
    }
}

/// Logs a failure once per change.
fn log_failure(before: Option<ErrorKind>, error: &crate::Error) {
    if before == Some(error.kind()) {
        tracing::debug!(%error, "still cannot look for blobs of jobs without a record");
    } else {
        tracing::warn!(%error, "cannot look for blobs of jobs without a record; trying again");
    }
}
