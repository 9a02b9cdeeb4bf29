//! What only this broker can show.
#![allow(clippy::disallowed_methods, reason = "starting a server blocks, and only its test waits for it")]

mod outside;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection};

use self::server::Server;
use super::RabbitMqUrl;
use crate::RabbitMqBroker;
use crate::fixture::RabbitMqFixture;
use queue::{Body, Broker, Consumer, Delivery, ErrorKind, Job, Routes, Settlement};
use queue_contract::{self, Fixture, pool, soon};

fn shared() -> RabbitMqFixture {
    RabbitMqFixture::start()
}

async fn done(consumer: &dyn Consumer, deliveries: Vec<Delivery>) {
    let deliveries = deliveries.into_iter().map(|delivery| (delivery, Settlement::Ack)).collect();
    consumer.settle(deliveries).await.unwrap();
}

/// What another program would see.
async fn channel(url: &RabbitMqUrl) -> (Connection, Channel) {
    let connection = Connection::connect_uri(url.uri().clone(), lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// A queue of [`pool`] and [`Class::Standard`].
fn queue(fixture: &RabbitMqFixture) -> ShortString {
    format!("{}.{}.standard", fixture.prefix(), pool()).into()
}

#[tokio::test]
async fn a_channel_that_the_server_closes_is_replaced_and_its_jobs_come_again() {
    let terms = "{rabbit, [{consumer_timeout, 2000}, {channel_tick_interval, 500}]}";
    let server = tokio::task::spawn_blocking(move || Server::start("", terms)).await.unwrap();
    let fixture = RabbitMqFixture::of(server.url());
    let process = fixture.open().await;
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    process.broker.producer().await.unwrap().publish(&contract::jobs(&fixture, 2)).await.unwrap();
    let held = soon(consumer.receive(2)).await.unwrap();
    assert_eq!(held.len(), 2);

    // Nobody settles, so the server closes the channel, on which the consumer waits.
    let again = soon(consumer.receive(2)).await.unwrap();
    assert!(again.iter().all(|delivery| delivery.redelivered));
    // These belong to the channel that is gone.
    done(&*consumer, held).await;
    let mut ids: Vec<_> = again.iter().map(|delivery| delivery.job.id.to_string()).collect();
    done(&*consumer, again).await;
    while ids.len() < 2 {
        let more = soon(consumer.receive(2)).await.unwrap();
        ids.extend(more.iter().map(|delivery| delivery.job.id.to_string()));
        done(&*consumer, more).await;
    }
    ids.sort();
    assert_eq!(ids, ["job-0", "job-1"]);
}

#[tokio::test]
async fn a_server_short_of_memory_takes_no_jobs_until_it_has_some_again() {
    let server = Arc::new(tokio::task::spawn_blocking(|| Server::start("", "")).await.unwrap());
    let control = async |watermark: &'static str| {
        let server = Arc::clone(&server);
        let set = move || server.control(&["set_vm_memory_high_watermark", watermark]);
        tokio::task::spawn_blocking(set).await.unwrap();
    };
    let fixture = RabbitMqFixture::of(server.url());
    let process = fixture.open().await;
    let producer = process.broker.producer().await.unwrap();
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    producer.publish(&[contract::job(&fixture, "before")]).await.unwrap();

    control("0.00001").await;
    let mut taken = vec!["before".to_owned()];
    let mut refused = 0;
    for number in 0..3 {
        let id = format!("during-{number}");
        match soon(producer.publish(&[contract::job(&fixture, &id)])).await {
            Ok(()) => taken.push(id),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                refused += 1;
            }
        }
    }
    // The server hears one more job of a connection before it stops listening to it.
    assert!(refused >= 2, "{refused}");
    // Taking and settling go on, and are the way out.
    let mut drained = Vec::new();
    while !taken.iter().all(|id| drained.contains(id)) {
        let some = soon(consumer.receive(8)).await.unwrap();
        drained.extend(some.iter().map(|delivery| delivery.job.id.to_string()));
        done(&*consumer, some).await;
    }

    control("0.9").await;
    let after = [contract::job(&fixture, "after")];
    let published = async {
        while producer.publish(&after).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(published).await;
    while !drained.contains(&"after".to_owned()) {
        let some = soon(consumer.receive(8)).await.unwrap();
        drained.extend(some.iter().map(|delivery| delivery.job.id.to_string()));
        done(&*consumer, some).await;
    }
}

#[tokio::test]
async fn a_server_that_is_killed_comes_back_with_every_job_to_handles_that_were_open() {
    let mut server = tokio::task::spawn_blocking(|| Server::start("", "")).await.unwrap();
    let fixture = RabbitMqFixture::of(server.url());
    let process = fixture.open().await;
    let producer = process.broker.producer().await.unwrap();
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    let gauge = process.broker.gauge().await.unwrap();
    producer.publish(&contract::jobs(&fixture, 100)).await.unwrap();
    let held = soon(consumer.receive(10)).await.unwrap();
    assert_eq!(gauge.depths(&[pool()]).await.remove(0).unwrap().waiting(), 90);

    let mut server = tokio::task::spawn_blocking(move || {
        server.kill();
        server
    })
    .await
    .unwrap();
    let late = [contract::job(&fixture, "late")];
    assert_eq!(soon(producer.publish(&late)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(soon(gauge.depths(&[pool()])).await.remove(0).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(soon(consumer.receive(1)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    done(&*consumer, held).await;

    let _server = tokio::task::spawn_blocking(move || {
        server.run();
        server
    })
    .await
    .unwrap();
    let published = async {
        while producer.publish(&late).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(published).await;
    let mut arrived = std::collections::HashSet::new();
    let drained = async {
        while arrived.len() < 101 {
            let Ok(some) = consumer.receive(64).await else {
                tokio::task::yield_now().await;
                continue;
            };
            arrived.extend(some.iter().map(|delivery| delivery.job.id.to_string()));
            done(&*consumer, some).await;
        }
    };
    soon(drained).await;
    assert_eq!(soon(gauge.depths(&[pool()])).await.remove(0).unwrap().waiting(), 0);
}

#[tokio::test]
async fn jobs_go_over_tls_and_only_to_a_server_that_is_trusted() {
    let lines = "listeners.ssl.1 = 127.0.0.1:TLS_PORT\nssl_options.cacertfile = FOLDER/ca.pem\n\
                 ssl_options.certfile = FOLDER/server.pem\nssl_options.keyfile = FOLDER/server.key";
    let server = tokio::task::spawn_blocking(move || Server::start(lines, "")).await.unwrap();
    let fixture = RabbitMqFixture::of(server.url());
    let job = contract::job(&fixture, "job");
    let broker = RabbitMqBroker::open(&server.tls_url("ca=FOLDER/ca.pem"), &Routes::default()).unwrap();
    soon(broker.producer().await.unwrap().publish(std::slice::from_ref(&job))).await.unwrap();
    let received = soon(broker.consumer(&pool()).await.unwrap().receive(1)).await.unwrap();
    assert_eq!(received[0].job, job);

    let distrusting = RabbitMqBroker::open(&server.tls_url(""), &Routes::default()).unwrap();
    let error = soon(distrusting.producer().await.unwrap().publish(&[job])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("ertificate"), "{error}");

    let Err(error) = RabbitMqBroker::open(&server.tls_url("ca=FOLDER/none.pem"), &Routes::default()) else {
        panic!("there is no such file")
    };
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("none.pem"), "{error}");
}

#[tokio::test]
async fn a_job_too_big_is_refused_and_takes_no_other_along() {
    let start = || Server::start("max_message_size = 65536", "");
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let fixture = RabbitMqFixture::of(server.url());
    let process = fixture.open().await;
    let producer = process.broker.producer().await.unwrap();
    let mut big = contract::job(&fixture, "big");
    big.input.body = Body::Inline(Bytes::from(vec![0; 65_537]));
    let others = contract::jobs(&fixture, 50);
    let (refused, published) = tokio::join!(producer.publish(std::slice::from_ref(&big)), producer.publish(&others));
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("65536"), "{error}");
    published.unwrap();
    let gauge = process.broker.gauge().await.unwrap();
    assert_eq!(gauge.depths(&[pool()]).await.remove(0).unwrap().waiting(), 50);
}

#[tokio::test]
async fn a_media_type_that_no_message_can_hold_is_refused_before_anything_is_sent() {
    let fixture = shared();
    let process = fixture.open().await;
    let mut jobs = contract::jobs(&fixture, 2);
    jobs[1].input.media_type = "x".repeat(256);
    let error = process.broker.producer().await.unwrap().publish(&jobs).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("job job-1: the media type"), "{error}");
    assert_eq!(process.broker.gauge().await.unwrap().depths(&[pool()]).await.remove(0).unwrap().waiting(), 0);
}

#[tokio::test]
async fn wrong_credentials_are_refused_without_showing_the_password() {
    let fixture = shared();
    let (host, port) = fixture.url().address();
    let url: RabbitMqUrl = format!("rabbitmq://guest:s3cret@{host}:{port}").parse().unwrap();
    let broker = RabbitMqBroker::open(&url, &Routes::default()).unwrap();
    let error = soon(broker.gauge().await.unwrap().depths(&[pool()])).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[tokio::test]
async fn an_unreachable_server_is_no_error_before_it_is_asked() {
    let port = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
    let broker =
        RabbitMqBroker::open(&format!("rabbitmq://127.0.0.1:{port}").parse().unwrap(), &Routes::default()).unwrap();
    let (producer, consumer) = (broker.producer().await.unwrap(), broker.consumer(&pool()).await.unwrap());
    let job = contract::job(&queue_contract::EmbeddedFixture::start(), "job");
    let error = soon(producer.publish(&[job])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    assert_eq!(soon(consumer.receive(1)).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_not_hammered() {
    let rude = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rabbitmq://{}", rude.local_addr().unwrap()).parse().unwrap();
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    tokio::spawn(async move {
        while let Ok((connection, _)) = rude.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(connection);
        }
    });
    let gauge = RabbitMqBroker::open(&url, &Routes::default()).unwrap().gauge().await.unwrap();
    let since = Instant::now();
    for _ in 0..100 {
        assert_eq!(soon(gauge.depths(&[pool()])).await.remove(0).unwrap_err().kind(), ErrorKind::Unavailable);
    }
    // The shortest pause is 100 ms.
    let allowed = 1 + since.elapsed().as_millis() / 100;
    assert!(u128::from(attempts.load(Ordering::Relaxed)) <= allowed, "{attempts:?} of {allowed}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_unavailable_in_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let broker =
        RabbitMqBroker::open(&format!("rabbitmq://127.0.0.1:{port}").parse().unwrap(), &Routes::default()).unwrap();
    let error = soon(broker.gauge().await.unwrap().depths(&[pool()])).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_queue_that_is_there_with_other_arguments_is_refused_by_name() {
    let fixture = shared();
    let process = fixture.open().await;
    let (_connection, channel) = channel(fixture.url()).await;
    let classic = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue(&fixture), classic, FieldTable::default()).await.unwrap();
    let publishing = process.broker.producer().await.unwrap();
    let consuming = process.broker.consumer(&pool()).await.unwrap();
    for error in [
        soon(publishing.publish(&[contract::job(&fixture, "job")])).await.unwrap_err(),
        soon(consuming.receive(1)).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(queue(&fixture).as_str()), "{error}");
        assert!(error.to_string().contains("x-queue-type"), "{error}");
    }
}

#[tokio::test]
async fn a_queue_that_is_deleted_is_declared_again_by_who_publishes_and_by_who_takes() {
    let fixture = shared();
    let process = fixture.open().await;
    let (_connection, channel) = channel(fixture.url()).await;
    let delete = async || channel.queue_delete(queue(&fixture), QueueDeleteOptions::default()).await.unwrap();
    let producer = process.broker.producer().await.unwrap();
    producer.publish(&[contract::job(&fixture, "first")]).await.unwrap();

    // Nobody takes from it yet: were the queue declared again before the producer's channel heard that it went, the
    // server would confirm and forget what that channel sends.
    delete().await;
    producer.publish(&contract::jobs(&fixture, 20)).await.unwrap();
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    let mut arrived = Vec::new();
    while arrived.len() < 20 {
        let some = soon(consumer.receive(20)).await.unwrap();
        arrived.extend(some.iter().map(|delivery| delivery.job.id.to_string()));
        done(&*consumer, some).await;
    }

    // Nobody publishes when this one goes, so the consumer that waits at it must notice by itself.
    let mut receiving = consumer.receive(1);
    soon(consumed(&channel, queue(&fixture), &mut receiving)).await;
    delete().await;
    assert!(futures::poll!(&mut receiving).is_pending());
    // What a channel sends to a queue just when it goes or comes the server may confirm and forget: so more than one.
    let producer = fixture.open().await.broker.producer().await.unwrap();
    let publish = async {
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        for number in 0.. {
            pace.tick().await;
            producer.publish(&[contract::job(&fixture, &format!("again-{number}"))]).await.unwrap();
        }
    };
    let taken = soon(async {
        tokio::select! {
            () = publish => unreachable!("it goes on until one is taken"),
            taken = &mut receiving => taken.unwrap(),
        }
    });
    assert!(taken.await[0].job.id.as_str().starts_with("again-"));
}

/// Servers before 4.0 let the consumer of a queue that comes back at once go on at the new one, under a state that they
/// then forget: what that consumer is given nobody sees.
#[tokio::test]
async fn a_consumer_is_not_lost_when_its_queue_is_deleted_and_declared_in_one_breath() {
    let fixture = shared();
    let process = fixture.open().await;
    let producer = process.broker.producer().await.unwrap();
    producer.publish(&[contract::job(&fixture, "first")]).await.unwrap();
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    done(&*consumer, soon(consumer.receive(1)).await.unwrap()).await;

    let (_connection, channel) = channel(fixture.url()).await;
    let mut receiving = consumer.receive(1);
    soon(consumed(&channel, queue(&fixture), &mut receiving)).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(i32::MAX));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let deleted = channel.queue_delete(queue(&fixture), QueueDeleteOptions::default());
    let declared = channel.queue_declare(queue(&fixture), durable, arguments);
    let (deleted, declared) = futures::join!(deleted, declared);
    deleted.unwrap();
    declared.unwrap();
    // Of a process that knows nothing of the former queue, whose jobs are therefore not forgotten.
    let producer = fixture.open().await.broker.producer().await.unwrap();
    producer.publish(&[contract::job(&fixture, "second")]).await.unwrap();
    let taken = soon(receiving).await.unwrap();
    assert_eq!(taken[0].job.id.as_str(), "second");
}

#[tokio::test]
async fn a_queue_that_cannot_be_asked_for_keeps_no_other_from_being_read() {
    let fixture = shared();
    let process = fixture.open().await;
    let elsewhere: queue::PoolName = "bert".parse().unwrap();
    let producer = process.broker.producer().await.unwrap();
    let theirs = Job { pool: elsewhere.clone(), ..contract::job(&fixture, "theirs") };
    producer.publish(&[theirs]).await.unwrap();
    let gauge = process.broker.gauge().await.unwrap();
    // Another's, and only its connection may ask for it.
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
    producer.publish(&contract::jobs(&fixture, 3)).await.unwrap();
    for (left, deletes) in [([3, 1], true), ([0, 1], false)] {
        let depths = soon(gauge.depths(&pools)).await;
        let waiting: Vec<_> = depths.into_iter().map(|depth| depth.unwrap().waiting()).collect();
        assert_eq!(waiting, left);
        // Of a queue that is deleted between two readings nothing waits.
        if deletes {
            channel.queue_delete(queue(&fixture), QueueDeleteOptions::default()).await.unwrap();
        }
    }
}

/// The server closes a channel over each queue that is not there, and the driver never opens one of its number again.
#[tokio::test]
async fn any_number_of_queues_that_are_not_there_is_read() {
    let server = tokio::task::spawn_blocking(|| Server::start("channel_max = 64", "")).await.unwrap();
    let fixture = RabbitMqFixture::of(server.url());
    let process = fixture.open().await;
    process.broker.producer().await.unwrap().publish(&contract::jobs(&fixture, 2)).await.unwrap();
    let mut pools: Vec<queue::PoolName> = (0..100).map(|number| format!("pool-{number}").parse().unwrap()).collect();
    pools.push(pool());
    let gauge = process.broker.gauge().await.unwrap();
    for _ in 0..3 {
        let depths = soon(gauge.depths(&pools)).await.into_iter().map(|depth| depth.unwrap().waiting());
        assert_eq!(depths.collect::<Vec<_>>(), [vec![0; 100], vec![2]].concat());
    }
}

/// Polls what is `receiving`, which gets nothing yet, until the server knows a consumer of `queue`.
async fn consumed(
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
