//! Writes how jobs ended, and only then settles their deliveries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use queue::{
    Blobs, Body, Consumer, Error, Finish, Finished, JobError, JobState, Lease, Ledger, Outcome, Output, Role,
    Settlement,
};
use tokio::sync::mpsc;

use crate::finish::announcements::Endings;
use crate::job::leases::Leases;
use crate::job::window::Window;
use crate::job::{Held, How, Leaving};
use crate::report::metrics;
use crate::settings::WorkerSettings;

pub(crate) mod announcements;

/// The most device batches that one round trip to the ledger carries.
const ROUND_LIMIT: usize = 64;

/// The waits between attempts to write results: the work is done, so it is worth insisting.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What letting jobs go works with.
pub(crate) struct Outbox {
    pub(crate) pool: Arc<str>,
    pub(crate) consumer: Arc<dyn Consumer>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) endings: Endings,
    pub(crate) blobs: Blobs,
    pub(crate) leases: Arc<Leases>,
    pub(crate) window: Arc<Window>,
    pub(crate) settings: WorkerSettings,
}

impl Outbox {
    /// Lets jobs go until nobody can send any more.
    pub(crate) async fn run(self, mut leaving: mpsc::UnboundedReceiver<Vec<Leaving>>) {
        let mut batches = Vec::with_capacity(ROUND_LIMIT);
        while leaving.recv_many(&mut batches, ROUND_LIMIT).await > 0 {
            self.let_go(batches.drain(..).flatten().collect()).await;
        }
    }

    async fn let_go(&self, leaving: Vec<Leaving>) {
        let jobs = leaving.len();
        let mut finishes = Vec::with_capacity(leaving.len());
        let (mut settlements, mut finishing) = (Vec::with_capacity(leaving.len()), Vec::with_capacity(leaving.len()));
        for Leaving { held, how } in leaving {
            let settlement = if matches!(how, How::Released) { Settlement::Requeue } else { Settlement::Ack };
            match self.outcome(&held, how).await {
                Some(outcome) => {
                    finishes.push(Finish { lease: held.lease.clone(), outcome });
                    finishing.push(true);
                }
                None => finishing.push(false),
            }
            settlements.push((held, settlement));
        }
        let mut finished = self.finish(finishes).await.into_iter();
        let finished: Vec<Finished> = finishing
            .into_iter()
            .map(|is_finishing| if is_finishing { finished.next() } else { None }.unwrap_or(Finished::LeaseLost))
            .collect();
        let mut outcomes: BTreeMap<&'static str, u64> = BTreeMap::new();
        for finished in &finished {
            *outcomes.entry(outcome_name(*finished)).or_default() += 1;
        }
        self.window.written(jobs);
        for (outcome, jobs) in outcomes {
            metrics::jobs_ended(&self.pool, outcome, jobs);
        }
        self.tell(&mut settlements, &finished).await;
        let forget = |(held, settlement): (Held, Settlement)| {
            self.leases.forget(&held.lease);
            (held.delivery, settlement)
        };
        // A refused result is settled too: the broker passes over what is not ours any more.
        let settled = settlements.into_iter().map(forget).collect();
        if let Err(error) = self.consumer.settle(settled).await {
            tracing::warn!(%error, "cannot settle deliveries; they come again, and the ledger knows that they are done");
        }
    }

    /// Tells how jobs ended. Where that fails the delivery goes back, so that whoever gets it tells it again; but only of
    /// a job that has ended: of any other it would be taken for the sign of a vanished worker.
    async fn tell(&self, settlements: &mut [(Held, Settlement)], finished: &[Finished]) {
        let may_have_ended = |finished: &Finished| match finished {
            Finished::Recorded(state) => state.has_ended(),
            // Cancelled, or somebody else's.
            Finished::LeaseLost => true,
        };
        let places: Vec<usize> = (0..finished.len()).filter(|place| may_have_ended(&finished[*place])).collect();
        let jobs: Vec<_> = places.iter().map(|place| &settlements[*place].0.delivery.job).collect();
        let told = self.endings.tell(&jobs).await;
        for (place, told) in places.into_iter().zip(told) {
            if !told && matches!(finished[place], Finished::Recorded(_)) {
                settlements[place].1 = Settlement::Requeue;
            }
        }
    }

    /// What the ledger is told; `None` where it knows already.
    async fn outcome(&self, held: &Held, how: How) -> Option<Outcome> {
        Some(match how {
            How::Succeeded(output) => match self.keep(&held.lease, output).await {
                Ok(output) => Outcome::Succeeded(output),
                Err(error) => {
                    let error = JobError { kind: "output_unwritable".to_owned(), message: error.to_string() };
                    self.retry(&held.lease, error)
                }
            },
            How::Failed(error) => Outcome::Failed(error),
            How::Retry(error) => self.retry(&held.lease, error),
            How::Released => Outcome::Released,
            How::LeaseLost => return None,
        })
    }

    fn retry(&self, lease: &Lease, error: JobError) -> Outcome {
        Outcome::Retry { error, after: self.settings.retry_after(lease.attempt, &lease.id) }
    }

    /// A big output goes to the blob store.
    async fn keep(&self, lease: &Lease, output: Output) -> Result<Output, Error> {
        let Body::Inline(bytes) = output.body else { return Ok(output) };
        let body = self.blobs.body(&lease.id, Role::Output, bytes).await?;
        Ok(Output { media_type: output.media_type, body })
    }

    async fn finish(&self, finishes: Vec<Finish>) -> Vec<Finished> {
        if finishes.is_empty() {
            return Vec::new();
        }
        let mut pause = FIRST_PAUSE;
        loop {
            // Repeating is safe: what was recorded the first time is refused by its fence the second time.
            match self.ledger.finish(finishes.clone()).await {
                Ok(finished) => return finished,
                Err(error) => tracing::warn!(%error, jobs = finishes.len(), "cannot write results; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

fn outcome_name(finished: Finished) -> &'static str {
    match finished {
        Finished::Recorded(JobState::Queued) => "released",
        Finished::Recorded(state) => state.as_str(),
        Finished::LeaseLost => "lease_lost",
    }
}
