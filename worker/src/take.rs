//! Receives jobs, claims them, has them prepared.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use bytes::Bytes;
use queue::{Blobs, Claim, ClaimRequest, Consumer, Delivery, Error, ErrorKind, JobError, Ledger, Settlement, WorkerId};
use rayon::ThreadPool;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::batch::Batcher;
use crate::finish::announcements::Endings;
use crate::job::leases::Leases;
use crate::job::window::Window;
use crate::job::{Held, How, Leaving, Ready, Work};
use crate::runtime::{Item, Model};

/// How long to wait after broker or ledger refused, so as not to hammer what is in trouble.
const PAUSE: Duration = Duration::from_secs(1);

/// What taking jobs in works with.
pub(crate) struct Intake {
    pub(crate) worker: WorkerId,
    pub(crate) consumer: Arc<dyn Consumer>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) endings: Endings,
    pub(crate) blobs: Blobs,
    pub(crate) model: Arc<dyn Model>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) window: Arc<Window>,
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) cpu: Arc<ThreadPool>,
    pub(crate) leaving: mpsc::UnboundedSender<Vec<Leaving>>,
}

impl Intake {
    /// Takes jobs in until `stop`, then sees those through to the batcher that it had received.
    pub(crate) async fn run(self, stop: &CancellationToken) {
        let intake = Arc::new(self);
        let claiming = TaskTracker::new();
        while let Some(room) = stop.run_until_cancelled(intake.window.reserve()).await {
            match stop.run_until_cancelled(intake.consumer.receive(room)).await {
                None => {}
                Some(Ok(deliveries)) => {
                    intake.window.release(room - deliveries.len());
                    claiming.spawn(Arc::clone(&intake).claim(deliveries, stop.clone()));
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot receive jobs; trying again");
                    intake.window.release(room);
                    stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                }
            }
        }
        claiming.close();
        claiming.wait().await;
    }

    async fn claim(self: Arc<Self>, deliveries: Vec<Delivery>, stop: CancellationToken) {
        let (claims, received) = match self.claims(&deliveries, &stop).await {
            Ok(claims) => claims,
            Err(error) => {
                tracing::warn!(%error, jobs = deliveries.len(), "cannot claim jobs; giving them back");
                stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                self.window.release(deliveries.len());
                return;
            }
        };
        let (mut settled, mut ended) = (Vec::new(), Vec::new());
        for (mut delivery, claim) in deliveries.into_iter().zip(claims) {
            match claim {
                Claim::Granted { lease, alone } => {
                    let lost = self.leases.keep(&lease);
                    let unreadable = delivery.unreadable.take();
                    let held = Held { delivery, lease, received, alone, lost };
                    match unreadable {
                        Some(reason) => self.set_aside(held, reason),
                        None => self.prepare(held).await,
                    }
                }
                Claim::Ended(_) => ended.push(delivery),
                Claim::HeldElsewhere => settled.push((delivery, Settlement::Ack)),
            }
        }
        // Whoever saw them end may have vanished before they told it.
        let told = self.endings.tell(&ended.iter().map(|delivery: &Delivery| &delivery.job).collect::<Vec<_>>()).await;
        let (told, untold): (Vec<_>, Vec<_>) = ended.into_iter().zip(told).partition(|(_, told)| *told);
        settled.extend(told.into_iter().map(|(delivery, _)| (delivery, Settlement::Ack)));
        if !untold.is_empty() {
            stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            self.window.release(untold.len());
        }
        if !settled.is_empty() {
            self.window.release(settled.len());
            if let Err(error) = self.consumer.settle(settled).await {
                tracing::warn!(%error, "cannot settle deliveries that need no work; they come again");
            }
        }
    }

