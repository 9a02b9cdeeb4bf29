//! Upkeep publishes due jobs of a ledger in a file.
#![allow(clippy::unwrap_used, reason = "all of this file is a test")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use millrace_queue_embedded::EmbeddedFixture;
use queue::{
    Blobs, Body, Claim, ClaimRequest, Error, ErrorKind, Finish, Job, JobErrorKind, JobId, JobState, Ledger, Outcome,
    Producer, Result, Upkeep, WorkerId,
};
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

#[tokio::test]
async fn due_jobs_are_taken_with_a_limit_in_bytes() {
    let fixture = EmbeddedFixture::start();
    let ledger = fixture.open().await.ledger;
    for (number, mebibytes) in [9, 3, 3, 3, 0].into_iter().enumerate() {
        let mut job = queue_contract::job(&fixture, &format!("job-{number}"));
        job.input.body = Body::Inline(vec![7; mebibytes << 20].into());
        ledger.submit(&[job]).await.unwrap();
        fixture.advance(Duration::from_millis(5)).await;
    }
    fixture.advance(Duration::from_secs(60)).await;
    for expected in [1, 2, 2, 0] {
        assert_eq!(ledger.due(10).await.unwrap().len(), expected);
    }
}

#[tokio::test]
async fn a_job_that_no_claim_can_grant_ends() {
    let fixture = EmbeddedFixture::start();
    let ledger = fixture.open().await.ledger;
    let jobs = ["spoiled", "sound"].map(|name| queue_contract::job(&fixture, name));
    ledger.submit(&jobs).await.unwrap();
    let file = rusqlite::Connection::open(fixture.file()).unwrap();
    file.execute("UPDATE jobs SET attempts = 'first' WHERE id = 'spoiled'", []).unwrap();
    let requests = jobs.iter().map(|job| ClaimRequest::new(job.clone(), false)).collect();
    let claims = ledger.claim(&WorkerId::new("worker"), requests, queue_contract::LEASE).await.unwrap();
    assert!(matches!(claims[..], [Claim::Ended(JobState::Failed), Claim::Granted { .. }]), "{claims:?}");
}

/// A producer that is denied a pool, or all pools, until the rights are given.
#[derive(Default)]
struct DeniedProducer {
    denied_pool: Option<String>,
    is_allowed: AtomicBool,
    rejected: Arc<Notify>,
    published: Mutex<Vec<String>>,
}

#[async_trait]
impl Producer for DeniedProducer {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        let is_denied = |job: &Job| self.denied_pool.as_ref().is_none_or(|pool| job.pool.as_str() == pool);
        if !self.is_allowed.load(Ordering::Relaxed) && jobs.iter().any(is_denied) {
            self.rejected.notify_one();
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

/// A producer that sends the name of its process and the id of each job.
struct NamedProducer(&'static str, mpsc::UnboundedSender<(&'static str, String)>);

#[async_trait]
impl Producer for NamedProducer {
    async fn publish(&self, jobs: &[Job]) -> Result<()> {
        jobs.iter().for_each(|job| self.1.send((self.0, job.id.to_string())).unwrap());
        Ok(())
    }
}

/// Makes a job due without moving the clock.
async fn make_due(ledger: &dyn Ledger, fixture: &EmbeddedFixture, id: &str) {
    let job = queue_contract::job(fixture, id);
    let request = ClaimRequest::new(job.clone(), false);
    let claim = ledger.claim(&WorkerId::new("worker"), vec![request], queue_contract::LEASE).await.unwrap().remove(0);
    let Claim::Granted { lease, .. } = claim else { panic!("{claim:?}") };
    let outcome = Outcome::Failed(JobErrorKind::BadInput.error("no digit"));
    ledger.finish(vec![Finish { lease, outcome }]).await.unwrap();
    ledger.requeue(&job.id, None).await.unwrap();
}

#[tokio::test]
async fn one_process_does_the_upkeep_and_another_one_takes_over_when_it_is_killed() {
    let fixture = EmbeddedFixture::start();
    let folder = tempfile::tempdir().unwrap();
    let (sender, mut published) = mpsc::unbounded_channel();
    let start = async |name| {
        let ledger = fixture.open().await.ledger;
        let producer = Arc::new(NamedProducer(name, sender.clone()));
        let blobs = Blobs::directory(folder.path(), 4).unwrap();
        tokio::spawn(Upkeep { ledger, producer, blobs }.run(CancellationToken::new())).abort_handle()
    };
    let ledger = fixture.open().await.ledger;
    let processes = [start("first").await, start("second").await];
    make_due(&*ledger, &fixture, "before").await;
    let (holder, id) = queue_contract::soon(published.recv()).await.unwrap();
    assert_eq!(id, "before");
    for number in 0..5 {
        make_due(&*ledger, &fixture, &format!("job-{number}")).await;
        assert_eq!(queue_contract::soon(published.recv()).await.unwrap(), (holder, format!("job-{number}")));
    }
    let (killed, other) = if holder == "first" { (0, "second") } else { (1, "first") };
    processes[killed].abort();
    make_due(&*ledger, &fixture, "after").await;
    fixture.advance(Duration::from_secs(2)).await;
    assert_eq!(queue_contract::soon(published.recv()).await.unwrap(), (other, "after".to_owned()));
}

#[tokio::test]
async fn a_process_that_cannot_publish_leaves_the_upkeep_to_another_one() {
    let fixture = EmbeddedFixture::start();
    let folder = tempfile::tempdir().unwrap();
    let ledger = fixture.open().await.ledger;
    let producer = Arc::new(DeniedProducer::default());
    let rejected = Arc::clone(&producer.rejected);
    let stop = CancellationToken::new();
    let denied = tokio::spawn(upkeep(&ledger, &producer, folder.path()).run(stop.clone()));
    make_due(&*ledger, &fixture, "denied").await;
    let (sender, mut published) = mpsc::unbounded_channel();
    let blobs = Blobs::directory(folder.path(), 4).unwrap();
    let able = Upkeep { ledger: Arc::clone(&ledger), producer: Arc::new(NamedProducer("able", sender)), blobs };
    // It has taken the job, and cannot publish it.
    queue_contract::soon(rejected.notified()).await;
    tokio::spawn(able.run(stop.clone()));
    let is_published = async {
        for number in 0.. {
            make_due(&*ledger, &fixture, &format!("job-{number}")).await;
            let next = tokio::time::timeout(Duration::from_secs(1), published.recv()).await;
            if next.is_ok_and(|next| next.is_some()) {
                break;
            }
        }
    };
    queue_contract::soon(is_published).await;
    stop.cancel();
    denied.await.unwrap();
}
