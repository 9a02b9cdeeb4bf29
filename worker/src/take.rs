//! Receives jobs from the broker, claims them in the ledger, and prepares their inputs.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, TryStreamExt, future, stream};
use queue::{
    Blobs, Body, Claim, ClaimRequest, Consumer, Delivery, Error, ErrorKind, JobErrorKind, Ledger, Settlement, WorkerId,
};
use rayon::ThreadPool;
use service::trace;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::batch::Batcher;
use crate::finish::announcements::{Announcements, EndedJob};
use crate::job::input::Inputs;
use crate::job::leases::Leases;
use crate::job::memory::HeldMemory;
use crate::job::window::{Place, Window};
use crate::job::{ClaimedJob, Disposition, FinishedJob, ReadyInput, ReadyJob};
use crate::report::{age, metrics, spans};
use crate::runtime::Model;
use crate::watchdog::Watchdog;

mod gathering;

use gathering::Gathering;

/// The wait after an error of the broker or the ledger. Without a wait, repeated calls would only add load.
const PAUSE: Duration = Duration::from_secs(1);

/// The most inputs that a round of claims reads from the blob store, or writes to it, at a time.
const BLOBS_AT_ONCE: usize = 16;

/// The part of a worker that takes jobs in.
pub(crate) struct Intake {
    pub(crate) pool: Arc<str>,
    pub(crate) worker: WorkerId,
    pub(crate) consumer: Arc<dyn Consumer>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) announcements: Announcements,
    pub(crate) blobs: Blobs,
    pub(crate) inputs: Inputs,
    pub(crate) model: Arc<dyn Model>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) window: Arc<Window>,
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) cpu: Arc<ThreadPool>,
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) finished: mpsc::UnboundedSender<Vec<FinishedJob>>,
}

