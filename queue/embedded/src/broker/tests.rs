//! Tests of this broker's rows, in addition to the contract.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::heartbeat;
use crate::store::{Durability, Store, StoreOptions};
use queue::{Backend, Body, Class, Clock, Consumer, Input, Job, PoolName, Settlement};
use queue_contract::soon;

fn pool() -> PoolName {
    "resnet50".parse().unwrap()
}

/// A backend with one published job, a consumer, and their file.
async fn start() -> (TempDir, Backend, Arc<dyn Consumer>, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions::new(folder.path());
    let backend = crate::open(&options, Clock::default()).unwrap();
    let consumer = backend.broker.consumer(&pool()).await.unwrap();
    backend.broker.producer().await.unwrap().publish(&[job()]).await.unwrap();
    let file = Connection::open(folder.path().join("millrace.db")).unwrap();
    (folder, backend, consumer, file)
}

fn job() -> Job {
    Job {
        id: "job".parse().unwrap(),
        pool: pool(),
        class: Class::Standard,
        input: Input { media_type: "text/plain".to_owned(), body: Body::Inline("input".into()) },
        created_at: jiff::Timestamp::UNIX_EPOCH,
        deadline_at: None,
        max_attempts: 3,
        retention: Duration::from_secs(1),
        trace_parent: None,
        origin: None,
    }
}

/// Otherwise the consumer would hold the delivery until it ends, and the delivery would count as in flight.
#[tokio::test]
async fn a_failed_settle_is_repeated_with_a_later_heartbeat() {
    let (_folder, _backend, consumer, file) = start().await;
    let held = soon(consumer.receive(1)).await.unwrap();
    file.execute_batch(
        "CREATE TRIGGER refuse BEFORE UPDATE ON messages WHEN NEW.consumer IS NULL BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    .unwrap();
    let settled = held.into_iter().map(|delivery| (delivery, Settlement::Requeue)).collect();
    consumer.settle(settled).await.unwrap_err();
    file.execute_batch("DROP TRIGGER refuse").unwrap();
    assert!(soon(consumer.receive(1)).await.unwrap()[0].redelivered);
}

#[tokio::test]
async fn a_receive_is_limited_in_bytes() {
    let (_folder, backend, consumer, _file) = start().await;
    let sizes = [9, 3, 3, 3, 0, 9, 1].map(|mebibytes| mebibytes << 20);
    let jobs = sizes.iter().enumerate().map(|(number, bytes)| {
        let input = Input { media_type: "text/plain".to_owned(), body: Body::Inline(vec![7; *bytes].into()) };
        Job { id: format!("job-{number}").parse().unwrap(), input, ..job() }
    });
    backend.broker.producer().await.unwrap().publish(&jobs.collect::<Vec<_>>()).await.unwrap();
    let mut received = Vec::new();
    for _ in 0..6 {
        received.push(soon(consumer.receive(10)).await.unwrap());
    }
    assert_eq!(received.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 2, 2, 1, 1]);
}

/// Such a consumer was removed as expired, took a message, and ended before its next heartbeat.
#[tokio::test]
async fn a_message_of_an_unregistered_consumer_is_delivered_again() {
    let (_folder, _backend, consumer, file) = start().await;
    file.execute("UPDATE messages SET consumer = 1234, deliveries = 1", []).unwrap();
    assert!(soon(consumer.receive(1)).await.unwrap()[0].redelivered);
}

/// Consumers that hold one message each. The test sends their heartbeats and moves their clock.
struct Consumers {
    _folder: TempDir,
    clock: Clock,
    store: Store,
    file: Connection,
    ids: Vec<i64>,
}

impl Consumers {
    async fn start(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(jiff::Timestamp::UNIX_EPOCH);
        let options = StoreOptions::new(folder.path());
        let store = Store::open(&options, clock.clone()).unwrap();
        let file = Connection::open(folder.path().join("millrace.db")).unwrap();
        let producer = crate::backend(&store).broker.producer().await.unwrap();
        producer.publish(&vec![job(); count]).await.unwrap();
        let mut ids = Vec::new();
        for message in 1..=count {
            let id = store.write(Durability::Process, heartbeat::register).await.unwrap();
            file.execute("UPDATE messages SET consumer = ?1 WHERE seq = ?2", rusqlite::params![id, message]).unwrap();
            ids.push(id);
        }
        Self { _folder: folder, clock, store, file, ids }
    }

    async fn send_heartbeat(&self, consumer: usize, is_first: bool) {
        let id = self.ids[consumer];
        self.store.write(Durability::Process, move |write| heartbeat::send(write, id, is_first)).await.unwrap();
    }

    /// The consumers that are registered and hold their message.
    fn alive(&self) -> Vec<usize> {
        let sql = "SELECT count(*) = 2 FROM (SELECT consumer FROM consumers UNION ALL SELECT consumer FROM messages) \
                   WHERE consumer = ?1";
        let is_alive = |index: &usize| self.file.query_row(sql, [self.ids[*index]], |row| row.get(0)).unwrap();
        (0..self.ids.len()).filter(is_alive).collect()
    }
}

/// All consumers were delayed together. The first heartbeat after that must not remove the consumers that are about to
/// send theirs.
#[tokio::test]
async fn a_consumer_whose_own_heartbeat_is_late_does_not_reclaim_from_another() {
    let consumers = Consumers::start(2).await;
    for pause in [Duration::from_millis(4_500), heartbeat::HEARTBEAT_TIMEOUT, Duration::from_secs(3600)] {
        // The other consumer's heartbeat was a moment earlier, so it expires a moment earlier.
        consumers.send_heartbeat(1, false).await;
        consumers.clock.advance(Duration::from_millis(900));
        consumers.send_heartbeat(0, false).await;
        consumers.clock.advance(pause);
        consumers.send_heartbeat(0, false).await;
        assert_eq!(consumers.alive(), [0, 1], "after {pause:?}");
        consumers.send_heartbeat(1, false).await;
        consumers.clock.advance(Duration::from_secs(1));
        consumers.send_heartbeat(0, false).await;
        assert_eq!(consumers.alive(), [0, 1], "after {pause:?}");
    }
}

#[tokio::test]
async fn a_consumer_whose_heartbeats_are_on_time_reclaims_from_one_that_sends_none() {
    let consumers = Consumers::start(2).await;
    for second in 0..=5 {
        consumers.send_heartbeat(0, second == 0).await;
        assert_eq!(consumers.alive(), [0, 1], "after {second} s");
        consumers.clock.advance(Duration::from_secs(1));
    }
    consumers.send_heartbeat(0, false).await;
    assert_eq!(consumers.alive(), [0]);
}

/// A first heartbeat does not show whether heartbeats are delayed.
#[tokio::test]
async fn a_consumer_reclaims_nothing_with_its_first_heartbeat() {
    let mut consumers = Consumers::start(1).await;
    consumers.clock.advance(heartbeat::HEARTBEAT_TIMEOUT * 2);
    let id = consumers.store.write(Durability::Process, heartbeat::register).await.unwrap();
    consumers.ids.push(id);
    consumers.send_heartbeat(1, true).await;
    assert_eq!(consumers.alive(), [0]);
    consumers.send_heartbeat(1, false).await;
    assert!(consumers.alive().is_empty());
}
