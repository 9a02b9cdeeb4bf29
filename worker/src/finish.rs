//! Writes the results of jobs to the ledger, and only then settles their deliveries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use queue::{
    Blobs, Body, Consumer, Delivery, Ending, Error, ErrorKind, Finish, Finished, Job, JobError, JobErrorKind, JobState,
    Lease, Ledger, Outcome, Output, Role, Settlement,
};
use service::trace::WholeSpan;
use tokio::sync::mpsc;

use crate::job::leases::RenewedLease;
use crate::job::{ClaimedJob, Disposition, FinishedJob};
use crate::report::{age, metrics, spans};
use crate::settings::WorkerSettings;

pub(crate) mod announcements;

use announcements::{Announcements, EndedJob};

/// The most batches in one round trip to the ledger.
const ROUND_LIMIT: usize = 64;

/// The most outputs that are written to the blob store at a time.
const STORED_AT_ONCE: usize = 16;

/// The waits between attempts to write results. The jobs have run, so the attempts never stop.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The results that wait to be written to the ledger, and their writer.
pub(crate) struct Outbox {
    pub(crate) pool: Arc<str>,
    pub(crate) consumer: Arc<dyn Consumer>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) announcements: Announcements,
    pub(crate) blobs: Blobs,
    pub(crate) settings: WorkerSettings,
}

/// A job whose result is written, and whose delivery is not settled yet.
struct WrittenJob {
    delivery: Delivery,
    settlement: Settlement,
    finished: Finished,
    /// The ending of the job, if this worker recorded it.
    ending: Option<Ending>,
    /// Renewed until the delivery is settled.
    _lease: RenewedLease,
    /// The spans of the settlement and of the attempt.
    _settle: WholeSpan,
    process: WholeSpan,
}

impl Outbox {
    /// Writes and settles jobs until all senders are dropped.
    pub(crate) async fn run(self, mut finished: mpsc::UnboundedReceiver<Vec<FinishedJob>>) {
        let mut batches = Vec::with_capacity(ROUND_LIMIT);
        while finished.recv_many(&mut batches, ROUND_LIMIT).await > 0 {
            let began = Instant::now();
            let mut written = self.write(batches.drain(..).flatten().collect()).await;
            self.count(&written);
            self.announce(&mut written).await;
            self.settle(written).await;
            metrics::settled(&self.pool, began.elapsed());
        }
    }

    /// Writes the results of jobs. Their places in the window are free afterwards.
    async fn write(&self, jobs: Vec<FinishedJob>) -> Vec<WrittenJob> {
        let (mut finishes, mut places) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        let mut unwritten = Vec::with_capacity(jobs.len());
        let outcomes: Vec<_> =
            stream::iter(jobs).map(|job| self.with_outcome(job)).buffered(STORED_AT_ONCE).collect().await;
        for (job, settle, settlement, outcome) in outcomes {
            let ClaimedJob { delivery, lease, place, span, .. } = job;
            let has_outcome = outcome.is_some();
            finishes.extend(outcome.map(|outcome| Finish { lease: lease.lease().clone(), outcome }));
            unwritten.push((delivery, lease, settlement, has_outcome, settle, span));
            places.push(place);
        }
        let finished = self.finish(&mut finishes).await;
        drop(places);
        let mut finished = finishes.into_iter().zip(finished);
        let written = unwritten.into_iter().map(|(delivery, lease, settlement, has_outcome, _settle, process)| {
            let (finished, ending) = match if has_outcome { finished.next() } else { None } {
                Some((finish, finished)) if self.announcements.are_published() => {
                    (finished, ending(&delivery.job, finish.outcome, &finished))
                }
                Some((_, finished)) => (finished, None),
                None => (Finished::LeaseLost, None),
            };
            WrittenJob { delivery, settlement, finished, ending, _lease: lease, _settle, process }
        });
        written.collect()
    }

    async fn with_outcome(&self, job: FinishedJob) -> (ClaimedJob, WholeSpan, Settlement, Option<Outcome>) {
        let FinishedJob { job, disposition } = job;
        let settle = spans::settle(&job.delivery.job, &job.span);
        if let Disposition::Failed(error) | Disposition::Retry(error) = &disposition {
            spans::failed(&job.span, error);
        }
        let settlement =
            if matches!(disposition, Disposition::Released) { Settlement::Requeue } else { Settlement::Ack };
        let outcome = self.outcome(job.lease.lease(), disposition).await;
        (job, settle, settlement, outcome)
    }

    /// The outcome to write to the ledger. `None`: the lease is lost, so there is nothing to write.
    async fn outcome(&self, lease: &Lease, disposition: Disposition) -> Option<Outcome> {
        Some(match disposition {
            Disposition::Succeeded(output) => match self.store(lease, output).await {
                Ok(output) => Outcome::Succeeded(output),
                // Another attempt has an output of the same size.
                Err(error) if error.kind() == ErrorKind::Refused => {
                    Outcome::Failed(JobErrorKind::OutputUnwritable.error(error.to_string()))
                }
                Err(error) => self.retry(lease, JobErrorKind::OutputUnwritable.error(error.to_string())),
            },
            Disposition::Failed(error) => Outcome::Failed(error),
            Disposition::Retry(error) => self.retry(lease, error),
            Disposition::Released => Outcome::Released,
            Disposition::LeaseLost => return None,
        })
    }

    fn retry(&self, lease: &Lease, error: JobError) -> Outcome {
        Outcome::Retry { error, after: self.settings.retry_after(lease.attempt, &lease.id) }
    }

