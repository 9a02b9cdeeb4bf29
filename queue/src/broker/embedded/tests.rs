//! What only this broker can show: its rows.

use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::contract::soon;
use crate::{Backend, BackendUrl, Body, Class, Consumer, Input, Job, PoolName, Settlement};

fn pool() -> PoolName {
    "resnet50".parse().unwrap()
}

/// A backend with one job published, a consumer, and the file behind them.
async fn start() -> (TempDir, Backend, Arc<dyn Consumer>, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let url = BackendUrl::Embedded { folder: folder.path().to_owned(), max_size_bytes: None };
    let backend = Backend::open(&url).await.unwrap();
    let consumer = backend.broker.consumer(&pool()).await.unwrap();
    let job = Job {
        id: "job".parse().unwrap(),
        pool: pool(),
        class: Class::Standard,
        input: Input { media_type: "text/plain".to_owned(), body: Body::Inline("input".into()) },
        created_at: jiff::Timestamp::UNIX_EPOCH,
        deadline_at: None,
        max_attempts: 3,
        retention: std::time::Duration::from_secs(1),
        trace_parent: None,
    };
    backend.broker.producer().await.unwrap().publish(&[job]).await.unwrap();
    let file = Connection::open(folder.path().join("millrace.db")).unwrap();
    (folder, backend, consumer, file)
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
    let again = held.into_iter().map(|delivery| (delivery, Settlement::Again)).collect();
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
