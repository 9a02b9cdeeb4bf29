//! Lost answers and failed calls: each job still has its effect once.
#![allow(clippy::unwrap_used, reason = "all of this file is a test")]

use std::time::Duration;

use futures::poll;

use millrace_queue_embedded::EmbeddedFixture;
use queue::{
    Backend, Blobs, Body, Claim, ClaimRequest, Depth, ErrorKind, Finish, Finished, Job, JobCounts, JobState, Lease,
    Outcome, Output, Publication, Settlement, Submitted, Upkeep, WorkerId,
};
use queue_contract::faulty::{Call, Fault, Faulty};
use queue_contract::{Fixture, LEASE, job, pool, soon};

async fn start() -> (EmbeddedFixture, Faulty, Backend) {
    let (fixture, faulty) = (EmbeddedFixture::start(), Faulty::default());
    let backend = faulty.wrap(fixture.open().await);
    (fixture, faulty, backend)
}

async fn claim(backend: &Backend, job: &Job, redelivered: bool) -> Claim {
    let request = ClaimRequest::new(job.clone(), redelivered);
    backend.ledger.claim(&WorkerId::new("worker"), vec![request], LEASE).await.unwrap().remove(0)
}

fn success(lease: &Lease) -> Finish {
    let output = Output { media_type: "text/plain".to_owned(), body: Body::Inline("done".into()) };
    Finish { lease: lease.clone(), outcome: Outcome::Succeeded(output) }
}

/// Receives until the broker is empty, and runs each job that is granted. Returns the number of runs.
async fn run_all(backend: &Backend) -> usize {
    let consumer = backend.broker.consumer(&pool()).await.unwrap();
    let gauge = backend.broker.gauge().await.unwrap();
    let mut ran = 0;
    while gauge.depths(&[pool()]).await.remove(0).unwrap().waiting() > 0 {
        for delivery in soon(consumer.receive(10)).await.unwrap() {
            if let Claim::Granted { lease, .. } = claim(backend, &delivery.job, delivery.redelivered).await {
                backend.ledger.finish(vec![success(&lease)]).await.unwrap();
                ran += 1;
            }
            consumer.settle(vec![(delivery, Settlement::Ack)]).await.unwrap();
        }
    }
    assert_eq!(gauge.depths(&[pool()]).await.remove(0).unwrap(), Depth { in_flight: Some(0), ..Depth::default() });
    ran
}

