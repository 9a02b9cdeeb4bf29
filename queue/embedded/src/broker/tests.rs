//! What only this broker can show: its rows.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::beat;
use crate::store::{Durability, Store, StoreOptions};
use queue::{Backend, Body, Class, Clock, Consumer, Input, Job, PoolName, Settlement};
use queue_contract::soon;

fn pool() -> PoolName {
    "resnet50".parse().unwrap()
}

/// A backend with one job published, a consumer, and the file behind them.
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

/// Else it would be held, and count as work in progress, for as long as its consumer lives.
#[tokio::test]
async fn a_settle_that_failed_is_said_again_with_a_later_beat() {
    let (_folder, _backend, consumer, file) = start().await;
    let held = soon(consumer.receive(1)).await.unwrap();
    file.execute_batch(
        "CREATE TRIGGER refuse BEFORE UPDATE ON messages WHEN NEW.consumer IS NULL BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    .unwrap();
    let again = held.into_iter().map(|delivery| (delivery, Settlement::Requeue)).collect();
    consumer.settle(again).await.unwrap_err();
    file.execute_batch("DROP TRIGGER refuse").unwrap();
    assert!(soon(consumer.receive(1)).await.unwrap()[0].redelivered);
}

/// It was taken for dead, went on, took something, and vanished before it had said again that it lives.
#[tokio::test]
async fn what_an_unregistered_consumer_holds_comes_again() {
    let (_folder, _backend, consumer, file) = start().await;
    file.execute("UPDATE messages SET consumer = 1234, deliveries = 1", []).unwrap();
    assert!(soon(consumer.receive(1)).await.unwrap()[0].redelivered);
}

/// Consumers that beat only when told to, by a clock that moves only when told to, and one message each holds.
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
        let producer = Backend::of_store(&store).broker.producer().await.unwrap();
        producer.publish(&vec![job(); count]).await.unwrap();
        let mut ids = Vec::new();
        for message in 1..=count {
            let id = store.write(Durability::Process, beat::register).await.unwrap();
            file.execute("UPDATE messages SET consumer = ?1 WHERE seq = ?2", rusqlite::params![id, message]).unwrap();
            ids.push(id);
        }
        Self { _folder: folder, clock, store, file, ids }
    }

    async fn beat(&self, consumer: usize, has_beaten: bool) {
        let id = self.ids[consumer];
        self.store.write(Durability::Process, move |write| beat::beat_once(write, id, has_beaten)).await.unwrap();
    }

    /// Which of them are registered and hold their message.
    fn alive(&self) -> Vec<usize> {
        let sql = "SELECT count(*) = 2 FROM (SELECT consumer FROM consumers UNION ALL SELECT consumer FROM messages) \
                   WHERE consumer = ?1";
        let is_alive = |index: &usize| self.file.query_row(sql, [self.ids[*index]], |row| row.get(0)).unwrap();
        (0..self.ids.len()).filter(is_alive).collect()
    }
}

/// A stall of all: nobody could beat, so whoever comes first must not take the others for dead.
#[tokio::test]
async fn a_consumer_that_missed_its_own_beats_does_not_bury_another_that_did_too() {
    let consumers = Consumers::start(2).await;
    for pause in [Duration::from_millis(4_500), beat::DEAD_AFTER, Duration::from_secs(3600)] {
        // The other beat a moment earlier, and so is overdue a moment earlier.
        consumers.beat(1, true).await;
        consumers.clock.advance(Duration::from_millis(900));
        consumers.beat(0, true).await;
        consumers.clock.advance(pause);
        consumers.beat(0, true).await;
        assert_eq!(consumers.alive(), [0, 1], "after {pause:?}");
        consumers.beat(1, true).await;
        consumers.clock.advance(Duration::from_secs(1));
        consumers.beat(0, true).await;
        assert_eq!(consumers.alive(), [0, 1], "after {pause:?}");
    }
}

#[tokio::test]
async fn a_consumer_that_beats_on_time_buries_one_that_is_silent() {
    let consumers = Consumers::start(2).await;
    for second in 0..=5 {
        consumers.beat(0, second > 0).await;
        assert_eq!(consumers.alive(), [0, 1], "after {second} s");
        consumers.clock.advance(Duration::from_secs(1));
    }
    consumers.beat(0, true).await;
    assert_eq!(consumers.alive(), [0]);
}

/// It knows nothing yet of how well beats get through.
#[tokio::test]
async fn a_consumer_buries_nobody_with_its_first_beat() {
    let mut consumers = Consumers::start(1).await;
    consumers.clock.advance(beat::DEAD_AFTER * 2);
    let id = consumers.store.write(Durability::Process, beat::register).await.unwrap();
    consumers.ids.push(id);
    consumers.beat(1, false).await;
    assert_eq!(consumers.alive(), [0]);
    consumers.beat(1, true).await;
    assert!(consumers.alive().is_empty());
}
