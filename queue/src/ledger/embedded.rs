//! The ledger in the data file.

mod claim;
mod endings;
mod finish;
mod rows;
mod submit;
mod upkeep;

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use rusqlite::params;

use self::endings::Endings;
use super::{
    Claim, ClaimRequest, DueJob, Finish, Finished, JobRecord, Lease, Ledger, OpenJobs, Publication, State, Submitted,
};
use crate::store::{Durability, Store, Write, sqlite};
use crate::{BlobRef, Job, JobId, PoolName, Result, WorkerId};

pub(crate) struct EmbeddedLedger {
    store: Store,
    endings: Endings,
}

impl EmbeddedLedger {
    pub(crate) fn new(store: Store) -> Self {
        let endings = Endings::watch(&store);
        Self { store, endings }
    }
}

#[async_trait]
impl Ledger for EmbeddedLedger {
    async fn submit(&self, jobs: &[Job]) -> Result<Vec<Submitted>> {
        let jobs = jobs.to_vec();
        self.store
            .write(Durability::Power, move |write| jobs.iter().map(|job| submit::submit(write, job)).collect())
            .await
    }

    async fn published(&self, publications: &[Publication]) -> Result<()> {
        let publications = publications.to_vec();
        self.store
            .write(Durability::Process, move |write| {
                let sql = "UPDATE jobs SET due_at = NULL WHERE id = ?1 AND fence = ?2 AND state = ?3";
                let mut update = write.prepare(sql)?;
                for Publication { id, fence } in &publications {
                    let row = params![id.as_str(), *fence, rows::code(State::Queued)];
                    update.execute(row).map_err(sqlite("note a publication"))?;
                }
                Ok(())
            })
            .await
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
                let mut renew =
                    write.prepare("UPDATE jobs SET due_at = ?1 WHERE id = ?2 AND fence = ?3 AND state = ?4")?;
                let held = |lease: &Lease| {
                    let row = params![due_at, lease.id.as_str(), lease.fence, rows::code(State::Leased)];
                    renew.execute(row).map(|renewed| renewed > 0).map_err(sqlite("renew"))
                };
                leases.iter().map(held).collect()
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
        self.store.read(move |file| rows::record(file, &id)).await
    }

    async fn watch(&self, id: &JobId) -> Result<BoxStream<'static, Result<JobRecord>>> {
        // Registered before the first look, so that no ending falls between the two.
        let ending = self.endings.of(id);
        let Some(record) = self.get(id).await? else { return Ok(stream::empty().boxed()) };
        if record.state.has_ended() {
            return Ok(stream::once(async { Ok(record) }).boxed());
        }
        let (store, id) = (self.store.clone(), id.clone());
        let ended = async move {
            ending.wait().await;
            store.read(move |file| rows::record(file, &id)).await.transpose()
        };
        let ended = stream::once(ended).filter_map(|record| async { record });
        Ok(stream::once(async { Ok(record) }).chain(ended).boxed())
    }

    async fn due(&self, limit: usize) -> Result<Vec<DueJob>> {
        let now = self.store.clock().now_milliseconds();
        // Looking is cheap, and most of the time nothing is due.
        if !self.store.read(move |file| upkeep::is_due(file, now)).await? {
            return Ok(Vec::new());
        }
        self.store.write(Durability::Power, move |write| upkeep::take_due(write, limit)).await
    }

    async fn open_jobs(&self, pool: &PoolName) -> Result<OpenJobs> {
        let pool = pool.clone();
        self.store.read(move |file| upkeep::open_jobs(file, &pool)).await
    }

    async fn purge(&self, limit: usize) -> Result<Option<Vec<BlobRef>>> {
        let now = self.store.clock().now_milliseconds();
        if !self.store.read(move |file| upkeep::is_over(file, now)).await? {
            return Ok(None);
        }
        self.store.write(Durability::Process, move |write| upkeep::purge(write, limit)).await.map(Some)
    }
}