#[tokio::test]
async fn a_job_published_again_after_a_lost_answer_runs_once() {
    let (fixture, faulty, backend) = start().await;
    let job = job(&fixture, "job");
    backend.ledger.submit(std::slice::from_ref(&job)).await.unwrap();
    let producer = backend.broker.producer().await.unwrap();
    faulty.order(Call::Publish, Fault::LoseAnswer, 2);
    for _ in 0..2 {
        let error = producer.publish(std::slice::from_ref(&job)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    producer.publish(std::slice::from_ref(&job)).await.unwrap();
    backend.ledger.published(&[Publication::first(job.id.clone())]).await.unwrap();
    assert_eq!(run_all(&backend).await, 1);
    assert_eq!(backend.ledger.get(&job.id).await.unwrap().unwrap().attempts, 1);
}

#[tokio::test]
async fn a_job_submitted_again_after_a_lost_answer_is_one_job() {
    let (fixture, faulty, backend) = start().await;
    let job = job(&fixture, "job");
    faulty.order(Call::Submit, Fault::LoseAnswer, 1);
    backend.ledger.submit(std::slice::from_ref(&job)).await.unwrap_err();
    let answers = backend.ledger.submit(std::slice::from_ref(&job)).await.unwrap();
    let [Submitted::Existing { publish: Some(publication), .. }] = &answers[..] else { panic!("{answers:?}") };
    backend.broker.producer().await.unwrap().publish(&[job]).await.unwrap();
    backend.ledger.published(std::slice::from_ref(publication)).await.unwrap();
    assert_eq!(run_all(&backend).await, 1);
}

#[tokio::test]
async fn a_result_written_again_after_a_lost_answer_is_recorded_once() {
    let (fixture, faulty, backend) = start().await;
    let job = job(&fixture, "job");
    backend.ledger.submit(std::slice::from_ref(&job)).await.unwrap();
    let Claim::Granted { lease, .. } = claim(&backend, &job, false).await else { panic!("not granted") };
    faulty.order(Call::Finish, Fault::LoseAnswer, 1);
    backend.ledger.finish(vec![success(&lease)]).await.unwrap_err();
    assert_eq!(backend.ledger.finish(vec![success(&lease)]).await.unwrap(), [Finished::LeaseLost]);
    assert_eq!(claim(&backend, &job, true).await, Claim::Ended(JobState::Succeeded));
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_one_attempt_when_it_is_repeated() {
    let (fixture, faulty, backend) = start().await;
    let job = job(&fixture, "job");
    faulty.order(Call::Claim, Fault::LoseAnswer, 2);
    let (worker, requests) = (WorkerId::new("worker"), vec![ClaimRequest::new(job.clone(), false)]);
    for _ in 0..2 {
        backend.ledger.claim(&worker, requests.clone(), LEASE).await.unwrap_err();
    }
    let claims = backend.ledger.claim(&worker, requests, LEASE).await.unwrap();
    assert!(matches!(&claims[..], [Claim::Granted { lease: Lease { attempt: 1, .. }, alone: false }]), "{claims:?}");
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_and_that_is_not_repeated_leaves_a_suspect() {
    let (fixture, faulty, backend) = start().await;
    let job = job(&fixture, "job");
    backend.ledger.submit(std::slice::from_ref(&job)).await.unwrap();
    backend.broker.producer().await.unwrap().publish(std::slice::from_ref(&job)).await.unwrap();
    let consumer = backend.broker.consumer(&pool()).await.unwrap();
    let delivery = consumer.receive(1).await.unwrap().remove(0);
    faulty.order(Call::Claim, Fault::LoseAnswer, 1);
    let request = ClaimRequest::new(delivery.job.clone(), delivery.redelivered);
    backend.ledger.claim(&WorkerId::new("worker"), vec![request], LEASE).await.unwrap_err();
    drop(delivery);
    let delivery = soon(consumer.receive(1)).await.unwrap().remove(0);
    assert!(delivery.redelivered);
    let Claim::Granted { lease, .. } = claim(&backend, &delivery.job, true).await else { panic!("not granted") };
    assert_eq!(lease.attempt, 2);
}

#[tokio::test]
async fn the_deliveries_of_a_failed_or_lost_receive_are_delivered_again() {
    let (fixture, faulty, backend) = start().await;
    let producer = backend.broker.producer().await.unwrap();
    producer.publish(&[job(&fixture, "a"), job(&fixture, "b")]).await.unwrap();
    let consumer = backend.broker.consumer(&pool()).await.unwrap();
    faulty.order(Call::Receive, Fault::LoseAnswer, 3);
    faulty.order(Call::Receive, Fault::Fail, 1);
    for _ in 0..4 {
        soon(consumer.receive(2)).await.unwrap_err();
    }
    drop(consumer);
    assert_eq!(run_all(&backend).await, 2);
}

#[tokio::test]
async fn a_settle_that_failed_or_whose_answer_was_lost_runs_no_job_again() {
    for fault in [Fault::Fail, Fault::LoseAnswer] {
        let (fixture, faulty, backend) = start().await;
        let job = job(&fixture, "job");
        backend.broker.producer().await.unwrap().publish(std::slice::from_ref(&job)).await.unwrap();
        let consumer = backend.broker.consumer(&pool()).await.unwrap();
        let delivery = consumer.receive(1).await.unwrap().remove(0);
        let Claim::Granted { lease, .. } = claim(&backend, &job, false).await else { panic!("not granted") };
        backend.ledger.finish(vec![success(&lease)]).await.unwrap();
        faulty.order(Call::Settle, fault, 1);
        consumer.settle(vec![(delivery, Settlement::Ack)]).await.unwrap_err();
        drop(consumer);
        // This write follows the requeued deliveries in the queue of writes. When it returns, they are requeued.
        backend.roster.leave(&WorkerId::new("unknown")).await.unwrap();
        assert_eq!(run_all(&backend).await, 0);
    }
}

#[tokio::test]
async fn a_due_job_whose_publication_failed_is_counted_and_published_later() {
    let (fixture, faulty, backend) = start().await;
    let folder = tempfile::tempdir().unwrap();
    let upkeep = Upkeep {
        ledger: backend.ledger.clone(),
        producer: backend.broker.producer().await.unwrap(),
        blobs: Blobs::directory(folder.path(), Blobs::INLINE_LIMIT_BYTES).unwrap(),
    };
    let job = job(&fixture, "job");
    backend.ledger.submit(std::slice::from_ref(&job)).await.unwrap();
    for (call, fault) in [(Call::Publish, Fault::Fail), (Call::Published, Fault::LoseAnswer)] {
        fixture.advance(Duration::from_secs(60)).await;
        faulty.order(call, fault, 1);
        upkeep.publish_due().await.unwrap_err();
        let lost = fault == Fault::LoseAnswer;
        let expected = JobCounts { queued: u64::from(lost), retry: u64::from(!lost), ..JobCounts::default() };
        assert_eq!(backend.ledger.counts(&[pool()]).await.unwrap(), [expected]);
    }
    assert_eq!(upkeep.publish_due().await.unwrap(), 0);
    assert_eq!(run_all(&backend).await, 1);
}

#[tokio::test]
async fn a_delayed_call_has_its_effect_after_the_delay_and_not_before() {
    let (fixture, faulty, backend) = start().await;
    let job = job(&fixture, "job");
    faulty.order(Call::Submit, Fault::Delay(Duration::from_secs(3600)), 1);
    faulty.order(Call::Submit, Fault::Delay(Duration::ZERO), 1);
    assert!(poll!(backend.ledger.submit(std::slice::from_ref(&job))).is_pending());
    assert_eq!(faulty.left(Call::Submit), 1);
    assert_eq!(backend.ledger.get(&job.id).await.unwrap(), None);
    assert_eq!(backend.ledger.submit(&[job]).await.unwrap(), [Submitted::New]);
}
