//! What the ledger needs done now and then: publish what is due, forget what is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    Blobs, Claim, ClaimRequest, Error, ErrorKind, Finish, Job, JobErrorKind, Ledger, Outcome, Producer, Publication,
    Result, WorkerId,
};

/// How often due jobs are looked for: bounds how late a retry is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The most jobs that one round publishes or forgets, so that a long outage is worked off in pieces.
const LIMIT: usize = 500;

/// How long the lease on a job lasts that is about to be given up.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(30);

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
            match self.producer.publish(&jobs).await {
                Ok(()) => self.ledger.published(&publications).await?,
                // One that the broker will never take must not keep the others.
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

    /// Ends a job that cannot be published: nobody could ever take it.
    async fn give_up(&self, job: &Job, why: &Error) -> Result<()> {
        tracing::error!(job = %job.id, error = %why, "the broker refuses a job that is due; it ends as failed");
        let request = ClaimRequest::new(job.clone(), false);
        for claim in self.ledger.claim(&WorkerId::new("upkeep"), vec![request], GIVE_UP_WITHIN).await? {
            let Claim::Go { lease, .. } = claim else { continue };
            let error = JobErrorKind::Unpublishable.error(why.to_string());
            self.ledger.finish(vec![Finish { lease, outcome: Outcome::Failed(error) }]).await?;
        }
        Ok(())
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
