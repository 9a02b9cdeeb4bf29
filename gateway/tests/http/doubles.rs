//! What stands in for the rest of the system.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use gateway::{Admission, Refusal, RefusalKind, TENSORS_MEDIA_TYPE};
use queue::{
    BlobRef, Claim, ClaimRequest, DeadFilter, DeadPage, DeadPosition, DueJob, Error, ErrorKind, Finish, Finished,
    Forgotten, Input, Job, JobCounts, JobId, JobRecord, Lease, Ledger, PoolName, Producer, Publication, Purged,
    Requeued, Result, Risk, Submitted, WorkerId,
};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// A model that takes text, and tensors of shape `[1]`.
pub(crate) struct TextModel;

impl Admission for TextModel {
    fn check(&self, media_type: &str, body: &[u8]) -> Result<(), Refusal> {
        let refuse = |kind, field: &str, reason: String| Err(Refusal { kind, field: field.to_owned(), reason });
        match media_type {
            "text/plain" => Ok(()),
            "text/panic" => panic!("as the test asked for"),
            TENSORS_MEDIA_TYPE => {
                let tensors: serde_json::Value = serde_json::from_slice(body).unwrap();
                let shape = &tensors["inputs"][0]["shape"];
                if *shape == serde_json::json!([1]) {
                    return Ok(());
                }
                refuse(RefusalKind::InvalidInput, "inputs[0].shape", format!("{shape} is not [1]"))
            }
            other => {
                let reason = format!("{other:?} is not text/plain");
                refuse(RefusalKind::UnsupportedMediaType, "content-type", reason)
            }
        }
    }
}

/// A producer whose broker can be away.
pub(crate) struct Unsteady {
    pub(crate) producer: Arc<dyn Producer>,
    pub(crate) away: Arc<AtomicBool>,
}

#[async_trait]
impl Producer for Unsteady {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "broker at 10.0.0.7: away"));
        }
        self.producer.publish(jobs).await
    }
}

/// What a test is told of the gateway's calls.
#[derive(Debug, PartialEq)]
pub(crate) enum Call {
    Published(Vec<Publication>),
    Watched,
}

/// A ledger that tells of calls, and that can be in trouble.
pub(crate) struct Told {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) calls: UnboundedSender<Call>,
    pub(crate) trouble: Arc<std::sync::Mutex<Option<ErrorKind>>>,
    pub(crate) held_back: HeldBack,
}

/// Where the answer to the next call of `forget` waits: it says that it is there, and then waits to be let go.
pub(crate) type HeldBack = Arc<std::sync::Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>>;

impl Told {
    fn trouble(&self) -> Result<()> {
        match *self.trouble.lock().unwrap() {
            Some(kind) => Err(Error::new(kind, "file /var/lib/secret: as the test asked for")),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Ledger for Told {
    async fn submit(&self, jobs: &[Job]) -> Result<Vec<Submitted>> {
        self.trouble()?;
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
        self.trouble()?;
        self.ledger.cancel(id).await
    }

    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>> {
        self.trouble()?;
        self.ledger.get(id).await
    }

    async fn watch(&self, id: &JobId) -> Result<BoxStream<'static, Result<JobRecord>>> {
        self.trouble()?;
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

    async fn purge(&self, limit: usize) -> Result<Option<Vec<BlobRef>>> {
        self.ledger.purge(limit).await
    }

    async fn input(&self, id: &JobId) -> Result<Option<Input>> {
        self.trouble()?;
        self.ledger.input(id).await
    }

    async fn dead(&self, filter: &DeadFilter, after: Option<&DeadPosition>, limit: usize) -> Result<DeadPage> {
        self.trouble()?;
        self.ledger.dead(filter, after, limit).await
    }

    async fn requeue(&self, id: &JobId, input: Option<Input>) -> Result<Requeued> {
        self.trouble()?;
        self.ledger.requeue(id, input).await
    }

    async fn forget(&self, id: &JobId) -> Result<Forgotten> {
        self.trouble()?;
        let forgotten = self.ledger.forget(id).await;
        let held_back = self.held_back.lock().unwrap().take();
        if let Some((arrived, let_go)) = held_back {
            arrived.send(()).unwrap();
            let_go.await.unwrap();
        }
        forgotten
    }

    async fn purge_dead(&self, filter: &DeadFilter, limit: usize) -> Result<Purged> {
        self.trouble()?;
        self.ledger.purge_dead(filter, limit).await
    }

    async fn risks(&self) -> Result<Vec<Risk>> {
        self.ledger.risks().await
    }
}
