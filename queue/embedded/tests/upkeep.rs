//! Upkeep publishes what is due, on a ledger in a file.
#![allow(clippy::unwrap_used, reason = "all of this file is a test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use queue::{Blobs, Error, ErrorKind, Job, JobId, JobState, Producer, Result, Upkeep};
use queue_contract::Fixture;
use queue_embedded::EmbeddedFixture;

/// A broker that never takes a job called `big`.
#[derive(Default)]
struct Picky(Mutex<Vec<String>>);

#[async_trait]
impl Producer for Picky {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        if jobs.iter().any(|job| job.id.as_str() == "big") {
            return Err(Error::new(ErrorKind::Refused, "it is too big"));
        }
        self.0.lock().unwrap().extend(jobs.iter().map(|job| job.id.to_string()));
        Ok(())
    }
}

#[tokio::test]
async fn a_job_that_the_broker_refuses_fails_and_keeps_no_other_from_being_published() {
    let fixture = EmbeddedFixture::start();
    let ledger = fixture.open().await.ledger;
    let names = ["before", "big", "after"];
    ledger.submit(&names.map(|name| queue_contract::job(&fixture, name))).await.unwrap();
    fixture.advance(Duration::from_secs(3600)).await;
    let producer = Arc::new(Picky::default());
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::directory(folder.path(), 4).unwrap();
    let upkeep = Upkeep { ledger: Arc::clone(&ledger), producer: producer.clone(), blobs };
    assert_eq!(upkeep.publish_due().await.unwrap(), 3);
    assert_eq!(*producer.0.lock().unwrap(), ["before", "after"]);
    let record = async |name: &str| ledger.get(&name.parse::<JobId>().unwrap()).await.unwrap().unwrap();
    let big = record("big").await;
    assert_eq!((big.state, big.error.unwrap().kind.as_str()), (JobState::Failed, "unpublishable"));
    assert_eq!(record("after").await.state, JobState::Queued);
    fixture.advance(Duration::from_secs(3600)).await;
    assert_eq!(upkeep.publish_due().await.unwrap(), 0);
}
