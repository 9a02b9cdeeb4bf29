//! A full disk: no batch is written in part, and writes work again when there is space.
#![allow(clippy::unwrap_used, reason = "all of this file is a test")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use millrace_queue_embedded::StoreOptions;
use queue::{Body, Class, Clock, ErrorKind, Input, Job, Submitted};

fn job(id: &str, bytes: usize) -> Job {
    Job {
        id: id.parse().unwrap(),
        pool: "resnet50".parse().unwrap(),
        class: Class::Standard,
        input: Input { media_type: "image/jpeg".to_owned(), body: Body::Inline(Bytes::from(vec![7; bytes])) },
        created_at: Timestamp::UNIX_EPOCH,
        deadline_at: None,
        max_attempts: 3,
        retention: Duration::from_secs(1),
        trace_parent: None,
        origin: None,
    }
}

fn integrity(folder: &Path) -> String {
    let file = rusqlite::Connection::open(folder.join("millrace.db")).unwrap();
    file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_full_disk_rejects_whole_batches_and_accepts_them_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { max_size_bytes: Some(1_048_576), ..StoreOptions::new(folder.path()) };
    let clock = Clock::manual(Timestamp::UNIX_EPOCH);
    let backend = millrace_queue_embedded::open(&options, clock.clone()).unwrap();
    let (ledger, producer) = (&backend.ledger, backend.broker.producer().await.unwrap());

    let ended: Vec<_> = (0..20).map(|number| job(&format!("ended-{number}"), 10_000)).collect();
    ledger.submit(&ended).await.unwrap();
    for job in &ended {
        ledger.cancel(&job.id).await.unwrap();
    }

    let mut batches = Vec::new();
    let error = loop {
        let number = batches.len();
        let batch: Vec<_> = (0..3).map(|index| job(&format!("job-{number}-{index}"), 10_000)).collect();
        let submitted = ledger.submit(&batch).await;
        batches.push(batch);
        if let Err(error) = submitted {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Full);
    let rejected = batches.pop().unwrap();
    for job in &rejected {
        assert_eq!(ledger.get(&job.id).await.unwrap(), None);
    }
    for job in batches.iter().flatten() {
        assert!(ledger.get(&job.id).await.unwrap().is_some());
    }
    assert_eq!(producer.publish(&rejected).await.unwrap_err().kind(), ErrorKind::Full);
    let pool = rejected[0].pool.clone();
    assert_eq!(
        backend.broker.gauge().await.unwrap().depths(std::slice::from_ref(&pool)).await.remove(0).unwrap().waiting(),
        0
    );
    assert_eq!(integrity(folder.path()), "ok");

    clock.advance(Duration::from_secs(2));
    assert!(ledger.purge(100).await.unwrap().is_some());
    assert_eq!(ledger.submit(&rejected).await.unwrap(), vec![Submitted::New; 3]);
    producer.publish(&rejected).await.unwrap();
    let consumer = backend.broker.consumer(&pool).await.unwrap();
    assert_eq!(consumer.receive(10).await.unwrap().len(), 3);
    assert_eq!(integrity(folder.path()), "ok");
}
