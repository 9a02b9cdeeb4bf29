//! Upkeep publishes due jobs of a ledger in a file.
#![allow(clippy::unwrap_used, reason = "all of this file is a test")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use millrace_queue_embedded::EmbeddedFixture;
use queue::{Blobs, Error, ErrorKind, Job, JobId, JobState, Ledger, Producer, Result, Upkeep};
use queue_contract::Fixture;

/// A producer that rejects jobs with the ids `big` and `odd`, and stores the ids of all others.
#[derive(Default)]
struct RejectingProducer(Mutex<Vec<String>>);

#[async_trait]
impl Producer for RejectingProducer {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        if jobs.iter().any(|job| job.id.as_str() == "big") {
            return Err(Error::new(ErrorKind::Refused, "it is too big"));
        }
        if jobs.iter().any(|job| job.id.as_str() == "odd") {
            return Err(Error::new(ErrorKind::Corrupt, "it cannot be encoded"));
        }
        self.0.lock().extend(jobs.iter().map(|job| job.id.to_string()));
        Ok(())
    }
}

#[tokio::test]
async fn a_job_that_the_broker_rejects_fails_and_blocks_no_other() {
    let fixture = EmbeddedFixture::start();
    let ledger = fixture.open().await.ledger;
    let names = ["before", "big", "odd", "after"];
    ledger.submit(&names.map(|name| queue_contract::job(&fixture, name))).await.unwrap();
    fixture.advance(Duration::from_secs(3600)).await;
    let producer = Arc::new(RejectingProducer::default());
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::directory(folder.path(), 4).unwrap();
    let upkeep = Upkeep { ledger: Arc::clone(&ledger), producer: producer.clone(), blobs };
    assert_eq!(upkeep.publish_due().await.unwrap(), 4);
    assert_eq!(*producer.0.lock(), ["before", "after"]);
    let record = async |name: &str| ledger.get(&name.parse::<JobId>().unwrap()).await.unwrap().unwrap();
    for name in ["big", "odd"] {
        let rejected = record(name).await;
        assert_eq!((rejected.state, rejected.error.unwrap().kind.as_str()), (JobState::Failed, "unpublishable"));
    }
    assert_eq!(record("after").await.state, JobState::Queued);
    fixture.advance(Duration::from_secs(3600)).await;
    assert_eq!(upkeep.publish_due().await.unwrap(), 0);
}

#[tokio::test]
async fn a_due_job_that_cannot_be_read_fails_and_blocks_no_other() {
    let fixture = EmbeddedFixture::start();
    let ledger = fixture.open().await.ledger;
    ledger.submit(&["before", "spoiled", "after"].map(|name| queue_contract::job(&fixture, name))).await.unwrap();
    let file = rusqlite::Connection::open(fixture.file()).unwrap();
    let spoil = "UPDATE inputs SET blob = 'no reference' WHERE job = (SELECT job FROM jobs WHERE id = 'spoiled')";
    assert_eq!(file.execute(spoil, []).unwrap(), 1);
    fixture.advance(Duration::from_secs(3600)).await;
    let due: Vec<_> = ledger.due(10).await.unwrap().into_iter().map(|due| due.job.id.to_string()).collect();
    assert_eq!(due, ["before", "after"]);
    let spoiled = ledger.get(&"spoiled".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((spoiled.state, spoiled.error.unwrap().kind.as_str()), (JobState::Failed, "input_unreadable"));
    // Its record is deleted like any other.
    fixture.advance(Duration::from_secs(7 * 24 * 3600)).await;
    assert_eq!(ledger.purge(10).await.unwrap(), Some(Vec::new()));
}

/// A producer that is denied a pool, or all pools, until the rights are given.
#[derive(Default)]
struct DeniedProducer {
    denied_pool: Option<String>,
    is_allowed: AtomicBool,
    published: Mutex<Vec<String>>,
}

#[async_trait]
impl Producer for DeniedProducer {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        let is_denied = |job: &Job| self.denied_pool.as_ref().is_none_or(|pool| job.pool.as_str() == pool);
        if !self.is_allowed.load(Ordering::Relaxed) && jobs.iter().any(is_denied) {
            return Err(Error::new(ErrorKind::Denied, "ACCESS_REFUSED"));
        }
        self.published.lock().extend(jobs.iter().map(|job| job.id.to_string()));
        Ok(())
    }
}

fn upkeep(ledger: &Arc<dyn Ledger>, producer: &Arc<DeniedProducer>, folder: &Path) -> Upkeep {
    let blobs = Blobs::directory(folder, 4).unwrap();
    Upkeep { ledger: Arc::clone(ledger), producer: Arc::clone(producer) as _, blobs }
}

#[tokio::test]
async fn jobs_that_this_client_may_not_publish_stay_queued_until_it_may() {
    let fixture = EmbeddedFixture::start();
    let ledger = fixture.open().await.ledger;
    let names = ["first", "second"];
    ledger.submit(&names.map(|name| queue_contract::job(&fixture, name))).await.unwrap();
    let producer = Arc::new(DeniedProducer::default());
    let folder = tempfile::tempdir().unwrap();
    let upkeep = upkeep(&ledger, &producer, folder.path());
    for _ in 0..3 {
        fixture.advance(Duration::from_secs(3600)).await;
        assert_eq!(upkeep.publish_due().await.unwrap_err().kind(), ErrorKind::Denied);
        for name in names {
            let record = ledger.get(&name.parse::<JobId>().unwrap()).await.unwrap().unwrap();
            assert_eq!((record.state, record.attempts), (JobState::Queued, 0));
        }
    }
    producer.is_allowed.store(true, Ordering::Relaxed);
    fixture.advance(Duration::from_secs(3600)).await;
    assert_eq!(upkeep.publish_due().await.unwrap(), 2);
    assert_eq!(*producer.published.lock(), names);
}

#[tokio::test]
async fn a_pool_that_this_client_may_not_publish_to_blocks_no_other() {
    let fixture = EmbeddedFixture::start();
    let ledger = fixture.open().await.ledger;
    let denied = queue_contract::job(&fixture, "denied");
    let mut allowed = queue_contract::job(&fixture, "allowed");
    allowed.pool = "other".parse().unwrap();
    let denied_pool = Some(denied.pool.to_string());
    ledger.submit(&[denied, allowed]).await.unwrap();
    fixture.advance(Duration::from_secs(3600)).await;
    let producer = Arc::new(DeniedProducer { denied_pool, ..DeniedProducer::default() });
    let folder = tempfile::tempdir().unwrap();
    let upkeep = upkeep(&ledger, &producer, folder.path());
    assert_eq!(upkeep.publish_due().await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(*producer.published.lock(), ["allowed"]);
}
