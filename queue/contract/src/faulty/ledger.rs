//! A ledger with faults on demand.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{Call, Faulty};
use queue::{
    BlobRef, Claim, ClaimRequest, DeadFilter, DeadPage, DeadPosition, DueJob, Finish, Finished, Forgotten, Input, Job,
    JobCounts, JobId, JobRecord, Lease, Ledger, PoolName, Publication, Purged, Requeued, Result, Risk, Submitted,
    Usage, WorkerId,
};

pub(super) struct FaultyLedger {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) faulty: Faulty,
}

#[async_trait]
impl Ledger for FaultyLedger {
    async fn submit(&self, jobs: &[Job]) -> Result<Vec<Submitted>> {
        self.faulty.call(Call::Submit, self.ledger.submit(jobs)).await
    }

    async fn published(&self, publications: &[Publication]) -> Result<()> {
        self.faulty.check(Call::Published, publications.iter().map(|publication| &publication.id))?;
        self.faulty.call(Call::Published, self.ledger.published(publications)).await
    }

    async fn claim(&self, worker: &WorkerId, requests: Vec<ClaimRequest>, lease: Duration) -> Result<Vec<Claim>> {
        self.faulty.check(Call::Claim, requests.iter().map(|request| &request.job.id))?;
        self.faulty.call(Call::Claim, self.ledger.claim(worker, requests, lease)).await
    }

    async fn begin(&self, lease: &Lease) -> Result<bool> {
        self.faulty.call(Call::Begin, self.ledger.begin(lease)).await
    }

    async fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<bool>> {
        self.faulty.check(Call::Renew, leases.iter().map(|lease| &lease.id))?;
        self.faulty.call(Call::Renew, self.ledger.renew(leases, lease)).await
    }

    async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Finished>> {
        self.faulty.check(Call::Finish, finishes.iter().map(|finish| &finish.lease.id))?;
        self.faulty.call(Call::Finish, self.ledger.finish(finishes)).await
    }

    async fn cancel(&self, id: &JobId) -> Result<Option<JobRecord>> {
        self.faulty.call(Call::Cancel, self.ledger.cancel(id)).await
    }

    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>> {
        self.faulty.check(Call::Get, std::iter::once(id))?;
        self.faulty.call(Call::Get, self.ledger.get(id)).await
    }

    async fn watch(&self, id: &JobId) -> Result<BoxStream<'static, Result<JobRecord>>> {
        self.faulty.call(Call::Watch, self.ledger.watch(id)).await
    }

    async fn due(&self, limit: usize) -> Result<Vec<DueJob>> {
        self.faulty.call(Call::Due, self.ledger.due(limit)).await
    }

    async fn counts(&self, pools: &[PoolName]) -> Result<Vec<JobCounts>> {
        self.faulty.call(Call::Counts, self.ledger.counts(pools)).await
    }

    async fn arrivals(&self) -> Result<BoxStream<'static, Result<PoolName>>> {
        self.faulty.call(Call::Arrivals, self.ledger.arrivals()).await
    }

    async fn hold_upkeep(&self, holder: &str, lease: Duration) -> Result<bool> {
        self.faulty.call(Call::HoldUpkeep, self.ledger.hold_upkeep(holder, lease)).await
    }

    async fn purge(&self, limit: usize) -> Result<Option<Vec<BlobRef>>> {
        self.faulty.call(Call::Purge, self.ledger.purge(limit)).await
    }

    async fn input(&self, id: &JobId) -> Result<Option<Input>> {
        self.faulty.call(Call::Input, self.ledger.input(id)).await
    }

    async fn dead(&self, filter: &DeadFilter, after: Option<&DeadPosition>, limit: usize) -> Result<DeadPage> {
        self.faulty.call(Call::Dead, self.ledger.dead(filter, after, limit)).await
    }

    async fn requeue(&self, id: &JobId, input: Option<Input>) -> Result<Requeued> {
        self.faulty.call(Call::Requeue, self.ledger.requeue(id, input)).await
    }

    async fn forget(&self, id: &JobId) -> Result<Forgotten> {
        self.faulty.call(Call::Forget, self.ledger.forget(id)).await
    }

    async fn purge_dead(&self, filter: &DeadFilter, limit: usize) -> Result<Purged> {
        self.faulty.call(Call::PurgeDead, self.ledger.purge_dead(filter, limit)).await
    }

    async fn id(&self) -> Result<String> {
        self.faulty.call(Call::Id, self.ledger.id()).await
    }

    async fn blob_store(&self, found: Option<&str>) -> Result<Option<String>> {
        self.faulty.call(Call::BlobStore, self.ledger.blob_store(found)).await
    }

    async fn risks(&self) -> Result<Vec<Risk>> {
        self.faulty.call(Call::Risks, self.ledger.risks()).await
    }

    async fn usage(&self) -> Result<Option<Usage>> {
        self.faulty.call(Call::Usage, self.ledger.usage()).await
    }
}