    /// The ledger's answers, in order, and when it was asked what it answered. An answer that is lost may have granted
    /// leases, and jobs given back then would look as if their worker had vanished; so the same requests are made for
    /// as long as those leases would hold.
    async fn claims(
        &self,
        deliveries: &[Delivery],
        stop: &CancellationToken,
    ) -> Result<(Vec<Claim>, StdInstant), Error> {
        let mut asked = StdInstant::now();
        let mut requests = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let mut job = delivery.job.clone();
            // What came from outside may be bigger than what could be published again.
            job.input.body = self.blobs.delivered(&job.id, &job.input.body).await?;
            requests.push(ClaimRequest::new(job, delivery.redelivered));
        }
        let (start, mut is_repeated) = (Instant::now(), false);
        loop {
            let error = match self.ledger.claim(&self.worker, requests.clone(), self.leases.duration()).await {
                Ok(claims) => return Ok((claims, asked)),
                Err(error) => error,
            };
            let may_be_claimed = error.kind() == ErrorKind::Unavailable && start.elapsed() < self.leases.duration();
            if !may_be_claimed || is_repeated && stop.is_cancelled() {
                return Err(error);
            }
            tracing::warn!(%error, jobs = requests.len(), "cannot claim jobs; trying again");
            // At once the first time: most often only the connection was lost.
            if is_repeated {
                stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            }
            is_repeated = true;
            asked = StdInstant::now();
        }
    }

    /// A message that is no job ends as dead at once, with its bytes: its only attempt has failed.
    fn set_aside(&self, held: Held, reason: String) {
        tracing::warn!(job = %held.lease.id, reason, "a message cannot be read; it is kept among the dead jobs");
        self.leave(held, How::Retry(JobError { kind: "unreadable_message".to_owned(), message: reason }));
    }

    /// Fetches a job's bytes and hands it to the CPU threads.
    async fn prepare(self: &Arc<Self>, mut held: Held) {
        let body = match self.body(&mut held.delivery).await {
            Ok(body) => body,
            Err(error) => {
                let problem = JobError { kind: "input_unreadable".to_owned(), message: error.to_string() };
                let is_final = error.kind() == ErrorKind::Corrupt;
                return self.leave(held, if is_final { How::Failed(problem) } else { How::Retry(problem) });
            }
        };
        if held.alone {
            return self.push(Ready { held, work: Work::Raw(body) });
        }
        let intake = Arc::clone(self);
        self.cpu.spawn(move || match prepare(intake.model.as_ref(), &held, body) {
            Ok(item) => intake.push(Ready { held, work: Work::Prepared(item) }),
            Err(error) => intake.leave(held, How::Failed(error)),
        });
    }

    /// The bytes of a job. The message may be older than the job's input, whose former blob is deleted when somebody
    /// edits it: what is missing is asked of the ledger.
    async fn body(&self, delivery: &mut Delivery) -> Result<Bytes, Error> {
        let missing = match self.blobs.bytes(&delivery.job.input.body).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => error,
            read => return read,
        };
        match self.ledger.input(&delivery.job.id).await? {
            Some(input) if input != delivery.job.input => delivery.job.input = input,
            _ => return Err(missing),
        }
        self.blobs.bytes(&delivery.job.input.body).await
    }

    fn push(&self, ready: Ready) {
        if let Err(ready) = self.batcher.push(ready) {
            self.leave(ready.held, How::Released);
        }
    }

    /// A job leaves without having run.
    fn leave(&self, held: Held, how: How) {
        self.window.ran(1);
        // The outbox lives until everybody who sends to it has ended.
        drop(self.leaving.send(vec![Leaving { held, how }]));
    }
}

/// Decodes and preprocesses the input of a job. A panic of a decoder is the input's fault, and that job's alone.
pub(crate) fn prepare(model: &dyn Model, held: &Held, body: Bytes) -> Result<Item, JobError> {
    let media_type = &held.delivery.job.input.media_type;
    catch_unwind(AssertUnwindSafe(|| model.prepare(media_type, body))).unwrap_or_else(|_| {
        Err(JobError { kind: "bad_input".to_owned(), message: "preparing the input panicked".to_owned() })
    })
}
