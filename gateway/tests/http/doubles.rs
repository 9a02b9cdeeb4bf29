//! Test doubles of the rest of the system.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use model::{InputFault, InputFaultKind, TENSORS_MEDIA_TYPE};
use queue::{
    BlobRef, Claim, ClaimRequest, DeadFilter, DeadPage, DeadPosition, DueJob, Error, ErrorKind, Finish, Finished,
    Forgotten, Input, Job, JobCounts, JobId, JobRecord, Lease, Ledger, PoolName, Producer, Publication, Purged,
    Requeued, Result, Risk, Submitted, WorkerId,
};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// The check of a model that takes text, and tensors of shape `[1]`.
pub(crate) fn text_model(media_type: &str, body: &[u8]) -> std::result::Result<(), InputFault> {
    match media_type {
        "text/plain" => Ok(()),
        "text/panic" => panic!("the test asked for a panic"),
        TENSORS_MEDIA_TYPE => {
            let tensors: serde_json::Value = serde_json::from_slice(body).unwrap();
            let shape = &tensors["inputs"][0]["shape"];
            if *shape == serde_json::json!([1]) {
                return Ok(());
            }
            Err(InputFault::new(InputFaultKind::Tensor, "inputs[0].shape", format!("{shape} is not [1]")))
        }
        other => {
            let message = format!("{other:?} is not text/plain");
            Err(InputFault::new(InputFaultKind::MediaType, "media_type", message))
        }
    }
}

/// A check of inputs that waits until the test opens it.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    /// Waits, as a check of a large input does, with a thread of its own.
    pub(crate) fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        drop(self.changed.wait_while(state, |(_, open)| !*open).unwrap());
    }

    /// The number of checks that have begun.
    pub(crate) fn checks(&self) -> usize {
        self.state.lock().unwrap().0
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// A producer whose broker can be made unavailable, and for which the job `large` is too large.
pub(crate) struct FlakyProducer {
    pub(crate) producer: Arc<dyn Producer>,
    pub(crate) unavailable: Arc<AtomicBool>,
}

#[async_trait]
impl Producer for FlakyProducer {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        if self.unavailable.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "broker at 10.0.0.7: away"));
        }
        if jobs.iter().any(|job| job.id.as_str() == "large") {
            return Err(Error::new(ErrorKind::Refused, "70000 bytes are more than 65536"));
        }
        self.producer.publish(jobs).await
    }
}

/// A call of the gateway that a test waits for.
#[derive(Debug, PartialEq)]
pub(crate) enum Call {
    Published(Vec<Publication>),
    Watched,
}

/// A ledger that reports calls to the test, and that can be made to return errors.
pub(crate) struct ObservedLedger {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) calls: UnboundedSender<Call>,
    pub(crate) ledger_error: Arc<Mutex<Option<ErrorKind>>>,
    pub(crate) forget_pause: ForgetPause,
}

/// Pauses the next call of `forget` before it returns.
pub(crate) type ForgetPause = Arc<Mutex<Option<Pause>>>;

/// A pause of one call: it reports that it has begun, and waits to be released.
pub(crate) struct Pause {
    pub(crate) reached: oneshot::Sender<()>,
    pub(crate) released: oneshot::Receiver<()>,
}

impl ObservedLedger {
    fn check_error(&self) -> Result<()> {
        match *self.ledger_error.lock().unwrap() {
            Some(kind) => Err(Error::new(kind, "file /var/lib/secret: the test asked for an error")),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Ledger for ObservedLedger {
    async fn submit(&self, jobs: &[Job]) -> Result<Vec<Submitted>> {
        self.check_error()?;
        self.ledger.submit(jobs).await
    }

    async fn published(&self, publications: &[Publication]) -> Result<()> {
        self.ledger.published(publications).await?;
        self.calls.send(Call::Published(publications.to_vec())).ok();
        Ok(())
    }

    async fn claim(&self, worker: &WorkerId, requests: Vec<ClaimRequest>, lease: Duration) -> Result<Vec<Claim>> {
        self.ledger.claim(worker, requests, lease).await
    }

    async fn begin(&self, lease: &Lease) -> Result<bool> {
        self.ledger.begin(lease).await
    }

    async fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<bool>> {
        self.ledger.renew(leases, lease).await
    }

    async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Finished>> {
        self.ledger.finish(finishes).await
    }

    async fn cancel(&self, id: &JobId) -> Result<Option<JobRecord>> {
        self.check_error()?;
        self.ledger.cancel(id).await
    }

    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>> {
        self.check_error()?;
        self.ledger.get(id).await
    }

    async fn watch(&self, id: &JobId) -> Result<BoxStream<'static, Result<JobRecord>>> {
        self.check_error()?;
        let records = self.ledger.watch(id).await;
        self.calls.send(Call::Watched).ok();
        records
    }

    async fn due(&self, limit: usize) -> Result<Vec<DueJob>> {
        self.ledger.due(limit).await
    }

    async fn counts(&self, pools: &[PoolName]) -> Result<Vec<JobCounts>> {
        self.ledger.counts(pools).await
    }

    async fn arrivals(&self) -> Result<BoxStream<'static, Result<PoolName>>> {
        self.ledger.arrivals().await
    }

    async fn hold_upkeep(&self, holder: &str, lease: Duration) -> Result<bool> {
        self.ledger.hold_upkeep(holder, lease).await
    }

    async fn purge(&self, limit: usize) -> Result<Option<Vec<BlobRef>>> {
        self.ledger.purge(limit).await
    }

    async fn input(&self, id: &JobId) -> Result<Option<Input>> {
        self.check_error()?;
        self.ledger.input(id).await
    }

    async fn dead(&self, filter: &DeadFilter, after: Option<&DeadPosition>, limit: usize) -> Result<DeadPage> {
        self.check_error()?;
        self.ledger.dead(filter, after, limit).await
    }

    async fn requeue(&self, id: &JobId, input: Option<Input>) -> Result<Requeued> {
        self.check_error()?;
        self.ledger.requeue(id, input).await
    }

    async fn forget(&self, id: &JobId) -> Result<Forgotten> {
        self.check_error()?;
        let forgotten = self.ledger.forget(id).await;
        let pause = self.forget_pause.lock().unwrap().take();
        if let Some(Pause { reached, released }) = pause {
            reached.send(()).unwrap();
            released.await.unwrap();
        }
        forgotten
    }

    async fn purge_dead(&self, filter: &DeadFilter, limit: usize) -> Result<Purged> {
        self.check_error()?;
        self.ledger.purge_dead(filter, limit).await
    }

    async fn id(&self) -> Result<String> {
        self.ledger.id().await
    }

    async fn blob_store(&self, found: Option<&str>) -> Result<Option<String>> {
        self.ledger.blob_store(found).await
    }

    async fn risks(&self) -> Result<Vec<Risk>> {
        self.ledger.risks().await
    }
}