impl Intake {
    /// Takes jobs in until `stop`, then waits until all received jobs are claimed. The error names the part that ended
    /// before `stop`: a consumer that has ended never receives again.
    pub(crate) async fn run(self, stop: &CancellationToken) -> Result<(), &'static str> {
        let intake = Arc::new(self);
        let claiming = TaskTracker::new();
        while let Some(room) = stop.run_until_cancelled(intake.window.room()).await {
            match stop.run_until_cancelled(intake.consumer.receive(room.places())).await {
                None => {}
                Some(Ok(deliveries)) => {
                    let mut received: Vec<_> = deliveries.into_iter().zip(room).collect();
                    intake
                        .window
                        .received(received.iter_mut().map(|(delivery, place)| (place, inline_bytes(delivery))));
                    claiming.spawn(Arc::clone(&intake).claim(received, stop.clone()));
                }
                Some(Err(error)) if error.kind() == ErrorKind::Ended => {
                    tracing::error!(%error, "cannot receive jobs any more; the worker ends");
                    return Err("the consumer");
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot receive jobs; trying again");
                    stop.run_until_cancelled(sleep(PAUSE)).await;
                }
            }
        }
        claiming.close();
        claiming.wait().await;
        Ok(())
    }

    async fn claim(self: Arc<Self>, mut received: Vec<(Delivery, Place)>, stop: CancellationToken) {
        let spans: Vec<_> = received.iter_mut().map(|(delivery, _)| spans::receive(&mut delivery.job)).collect();
        let redelivered = received.iter().filter(|(delivery, _)| delivery.redelivered).count();
        let (claims, claimed_at) = match self.claims(&received, &stop).await {
            Ok(claims) => claims,
            // One job that cannot be claimed must not block the others.
            Err(error) if error.kind().is_about_a_value() && received.len() > 1 => {
                tracing::warn!(%error, jobs = received.len(), "cannot claim jobs together; claiming each alone");
                let each = received.into_iter().map(|one| Arc::clone(&self).claim(vec![one], stop.clone()));
                Box::pin(future::join_all(each)).await;
                return;
            }
            Err(error) => {
                tracing::warn!(%error, jobs = received.len(), "cannot claim jobs; requeueing them");
                stop.run_until_cancelled(sleep(PAUSE)).await;
                return;
            }
        };
        if redelivered > 0 {
            metrics::redelivered(&self.pool, redelivered);
        }
        let (mut granted, mut acknowledged, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        for (((delivery, place), claim), receive) in received.into_iter().zip(claims).zip(spans) {
            match claim {
                Claim::Granted { lease, alone: is_suspect } => {
                    drop(receive);
                    if lease.fence == 1 {
                        metrics::first_claimed(&self.pool, age(&delivery.job));
                    }
                    let span = spans::process(&delivery.job, &lease);
                    let lease = self.leases.add(lease);
                    let deadline = deadline(&delivery);
                    let received = claimed_at;
                    let memory = HeldMemory::default();
                    granted.push(ClaimedJob { delivery, lease, place, memory, received, deadline, is_suspect, span });
                }
                Claim::Ended(state) => {
                    trace::event(&receive, state.as_str());
                    ended.push((delivery, place));
                }
                Claim::HeldElsewhere => {
                    trace::event(&receive, "held_elsewhere");
                    acknowledged.push(delivery);
                }
            }
        }
        // Jobs without a blob start at once. The others may wait long for the blob store.
        let (inline, stored): (Vec<_>, Vec<_>) = granted.into_iter().partition(has_inline_input);
        let mut to_prepare = Vec::with_capacity(inline.len());
        let mut starting: FuturesUnordered<_> = inline.into_iter().map(|job| self.start(job, &stop)).collect();
        while let Some(Some(started)) = starting.next().now_or_never() {
            to_prepare.extend(started);
        }
        self.prepare(to_prepare);
        // The others wait for memory.
        let start_inline = starting.for_each(|started| {
            self.prepare(started.into_iter().collect());
            future::ready(())
        });
        let start = stream::iter(stored).for_each_concurrent(BLOBS_AT_ONCE, |job| {
            let (intake, stop) = (Arc::clone(&self), stop.clone());
            async move { intake.prepare(intake.start(job, &stop).await.into_iter().collect()) }
        });
        future::join3(start_inline, start, self.acknowledge(acknowledged, ended, &stop)).await;
    }

    /// Acknowledges deliveries that need no work.
    async fn acknowledge(
        &self,
        mut acknowledged: Vec<Delivery>,
        ended: Vec<(Delivery, Place)>,
        stop: &CancellationToken,
    ) {
        acknowledged.extend(self.announce(ended, stop).await);
        if !acknowledged.is_empty() {
            let settlements = acknowledged.into_iter().map(|delivery| (delivery, Settlement::Ack)).collect();
            if let Err(error) = self.consumer.settle(settlements).await {
                tracing::warn!(%error, "cannot acknowledge deliveries that need no work; they will be delivered again");
            }
        }
    }

    /// The ledger's answers, in order, and the time of the call that they answer.
    ///
    /// A lost answer may have granted leases, and a server that was suspended may grant them when it resumes. Requeued
    /// jobs would then look like jobs of a worker that disappeared. So the same requests are repeated while the ledger is
    /// away.
    async fn claims(
        &self,
        received: &[(Delivery, Place)],
        stop: &CancellationToken,
    ) -> Result<(Vec<Claim>, StdInstant), Error> {
        let mut claimed_at = StdInstant::now();
        let requests = self.requests(received).await?;
        let mut is_repeated = false;
        loop {
            let error = match self.ledger.claim(&self.worker, requests.clone(), self.leases.duration()).await {
                Ok(claims) => return Ok((claims, claimed_at)),
                Err(error) => error,
            };
            let may_be_claimed = error.kind() == ErrorKind::Unavailable;
            if !may_be_claimed || is_repeated && stop.is_cancelled() {
                return Err(error);
            }
            tracing::warn!(%error, jobs = requests.len(), "cannot claim jobs; trying again");
            // The first retry has no wait, because usually only the connection was lost.
            if is_repeated {
                stop.run_until_cancelled(sleep(PAUSE)).await;
            }
            is_repeated = true;
            claimed_at = StdInstant::now();
        }
    }

    /// The requests for the claims. An event from outside may be too big to be published again, so its body becomes a blob.
    async fn requests(&self, received: &[(Delivery, Place)]) -> Result<Vec<ClaimRequest>, Error> {
        let bodies =
            received.iter().map(|(delivery, _)| self.blobs.delivered(&delivery.job.id, &delivery.job.input.body));
        // All of them are created here: a closure over references in a stream is not `Send`.
        let bodies: Vec<_> = bodies.collect();
        let bodies: Vec<Body> = stream::iter(bodies).buffered(BLOBS_AT_ONCE).try_collect().await?;
        let request = |((delivery, _), body): (&(Delivery, Place), Body)| {
            let mut job = delivery.job.clone();
            job.input.body = body;
            ClaimRequest::new(job, delivery.redelivered)
        };
        Ok(received.iter().zip(bodies).map(request).collect())
    }

    /// Publishes how jobs ended, because the worker that ended them may have disappeared before it published this.
    /// Returns the deliveries to acknowledge. The others are requeued.
    async fn announce(&self, ended: Vec<(Delivery, Place)>, stop: &CancellationToken) -> Vec<Delivery> {
        let jobs = ended.iter().map(|(delivery, _)| EndedJob::in_ledger(&delivery.job));
        let published = self.announcements.publish(jobs.collect()).await;
        let (mut acknowledged, mut requeued) = (Vec::new(), Vec::new());
        for ((delivery, place), is_published) in ended.into_iter().zip(published) {
            match is_published {
                true => acknowledged.push(delivery),
                false => requeued.push((delivery, place)),
            }
        }
        if !requeued.is_empty() {
            stop.run_until_cancelled(sleep(PAUSE)).await;
        }
        acknowledged
    }

    /// Reads the input of a job. `None`: the job has ended, or it is a suspect, whose input is prepared later.
    async fn start(&self, job: ClaimedJob, stop: &CancellationToken) -> Option<(ClaimedJob, Bytes)> {
        let span = job.span.clone();
        self.read(job, stop).instrument(span).await
    }

    async fn read(&self, mut job: ClaimedJob, stop: &CancellationToken) -> Option<(ClaimedJob, Bytes)> {
        if let Some(reason) = job.delivery.unreadable.take() {
            // Its only attempt fails, so the job ends as dead and its bytes stay with the dead jobs.
            tracing::warn!(job = %job.lease.lease().id, reason, "cannot read a message; its job ends as dead");
            self.finish(job, Disposition::Retry(JobErrorKind::UnreadableMessage.error(reason)));
            return None;
        }
        let read = match job.is_suspect {
            true => self.inputs.check(&mut job, stop).await.map(|()| None),
            false => self.inputs.read(&mut job, self.model.as_ref(), stop).await.map(Some),
        };
        match read {
            Ok(Some(body)) => return Some((job, body)),
            Ok(None) => self.push(vec![ReadyJob { job, input: ReadyInput::Unread }]),
            Err(disposition) => self.finish(job, disposition),
        }
        None
    }

    /// Prepares inputs on the CPU threads. Each thread takes the next job when it has finished one.
    fn prepare(self: &Arc<Self>, jobs: Vec<(ClaimedJob, Bytes)>) {
        let threads = self.cpu.current_num_threads().min(jobs.len());
        let gathering = Arc::new(Gathering::new(jobs));
        for _ in 0..threads {
            let (intake, gathering) = (Arc::clone(self), Arc::clone(&gathering));
            self.cpu.spawn(move || {
                while let Some((job, body)) = gathering.next() {
                    let ready = intake.prepared(job, body);
                    intake.push(gathering.add(ready));
                }
                intake.push(gathering.rest());
            });
        }
    }

    /// Prepares one input. `None`: the input is bad, so its job has ended.
    fn prepared(&self, mut job: ClaimedJob, body: Bytes) -> Option<ReadyJob> {
        let watch = self.watchdog.watch("preparing an input", Arc::from([job.lease.lease().id.clone()]));
        let began = StdInstant::now();
        let prepared = job.span.in_scope(|| job.prepare(self.model.as_ref(), body));
        metrics::prepared(&self.pool, began.elapsed());
        drop(watch);
        match prepared {
            Ok(item) => {
                job.memory.keep(item.size_bytes());
                Some(ReadyJob { job, input: ReadyInput::Prepared(item) })
            }
            Err(error) => {
                self.finish(job, Disposition::Failed(error));
                None
            }
        }
    }

    fn push(&self, ready: Vec<ReadyJob>) {
        if ready.is_empty() {
            return;
        }
        for ready in self.batcher.push(ready) {
            self.finish(ready.job, Disposition::Released);
        }
    }

    /// Ends a job that did not run.
    fn finish(&self, job: ClaimedJob, disposition: Disposition) {
        // The outbox ends only after all its senders were dropped.
        drop(self.finished.send(FinishedJob::not_run([(job, disposition)])));
    }
}

/// The bytes of a message that are in memory.
fn inline_bytes(delivery: &Delivery) -> u64 {
    match &delivery.job.input.body {
        Body::Inline(bytes) => bytes.len() as u64,
        Body::Reference(_) => 0,
    }
}

/// The deadline of a job by the monotonic clock, if it is in the future.
fn deadline(delivery: &Delivery) -> Option<StdInstant> {
    let left = delivery.job.deadline_at?.duration_since(jiff::Timestamp::now());
    let left = Duration::try_from(left).ok().filter(|left| !left.is_zero())?;
    StdInstant::now().checked_add(left)
}

fn has_inline_input(job: &ClaimedJob) -> bool {
    matches!(job.delivery.job.input.body, Body::Inline(_))
}
