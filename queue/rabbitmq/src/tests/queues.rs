//! Queues that are missing, deleted, or declared by other programs.

use std::time::Duration;

use lapin::Channel;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::server::Server;
use super::{acknowledge, channel, queue, shared};
use crate::fixture::RabbitMqFixture;
use queue::{ErrorKind, Job, PoolExpectation, Severity};
use queue_contract::{Fixture, job, jobs, pool, soon};

#[tokio::test]
async fn a_media_type_that_no_message_can_hold_is_refused_before_anything_is_sent() {
    let fixture = shared();
    let process = fixture.open().await;
    let mut jobs = jobs(&fixture, 2);
    jobs[1].input.media_type = "x".repeat(256);
    let error = process.broker.producer().await.unwrap().publish(&jobs).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("job job-1: the media type"), "{error}");
    assert_eq!(process.broker.gauge().await.unwrap().depths(&[pool()]).await.remove(0).unwrap().waiting(), 0);
}

#[tokio::test]
async fn a_queue_that_exists_with_other_arguments_is_refused_by_name() {
    let fixture = shared();
    let process = fixture.open().await;
    let (_connection, channel) = channel(fixture.url()).await;
    let classic = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue(&fixture), classic, FieldTable::default()).await.unwrap();
    let publishing = process.broker.producer().await.unwrap();
    let consuming = process.broker.consumer(&pool()).await.unwrap();
    for error in [
        soon(publishing.publish(&[job(&fixture, "job")])).await.unwrap_err(),
        soon(consuming.receive(1)).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains(queue(&fixture).as_str()), "{error}");
        assert!(error.to_string().contains("x-queue-type"), "{error}");
    }
}

#[tokio::test]
async fn a_queue_that_exists_with_other_arguments_is_a_severe_risk_and_no_queue_is_declared() {
    let fixture = shared();
    let process = fixture.open().await;
    let (connection, channel) = channel(fixture.url()).await;
    let classic = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue(&fixture), classic, FieldTable::default()).await.unwrap();
    let expectation = PoolExpectation { pool: pool(), max_workers: 1, deadline: None, holding: None };
    let mut risks = soon(process.broker.risks(&[expectation])).await.unwrap();
    risks.retain(|risk| risk.severity == Severity::Severe);
    let [risk] = &risks[..] else { panic!("{risks:?}") };
    assert_eq!(risk.subject, format!("queue {}", queue(&fixture)));
    assert!(risk.found.contains("x-queue-type"), "{risk:?}");
    for name in crate::queues::pool_queues(fixture.prefix(), &pool()).unwrap() {
        let channel = connection.create_channel().await.unwrap();
        let exists = crate::queues::message_count(&channel, name.clone()).await.unwrap().is_some();
        assert_eq!(exists, name == queue(&fixture), "{name}");
    }
}

#[tokio::test]
async fn a_queue_that_is_deleted_is_declared_again_by_producers_and_consumers() {
    let fixture = shared();
    let process = fixture.open().await;
    let (_connection, channel) = channel(fixture.url()).await;
    let delete = async || channel.queue_delete(queue(&fixture), QueueDeleteOptions::default()).await.unwrap();
    let producer = process.broker.producer().await.unwrap();
    producer.publish(&[job(&fixture, "first")]).await.unwrap();

    // No consumer waits yet, so the queue is declared again only after the producer has detected that it is missing. If
    // it were declared earlier, the server would confirm the messages of the producer's old channel and lose them.
    delete().await;
    producer.publish(&jobs(&fixture, 20)).await.unwrap();
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    let mut arrived = Vec::new();
    while arrived.len() < 20 {
        let some = soon(consumer.receive(20)).await.unwrap();
        arrived.extend(some.iter().map(|delivery| delivery.job.id.to_string()));
        acknowledge(&*consumer, some).await;
    }

    // No producer publishes when the queue is deleted, so the waiting consumer must detect this itself.
    let mut receiving = consumer.receive(1);
    soon(has_consumer(&channel, queue(&fixture), &mut receiving)).await;
    delete().await;
    assert!(futures::poll!(&mut receiving).is_pending());
    // A message that is sent while the queue is deleted or declared may be confirmed and lost. So more than one is
    // sent.
    let producer = fixture.open().await.broker.producer().await.unwrap();
    let publish = async {
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        for number in 0.. {
            pace.tick().await;
            producer.publish(&[job(&fixture, &format!("again-{number}"))]).await.unwrap();
        }
    };
    let taken = soon(async {
        tokio::select! {
            () = publish => unreachable!("it publishes until a job is received"),
            taken = &mut receiving => taken.unwrap(),
        }
    });
    assert!(taken.await[0].job.id.as_str().starts_with("again-"));
}

