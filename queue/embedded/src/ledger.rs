//! The ledger in the data file.

mod arrivals;
mod claim;
mod counts;
mod dead;
mod ended;
mod facts;
mod finish;
pub(crate) mod grace;
mod history;
mod holder;
mod rows;
mod submit;
mod upkeep;

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use rusqlite::{Connection, params};

use self::ended::{EndedNotice, EndedNotices};
use crate::store::{Durability, Store, Write, sqlite};
use queue::{BlobRef, Input, Job, JobId, PoolName, Result, Risk, StoreId, Usage, WorkerId};
use queue::{
    Claim, ClaimRequest, DeadFilter, DeadPage, DeadPosition, DueJob, Finish, Finished, Forgotten, JobCounts, JobRecord,
    JobState, Lease, Ledger, Publication, Purged, Requeued, Submitted,
};

pub(crate) struct EmbeddedLedger {
    store: Store,
    ended: Arc<EndedNotices>,
}

impl EmbeddedLedger {
    pub(crate) fn new(store: Store) -> Self {
        let ended = Arc::new(EndedNotices::start(&store));
        Self { store, ended }
    }
}

#[async_trait]
impl Ledger for EmbeddedLedger {
    async fn submit(&self, jobs: &[Job]) -> Result<Vec<Submitted>> {
        let jobs = jobs.to_vec();
        self.store.write(Durability::Power, move |write| submit::submit_all(write, &jobs)).await
    }

    fn store(&self) -> Option<StoreId> {
        Some(self.store.id())
    }

    async fn submit_and_publish(&self, jobs: &[Job]) -> Result<Vec<Submitted>> {
        let jobs = jobs.to_vec();
        self.store.write(Durability::Power, move |write| submit::submit_and_publish_all(write, &jobs)).await
    }

    async fn published(&self, publications: &[Publication]) -> Result<()> {
        let publications = publications.to_vec();
        self.store.write(Durability::Process, move |write| submit::confirm(write, &publications)).await
    }

