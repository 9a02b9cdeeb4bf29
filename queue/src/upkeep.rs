//! What the ledger needs done now and then: publish what is due, forget what is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{Blobs, Job, Ledger, Producer, Result};

/// How often due jobs are looked for: bounds how late a retry is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The most jobs that one round publishes or forgets, so that a long outage is worked off in pieces.
const LIMIT: usize = 500;

/// Publishes jobs that are due and forgets those whose retention is over.
///
/// Any number of processes may run it on the same ledger: each due job is given to one of them.
pub struct Upkeep {
    /// Knows what is due.
    pub ledger: Arc<dyn Ledger>,
    /// Where due jobs go.
    pub producer: Arc<dyn Producer>,
    /// Where forgotten jobs' blobs lie.
    pub blobs: Blobs,
}

impl Upkeep {
    /// Works until `stop`. A failed round is logged and tried again at the next look.
    pub async fn run(self, stop: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            if let Err(error) = self.publish_due().await {
                tracing::warn!(%error, "cannot publish due jobs; trying again");
            }
            while !stop.is_cancelled() {
                match self.purge().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "cannot purge jobs; trying again");
                        break;
                    }
                }
            }
        }
    }

    /// Publishes everything that is due now; returns how many jobs.
    pub async fn publish_due(&self) -> Result<usize> {
        let mut published = 0;
        loop {
            let due = self.ledger.due(LIMIT).await?;
            if due.is_empty() {
                return Ok(published);
            }
            let (jobs, publications): (Vec<Job>, Vec<_>) =
                due.into_iter().map(|due| (due.job, due.publication)).unzip();
            self.producer.publish(&jobs).await?;
            self.ledger.published(&publications).await?;
            published += jobs.len();
        }
    }

    /// Forgets some of what is over, and its blobs; `false` when nothing was.
    pub async fn purge(&self) -> Result<bool> {
        let Some(blobs) = self.ledger.purge(LIMIT).await? else { return Ok(false) };
        for blob in blobs {
            // The record is gone already; a blob that stays is only room lost.
            if let Err(error) = self.blobs.delete(&blob).await {
                tracing::warn!(%error, blob = blob.key, "cannot delete a blob of a purged job");
            }
        }
        Ok(true)
    }
}
