//! Promises that only Kafka makes, on a real server.

mod failures;
mod rebalance;
mod records;
mod tls;
mod topics;

use std::sync::Arc;

use queue::{Backend, Consumer, Delivery, Depth, Error, ErrorKind, Job, Result, Settlement};
use queue_contract::{pool, soon};

/// The group removes a dead consumer soon, and one whose thread has not polled for three seconds.
const CLASSIC: &str = "session.timeout.ms=2000&heartbeat.interval.ms=200&max.poll.interval.ms=3000";

async fn publish(process: &Backend, jobs: &[Job]) {
    process.broker.producer().await.unwrap().publish(jobs).await.unwrap();
}

async fn consumer(process: &Backend) -> Arc<dyn Consumer> {
    process.broker.consumer(&pool()).await.unwrap()
}

async fn depth(process: &Backend) -> Depth {
    process.broker.gauge().await.unwrap().depths(&[pool()]).await.remove(0).unwrap()
}

async fn waiting_and_in_flight(process: &Backend) -> (u64, Option<u64>) {
    let depth = depth(process).await;
    (depth.waiting(), depth.in_flight)
}

/// Receives this number of deliveries, in one call or several.
async fn receive_exactly(consumer: &dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut received = Vec::new();
    while received.len() < count {
        received.extend(receive(consumer, count - received.len()).await);
    }
    received
}

async fn receive(consumer: &dyn Consumer, max: usize) -> Vec<Delivery> {
    soon(consumer.receive(max)).await.unwrap()
}

async fn acknowledge(consumer: &dyn Consumer, deliveries: Vec<Delivery>) {
    consumer.settle(deliveries.into_iter().map(|delivery| (delivery, Settlement::Ack)).collect()).await.unwrap();
}

async fn receive_and_acknowledge(consumer: &dyn Consumer, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let received = receive(consumer, count - ids.len()).await;
        ids.extend(received.iter().map(|delivery| delivery.job.id.to_string()));
        acknowledge(consumer, received).await;
    }
    ids
}

fn refused<T>(result: Result<T>, kind: ErrorKind, what: &str) {
    let error: Error = result.err().unwrap();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(what), "{error}");
}