/// A queue is deleted and at once declared again. Servers before 4.0 move its consumer to the new queue, but lose its
/// state. They then assign jobs to this consumer and do not send them.
#[tokio::test]
async fn a_consumer_still_receives_when_its_queue_is_deleted_and_at_once_declared_again() {
    let fixture = shared();
    let process = fixture.open().await;
    let producer = process.broker.producer().await.unwrap();
    producer.publish(&[job(&fixture, "first")]).await.unwrap();
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    acknowledge(&*consumer, soon(consumer.receive(1)).await.unwrap()).await;

    let (_connection, channel) = channel(fixture.url()).await;
    let mut receiving = consumer.receive(1);
    soon(has_consumer(&channel, queue(&fixture), &mut receiving)).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(i32::MAX));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let deleted = channel.queue_delete(queue(&fixture), QueueDeleteOptions::default());
    let declared = channel.queue_declare(queue(&fixture), durable, arguments);
    let (deleted, declared) = futures::join!(deleted, declared);
    deleted.unwrap();
    declared.unwrap();
    // This process has not used the former queue, so the server does not lose its jobs.
    let producer = fixture.open().await.broker.producer().await.unwrap();
    producer.publish(&[job(&fixture, "second")]).await.unwrap();
    let taken = soon(receiving).await.unwrap();
    assert_eq!(taken[0].job.id.as_str(), "second");
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_does_not_affect_the_reading_of_others() {
    let fixture = shared();
    let process = fixture.open().await;
    let elsewhere: queue::PoolName = "bert".parse().unwrap();
    let producer = process.broker.producer().await.unwrap();
    let theirs = Job { pool: elsewhere.clone(), ..job(&fixture, "theirs") };
    producer.publish(&[theirs]).await.unwrap();
    let gauge = process.broker.gauge().await.unwrap();
    // An exclusive queue of another program: only its own connection may read it.
    let (_connection, channel) = channel(fixture.url()).await;
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue(&fixture), exclusive, FieldTable::default()).await.unwrap();
    let pools = [pool(), elsewhere];
    for _ in 0..2 {
        let mut depths = soon(gauge.depths(&pools)).await;
        assert_eq!(depths.remove(1).unwrap().waiting(), 1);
        let error = depths.remove(0).unwrap_err();
        assert!(error.to_string().contains(queue(&fixture).as_str()), "{error}");
    }
    channel.queue_delete(queue(&fixture), QueueDeleteOptions::default()).await.unwrap();
    producer.publish(&jobs(&fixture, 3)).await.unwrap();
    for (left, deletes) in [([3, 1], true), ([0, 1], false)] {
        let depths = soon(gauge.depths(&pools)).await;
        let waiting: Vec<_> = depths.into_iter().map(|depth| depth.unwrap().waiting()).collect();
        assert_eq!(waiting, left);
        // A queue that is deleted between two readings holds no jobs.
        if deletes {
            channel.queue_delete(queue(&fixture), QueueDeleteOptions::default()).await.unwrap();
        }
    }
}

/// The server closes a channel for each missing queue, and the driver cannot open a channel of that number again.
#[tokio::test]
async fn any_number_of_missing_queues_can_be_read() {
    let server = tokio::task::spawn_blocking(|| Server::start("channel_max = 64", "")).await.unwrap();
    let fixture = RabbitMqFixture::of(server.url());
    let process = fixture.open().await;
    process.broker.producer().await.unwrap().publish(&jobs(&fixture, 2)).await.unwrap();
    let mut pools: Vec<queue::PoolName> = (0..100).map(|number| format!("pool-{number}").parse().unwrap()).collect();
    pools.push(pool());
    let gauge = process.broker.gauge().await.unwrap();
    for _ in 0..3 {
        let depths = soon(gauge.depths(&pools)).await.into_iter().map(|depth| depth.unwrap().waiting());
        assert_eq!(depths.collect::<Vec<_>>(), [vec![0; 100], vec![2]].concat());
    }
}

/// Polls `receiving`, which must stay pending, until the server has a consumer of `queue`.
async fn has_consumer(
    channel: &Channel,
    queue: ShortString,
    receiving: &mut (impl Future<Output: std::fmt::Debug> + Unpin),
) {
    let consumers =
        async || channel.queue_declare(queue.clone(), passive(), FieldTable::default()).await.unwrap().consumer_count();
    while consumers().await == 0 {
        assert!(futures::poll!(&mut *receiving).is_pending());
    }
}

fn passive() -> QueueDeclareOptions {
    QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() }
}
