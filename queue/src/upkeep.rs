//! Upkeep of the ledger: publishes due jobs, deletes records whose retention is over, and deletes blobs without a job.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Blobs, Claim, ClaimRequest, Error, ErrorKind, Finish, Job, JobErrorKind, Ledger, Outcome, Producer, Publication,
    Result, Sweep, WorkerId,
};

/// The interval at which the holder of the upkeep looks for due jobs. It limits the delay of a retry.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The interval at which the other processes ask for the upkeep.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The lease on the upkeep. With [`ASK_EVERY`], it limits the time in which no process looks for due jobs.
const HOLD_FOR: Duration = Duration::from_millis(1500);

/// The most jobs that one round publishes or deletes, so that the work after a long outage is split into rounds.
const LIMIT: usize = 500;

/// The lease on a job that the broker rejects, while it is recorded as failed.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(30);

/// Publishes due jobs, deletes records whose retention is over, and slowly deletes blobs of jobs without a record.
///
/// Any number of processes may run it on the same ledger. One of them does the work, and another one takes over when that
/// one ends or fails.
pub struct Upkeep {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Publishes due jobs.
    pub producer: Arc<dyn Producer>,
    /// The blobs of deleted records.
    pub blobs: Blobs,
}

impl Upkeep {
    /// Runs until `stop`. A failed round is logged, and another process may try the next one.
    pub async fn run(self, stop: CancellationToken) {
        let (has_upkeep, watched) = watch::channel(false);
        let sweep = Sweep::new(Arc::clone(&self.ledger), self.blobs.clone());
        // A slow blob store must not delay due jobs.
        tokio::join!(self.look(&stop, has_upkeep), stop.run_until_cancelled(sweep.run(watched)));
    }

    /// Does the upkeep, except for the sweep, whenever this process has it.
    async fn look(&self, stop: &CancellationToken, has_upkeep: watch::Sender<bool>) {
        let holder = Uuid::now_v7().to_string();
        let (mut pause, mut last_failure) = (Duration::ZERO, None);
        while stop.run_until_cancelled(sleep(pause)).await.is_some() {
            let round = match self.ledger.hold_upkeep(&holder, HOLD_FOR).await {
                Ok(false) => {
                    has_upkeep.send_replace(false);
                    pause = ASK_EVERY;
                    continue;
                }
                Ok(true) => self.publish_due().await.map(drop),
                Err(error) => Err(error),
            };
            log_change(last_failure, round.as_ref().err());
            last_failure = round.err().map(|error| error.kind());
            if last_failure.is_some() {
                // The cause may be this process: it may lack a right or a connection.
                has_upkeep.send_replace(false);
                self.give_up_upkeep(&holder).await;
                pause = ASK_EVERY;
                continue;
            }
            has_upkeep.send_replace(true);
            self.purge_all(stop).await;
            pause = LOOK_EVERY;
        }
        self.give_up_upkeep(&holder).await;
    }

    async fn purge_all(&self, stop: &CancellationToken) {
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

    /// Lets another process take the upkeep now. Otherwise it waits until the lease expires.
    async fn give_up_upkeep(&self, holder: &str) {
        match timeout(HOLD_FOR, self.ledger.hold_upkeep(holder, Duration::ZERO)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "cannot give up the upkeep; its lease will expire"),
            Err(_) => tracing::debug!("cannot give up the upkeep in time; its lease will expire"),
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
                Ok(()) => self.confirm(&publications).await?,
                // A job that the broker rejects permanently must not block the others.
                Err(error) if error.kind().is_about_a_value() => {
                    for (job, publication) in jobs.iter().zip(publications) {
                        self.publish_alone(job, publication).await?;
                    }
                }
                // A pool that this client may not publish to must not block the others.
                Err(error) if error.kind() == ErrorKind::Denied => {
                    self.publish_by_pool(&jobs, &publications, error).await?;
                }
                Err(error) => return Err(error),
            }
            published += jobs.len();
        }
    }

    /// Publishes each pool's jobs on their own. Returns the denial if a pool is denied; its jobs stay queued.
    async fn publish_by_pool(&self, jobs: &[Job], publications: &[Publication], denial: Error) -> Result<()> {
        let mut pools: BTreeMap<&str, (Vec<Job>, Vec<Publication>)> = BTreeMap::new();
        for (job, publication) in jobs.iter().zip(publications) {
            let of_pool = pools.entry(job.pool.as_str()).or_default();
            of_pool.0.push(job.clone());
            of_pool.1.push(publication.clone());
        }
        if pools.len() == 1 {
            return Err(denial);
        }
        let mut last_denial = None;
        for (jobs, publications) in pools.into_values() {
            match self.producer.publish(&jobs).await {
                Ok(()) => self.confirm(&publications).await?,
                Err(error) if error.kind() == ErrorKind::Denied => last_denial = Some(error),
                Err(error) => return Err(error),
            }
        }
        last_denial.map_or(Ok(()), Err)
    }

    async fn publish_alone(&self, job: &Job, publication: Publication) -> Result<()> {
        match self.producer.publish(std::slice::from_ref(job)).await {
            Ok(()) => self.confirm(&[publication]).await,
            Err(error) if error.kind().is_about_a_value() => match self.give_up(job, &error).await {
                Err(error) if error.kind().is_about_a_value() => {
                    tracing::error!(job = %job.id, %error, "the ledger cannot end a job that the broker rejects");
                    Ok(())
                }
                ended => ended,
            },
            Err(error) => Err(error),
        }
    }

    /// Records confirmed publications. One that the ledger cannot record must not block the others: its job is due again.
    async fn confirm(&self, publications: &[Publication]) -> Result<()> {
        match self.ledger.published(publications).await {
            Err(error) if error.kind().is_about_a_value() => {}
            confirmed => return confirmed,
        }
        for publication in publications {
            match self.ledger.published(std::slice::from_ref(publication)).await {
                Err(error) if error.kind().is_about_a_value() => {
                    tracing::error!(job = %publication.id, %error, "the ledger cannot record that a job is published");
                }
                confirmed => confirmed?,
            }
        }
        Ok(())
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

/// Logs a failure once per change, because rounds are frequent. A denial needs an operator.
fn log_change(before: Option<ErrorKind>, failure: Option<&Error>) {
    match failure {
        None if before.is_some() => tracing::info!("due jobs are published again"),
        Some(error) if before == Some(error.kind()) => tracing::debug!(%error, "still cannot publish due jobs"),
        Some(error) if error.kind() == ErrorKind::Denied => {
            tracing::error!(%error, "the broker denies publishing; due jobs stay queued until it allows it");
        }
        Some(error) => tracing::warn!(%error, "cannot publish due jobs; trying again"),
        None => {}
    }
}