    /// Writes a big output to the blob store. The job has run, so the attempts do not stop while the store is away or
    /// full.
    async fn store(&self, lease: &Lease, output: Output) -> Result<Output, Error> {
        let Body::Inline(bytes) = output.body else { return Ok(output) };
        let mut pause = FIRST_PAUSE;
        loop {
            match self.blobs.body(&lease.id, Role::Output, bytes.clone()).await {
                Ok(body) => return Ok(Output { media_type: output.media_type, body }),
                Err(error) if error.kind().is_outage() => {
                    tracing::warn!(%error, job = %lease.id, "cannot store an output; trying again");
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn finish(&self, finishes: &mut [Finish]) -> Vec<Finished> {
        if finishes.is_empty() {
            return Vec::new();
        }
        let error = match self.finish_together(finishes).await {
            Ok(finished) => return finished,
            Err(error) => error,
        };
        if finishes.len() > 1 {
            tracing::warn!(%error, jobs = finishes.len(), "cannot write results together; writing each alone");
        }
        let mut finished = Vec::with_capacity(finishes.len());
        for finish in finishes {
            finished.push(self.finish_alone(finish).await);
        }
        finished
    }

    /// Writes results until the ledger takes them. Returns an error if a value is the cause, because a repetition would
    /// fail too.
    async fn finish_together(&self, finishes: &[Finish]) -> Result<Vec<Finished>, Error> {
        let mut pause = FIRST_PAUSE;
        loop {
            // A repetition is safe: the fence rejects a result that was already recorded.
            match self.ledger.finish(finishes.to_vec()).await {
                Ok(finished) => return Ok(finished),
                Err(error) if error.kind().is_about_a_value() => return Err(error),
                Err(error) => tracing::warn!(%error, jobs = finishes.len(), "cannot write results; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Writes one result. A job whose result the ledger cannot record ends as failed. If the ledger cannot record that
    /// either, the worker gives the job up, and its lease expires.
    async fn finish_alone(&self, finish: &mut Finish) -> Finished {
        for _ in 0..2 {
            let error = match self.finish_together(std::slice::from_ref(finish)).await {
                Ok(finished) => return finished.first().copied().unwrap_or(Finished::LeaseLost),
                Err(error) => error,
            };
            tracing::error!(job = %finish.lease.id, %error, "the ledger cannot record a result");
            let message = format!("the ledger cannot record the result: {error}");
            finish.outcome = Outcome::Failed(JobErrorKind::OutputUnwritable.error(message));
        }
        Finished::LeaseLost
    }

    fn count(&self, written: &[WrittenJob]) {
        let mut outcomes: BTreeMap<&'static str, u64> = BTreeMap::new();
        for job in written {
            let outcome = outcome_name(job.finished);
            spans::ended(&job.process, outcome);
            if matches!(job.finished, Finished::Recorded { state, .. } if state.has_ended()) {
                metrics::request_ended(&self.pool, outcome, age(&job.delivery.job));
            }
            *outcomes.entry(outcome).or_default() += 1;
        }
        for (outcome, jobs) in outcomes {
            metrics::jobs_ended(&self.pool, outcome, jobs);
        }
    }

    /// Publishes how jobs ended. If that fails, the delivery is requeued, so that the next worker publishes the ending.
    /// Only jobs that have ended are requeued: another job would become a suspect.
    async fn announce(&self, written: &mut [WrittenJob]) {
        if !self.announcements.are_published() {
            return;
        }
        let may_have_ended = |job: &&mut WrittenJob| match job.finished {
            Finished::Recorded { state, .. } => state.has_ended(),
            // The job was cancelled, or another worker has it.
            Finished::LeaseLost => true,
        };
        let mut ended: Vec<_> = written.iter_mut().filter(may_have_ended).collect();
        let jobs = ended.iter_mut().map(|written| match written.ending.take() {
            Some(ending) => EndedJob::Recorded(ending),
            None => EndedJob::in_ledger(&written.delivery.job),
        });
        let published = self.announcements.publish(jobs.collect()).await;
        for (job, is_published) in ended.iter_mut().zip(published) {
            if !is_published && matches!(job.finished, Finished::Recorded { .. }) {
                job.settlement = Settlement::Requeue;
            }
        }
    }

    /// Settles deliveries. This includes those of lost leases: the broker ignores a delivery that another worker has.
    async fn settle(&self, written: Vec<WrittenJob>) {
        let settlements = written.into_iter().map(|job| (job.delivery, job.settlement)).collect();
        if let Err(error) = self.consumer.settle(settlements).await {
            tracing::warn!(%error, "cannot settle deliveries; the ledger will not run their jobs again");
        }
    }
}

/// The ending of a job after this outcome was recorded. `None`: the job is open, or the lease is lost.
fn ending(job: &Job, outcome: Outcome, finished: &Finished) -> Option<Ending> {
    let Finished::Recorded { state, finished_at } = *finished else { return None };
    let (output, error) = match outcome {
        Outcome::Succeeded(output) => (Some(output), None),
        Outcome::Failed(error) | Outcome::Retry { error, .. } => (None, Some(error)),
        Outcome::Released => (None, None),
    };
    Some(Ending {
        id: job.id.clone(),
        pool: job.pool.clone(),
        state,
        finished_at: finished_at?,
        output,
        error,
        origin: job.origin.clone(),
        trace_parent: job.trace_parent.clone(),
    })
}

fn outcome_name(finished: Finished) -> &'static str {
    match finished {
        Finished::Recorded { state: JobState::Queued, .. } => "released",
        Finished::Recorded { state, .. } => state.as_str(),
        Finished::LeaseLost => "lease_lost",
    }
}
