//! Upkeep publishes due jobs of a ledger in a file.
#![allow(clippy::unwrap_used, reason = "all of this file is a test")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use millrace_queue_embedded::EmbeddedFixture;
use queue::{Blobs, Error, ErrorKind, Job, JobId, JobState, Producer, Result, Upkeep};
use queue_contract::Fixture;

/// A producer that rejects a job with the id `big`, and stores the ids of all others.
#[derive(Default)]
struct RejectingProducer(Mutex<Vec<String>>);

#[async_trait]
impl Producer for RejectingProducer {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        if jobs.iter().any(|job| job.id.as_str() == "big") {
            return Err(Error::new(ErrorKind::Refused, "it is too big"));
        }
        self.0.lock().extend(jobs.iter().map(|job| job.id.to_string()));
        Ok(())
    }
}

#[tokio::test]
async fn a_job_that_the_broker_rejects_fails_and_blocks_no_other() {
    let fixture = EmbeddedFixture::start();
    let ledger = fixture.open().await.ledger;
    let names = ["before", "big", "after"];
    ledger.submit(&names.map(|name| queue_contract::job(&fixture, name))).await.unwrap();
    fixture.advance(Duration::from_secs(3600)).await;
    let producer = Arc::new(RejectingProducer::default());
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::directory(folder.path(), 4).unwrap();
    let upkeep = Upkeep { ledger: Arc::clone(&ledger), producer: producer.clone(), blobs };
    assert_eq!(upkeep.publish_due().await.unwrap(), 3);
    assert_eq!(*producer.0.lock(), ["before", "after"]);
    let record = async |name: &str| ledger.get(&name.parse::<JobId>().unwrap()).await.unwrap().unwrap();
    let big = record("big").await;
    assert_eq!((big.state, big.error.unwrap().kind.as_str()), (JobState::Failed, "unpublishable"));
    assert_eq!(record("after").await.state, JobState::Queued);
    fixture.advance(Duration::from_secs(3600)).await;
    assert_eq!(upkeep.publish_due().await.unwrap(), 0);
}