    async fn claim(&self, worker: &WorkerId, requests: Vec<ClaimRequest>, lease: Duration) -> Result<Vec<Claim>> {
        let worker = worker.clone();
        let claim = move |write: &mut Write<'_>| {
            requests.iter().map(|request| claim::claim(write, &worker, request, lease)).collect()
        };
        self.store.write(Durability::Process, claim).await
    }

    async fn begin(&self, lease: &Lease) -> Result<bool> {
        let lease = lease.clone();
        self.store.write(Durability::Power, move |write| claim::begin(write, &lease)).await
    }

    async fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<bool>> {
        let leases = leases.to_vec();
        self.store
            .write(Durability::Process, move |write| {
                let due_at = write.milliseconds_after(lease);
                let mut update =
                    write.prepare("UPDATE jobs SET due_at = ?1 WHERE id = ?2 AND fence = ?3 AND state = ?4")?;
                let renew = |lease: &Lease| {
                    let row = params![due_at, lease.id.as_str(), lease.fence, rows::code(JobState::Leased)];
                    update.execute(row).map(|renewed| renewed > 0).map_err(sqlite("renew"))
                };
                leases.iter().map(renew).collect()
            })
            .await
    }

    async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Finished>> {
        self.store
            .write(Durability::Power, move |write| {
                finishes.iter().map(|finish| finish::finish(write, finish)).collect()
            })
            .await
    }

    async fn cancel(&self, id: &JobId) -> Result<Option<JobRecord>> {
        let id = id.clone();
        self.store.write(Durability::Power, move |write| finish::cancel(write, &id)).await
    }

    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>> {
        let id = id.clone();
        let read = move |file: &Connection| {
            let Some(record) = rows::record(file, &id)? else { return Ok(None) };
            Ok(Some(JobRecord { history: history::history(file, id.as_str())?, ..record }))
        };
        self.store.read(read).await
    }

    async fn input(&self, id: &JobId) -> Result<Option<Input>> {
        let id = id.clone();
        self.store.read(move |file| rows::input(file, &id)).await
    }

    async fn watch(&self, id: &JobId) -> Result<BoxStream<'static, Result<JobRecord>>> {
        // Registered before the record is read, so that a job that ends in between is noticed.
        let notice = self.ended.of(id);
        let Some(record) = record(&self.store, id).await? else { return Ok(stream::empty().boxed()) };
        if record.state.has_ended() {
            return Ok(stream::once(async { Ok(record) }).boxed());
        }
        let ended = ended(self.store.clone(), Arc::downgrade(&self.ended), id.clone(), notice);
        let ended = stream::once(ended).filter_map(|record| async { record.transpose() });
        Ok(stream::once(async { Ok(record) }).chain(ended).boxed())
    }

    async fn due(&self, limit: usize) -> Result<Vec<DueJob>> {
        let now = self.store.clock().now_milliseconds();
        // A read is cheap, and most of the time no job is due.
        if !self.store.read(move |file| upkeep::is_due(file, now)).await? {
            return Ok(Vec::new());
        }
        self.store.write(Durability::Power, move |write| upkeep::take_due(write, limit)).await
    }

    async fn counts(&self, pools: &[PoolName]) -> Result<Vec<JobCounts>> {
        let pools = pools.to_vec();
        self.store.read(move |file| counts::counts(file, &pools)).await
    }

    async fn arrivals(&self) -> Result<BoxStream<'static, Result<PoolName>>> {
        arrivals::follow(&self.store).await
    }

    async fn hold_upkeep(&self, holder: &str, lease: Duration) -> Result<bool> {
        let (now, name) = (self.store.clock().now_milliseconds(), holder.to_owned());
        // Most calls change nothing, and a read needs no file lock.
        if let Some(has_upkeep) = self.store.read(move |file| holder::has_upkeep(file, &name, lease, now)).await? {
            return Ok(has_upkeep);
        }
        let name = holder.to_owned();
        self.store.write(Durability::Process, move |write| holder::hold(write, &name, lease)).await
    }

    async fn purge(&self, limit: usize) -> Result<Option<Vec<BlobRef>>> {
        let now = self.store.clock().now_milliseconds();
        if !self.store.read(move |file| upkeep::is_over(file, now)).await? {
            return Ok(None);
        }
        self.store.write(Durability::Process, move |write| upkeep::purge(write, limit)).await.map(Some)
    }

    async fn dead(&self, filter: &DeadFilter, after: Option<&DeadPosition>, limit: usize) -> Result<DeadPage> {
        let (filter, after) = (filter.clone(), after.cloned());
        self.store.read(move |file| dead::page(file, &filter, after.as_ref(), limit)).await
    }

    async fn requeue(&self, id: &JobId, input: Option<Input>) -> Result<Requeued> {
        let id = id.clone();
        self.store.write(Durability::Power, move |write| dead::requeue(write, &id, input.as_ref())).await
    }

    async fn forget(&self, id: &JobId) -> Result<Forgotten> {
        let id = id.clone();
        self.store.write(Durability::Power, move |write| dead::forget(write, &id)).await
    }

    async fn purge_dead(&self, filter: &DeadFilter, limit: usize) -> Result<Purged> {
        let filter = filter.clone();
        self.store.write(Durability::Power, move |write| dead::purge(write, &filter, limit)).await
    }

    async fn id(&self) -> Result<String> {
        if let Some(id) = self.store.read(|file| facts::read(file, facts::LEDGER)).await? {
            return Ok(id);
        }
        let id = uuid::Uuid::now_v7().to_string();
        let record = move |write: &mut Write<'_>| Ok(facts::record(write, facts::LEDGER, &id)?.unwrap_or(id));
        self.store.write(Durability::Power, record).await
    }

    async fn blob_store(&self, found: Option<&str>) -> Result<Option<String>> {
        if let Some(recorded) = self.store.read(|file| facts::read(file, facts::BLOB_STORE)).await? {
            return Ok(Some(recorded));
        }
        let Some(found) = found.map(str::to_owned) else { return Ok(None) };
        self.store.write(Durability::Power, move |write| facts::record(write, facts::BLOB_STORE, &found)).await
    }

    async fn risks(&self) -> Result<Vec<Risk>> {
        self.store.risks().await
    }

    async fn usage(&self) -> Result<Option<Usage>> {
        self.store.usage().await
    }
}

async fn record(store: &Store, id: &JobId) -> Result<Option<JobRecord>> {
    let id = id.clone();
    store.read(move |file| rows::record(file, &id)).await
}

/// The record when the job has ended. If the ledger is dropped before that, the current record.
async fn ended(
    store: Store,
    notices: Weak<EndedNotices>,
    id: JobId,
    mut notice: EndedNotice,
) -> Result<Option<JobRecord>> {
    loop {
        let is_notified = notice.wait().await;
        // Registered again before the record is read, as for the first notice.
        let next = if is_notified { notices.upgrade().map(|notices| notices.of(&id)) } else { None };
        let record = record(&store, &id).await?;
        match (&record, next) {
            // The job was requeued before its record was read.
            (Some(record), Some(next)) if !record.state.has_ended() => notice = next,
            _ => return Ok(record),
        }
    }
}
