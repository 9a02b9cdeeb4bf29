//! Upkeep of the ledger: publishes due jobs and deletes records whose retention is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    Blobs, Claim, ClaimRequest, Error, ErrorKind, Finish, Job, JobErrorKind, Ledger, Outcome, Producer, Publication,
    Result, WorkerId,
};

/// The interval at which upkeep looks for due jobs. It limits the delay of a retry.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The most jobs that one round publishes or deletes, so that the work after a long outage is split into rounds.
const LIMIT: usize = 500;

/// The lease on a job that the broker rejects, while it is recorded as failed.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(30);

/// Publishes due jobs and deletes records whose retention is over.
///
/// Any number of processes may run it on the same ledger: each due job goes to one of them.
pub struct Upkeep {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Publishes due jobs.
    pub producer: Arc<dyn Producer>,
    /// The blobs of deleted records.
    pub blobs: Blobs,
}

impl Upkeep {
    /// Runs until `stop`. A failed round is logged and retried in the next round.
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

    /// Publishes all jobs that are due now; returns their number.
    pub async fn publish_due(&self) -> Result<usize> {
        let mut published = 0;
        loop {
            let due = self.ledger.due(LIMIT).await?;
            if due.is_empty() {
                return Ok(published);
            }
            let (jobs, publications): (Vec<Job>, Vec<_>) =
                due.into_iter().map(|due| (due.job, due.publication)).unzip();
            match self.producer.publish(&jobs).await {
                Ok(()) => self.ledger.published(&publications).await?,
                // A job that the broker rejects permanently must not block the others.
                Err(error) if error.kind() == ErrorKind::Refused => {
                    for (job, publication) in jobs.iter().zip(publications) {
                        self.publish_alone(job, publication).await?;
                    }
                }
                Err(error) => return Err(error),
            }
            published += jobs.len();
        }
    }

    async fn publish_alone(&self, job: &Job, publication: Publication) -> Result<()> {
        match self.producer.publish(std::slice::from_ref(job)).await {
            Ok(()) => self.ledger.published(&[publication]).await,
            Err(error) if error.kind() == ErrorKind::Refused => self.give_up(job, &error).await,
            Err(error) => Err(error),
        }
    }

    /// Ends a job that cannot be published, since no worker could ever receive it.
    async fn give_up(&self, job: &Job, why: &Error) -> Result<()> {
        tracing::error!(job = %job.id, error = %why, "the broker rejects a due job; the job ends as failed");
        let request = ClaimRequest::new(job.clone(), false);
        for claim in self.ledger.claim(&WorkerId::new("upkeep"), vec![request], GIVE_UP_WITHIN).await? {
            let Claim::Granted { lease, .. } = claim else { continue };
            let error = JobErrorKind::Unpublishable.error(why.to_string());
            self.ledger.finish(vec![Finish { lease, outcome: Outcome::Failed(error) }]).await?;
        }
        Ok(())
    }

    /// Deletes some records whose retention is over, and their blobs; `false` if there were none.
    pub async fn purge(&self) -> Result<bool> {
        let Some(blobs) = self.ledger.purge(LIMIT).await? else { return Ok(false) };
        for blob in blobs {
            // The record is deleted already. A blob that stays only uses space.
            if let Err(error) = self.blobs.delete(&blob).await {
                tracing::warn!(%error, blob = blob.key, "cannot delete a blob of a purged job");
            }
        }
        Ok(true)
    }
}
