//! Servers that fail, have too little memory, or have other settings.

use std::sync::Arc;

use bytes::Bytes;

use super::acknowledge;
use super::server::Server;
use crate::fixture::RabbitMqFixture;
use crate::{RabbitMqBroker, RabbitMqUrl};
use queue::{Body, Broker, ErrorKind, Routes, UrlSource};
use queue_contract::{Fixture, job, jobs, pool, soon};

#[tokio::test]
async fn a_channel_that_the_server_closes_is_replaced_and_its_jobs_are_delivered_again() {
    let terms = "{rabbit, [{consumer_timeout, 2000}, {channel_tick_interval, 500}]}";
    let server = tokio::task::spawn_blocking(move || Server::start("", terms)).await.unwrap();
    let fixture = RabbitMqFixture::of(server.url());
    let process = fixture.open().await;
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    process.broker.producer().await.unwrap().publish(&jobs(&fixture, 2)).await.unwrap();
    let held = soon(consumer.receive(2)).await.unwrap();
    assert_eq!(held.len(), 2);

    // No delivery is settled, so the server closes the channel on which the consumer waits.
    let again = soon(consumer.receive(2)).await.unwrap();
    assert!(again.iter().all(|delivery| delivery.redelivered));
    // These belong to the channel that is closed.
    acknowledge(&*consumer, held).await;
    let mut ids: Vec<_> = again.iter().map(|delivery| delivery.job.id.to_string()).collect();
    acknowledge(&*consumer, again).await;
    while ids.len() < 2 {
        let more = soon(consumer.receive(2)).await.unwrap();
        ids.extend(more.iter().map(|delivery| delivery.job.id.to_string()));
        acknowledge(&*consumer, more).await;
    }
    ids.sort();
    assert_eq!(ids, ["job-0", "job-1"]);
}

#[tokio::test]
async fn a_server_short_of_memory_accepts_no_jobs_until_it_has_memory_again() {
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
    producer.publish(&[job(&fixture, "before")]).await.unwrap();

    control("0.00001").await;
    let mut taken = vec!["before".to_owned()];
    let mut refused = 0;
    for number in 0..3 {
        let id = format!("during-{number}");
        match soon(producer.publish(&[job(&fixture, &id)])).await {
            Ok(()) => taken.push(id),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{error}");
                refused += 1;
            }
        }
    }
    // The server accepts one more job from a connection before it stops reading from it.
    assert!(refused >= 2, "{refused}");
    // Consumers still receive and settle, which frees memory.
    let mut drained = Vec::new();
    while !taken.iter().all(|id| drained.contains(id)) {
        let some = soon(consumer.receive(8)).await.unwrap();
        drained.extend(some.iter().map(|delivery| delivery.job.id.to_string()));
        acknowledge(&*consumer, some).await;
    }

    control("0.9").await;
    let after = [job(&fixture, "after")];
    let published = async {
        while producer.publish(&after).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(published).await;
    while !drained.contains(&"after".to_owned()) {
        let some = soon(consumer.receive(8)).await.unwrap();
        drained.extend(some.iter().map(|delivery| delivery.job.id.to_string()));
        acknowledge(&*consumer, some).await;
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
    producer.publish(&jobs(&fixture, 100)).await.unwrap();
    let held = soon(consumer.receive(10)).await.unwrap();
    assert_eq!(gauge.depths(&[pool()]).await.remove(0).unwrap().waiting(), 90);

    let mut server = tokio::task::spawn_blocking(move || {
        server.kill();
        server
    })
    .await
    .unwrap();
    let late = [job(&fixture, "late")];
    assert_eq!(soon(producer.publish(&late)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(soon(gauge.depths(&[pool()])).await.remove(0).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(soon(consumer.receive(1)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    acknowledge(&*consumer, held).await;

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
            acknowledge(&*consumer, some).await;
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
    let job = job(&fixture, "job");
    let broker = RabbitMqBroker::open(&server.tls_url("ca=FOLDER/ca.pem"), &Routes::default()).unwrap();
    soon(broker.producer().await.unwrap().publish(std::slice::from_ref(&job))).await.unwrap();
    let received = soon(broker.consumer(&pool()).await.unwrap().receive(1)).await.unwrap();
    assert_eq!(received[0].job, job);

    let distrusting = RabbitMqBroker::open(&server.tls_url(""), &Routes::default()).unwrap();
    let error = soon(distrusting.producer().await.unwrap().publish(&[job])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("ertificate"), "{error}");

    let Err(error) = RabbitMqBroker::open(&server.tls_url("ca=FOLDER/none.pem"), &Routes::default()) else {
        panic!("the file does not exist")
    };
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("none.pem"), "{error}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_it() {
    let lines = "listeners.ssl.1 = 127.0.0.1:TLS_PORT\nssl_options.cacertfile = FOLDER/ca.pem\n\
                 ssl_options.certfile = FOLDER/server.pem\nssl_options.keyfile = FOLDER/server.key\n\
                 ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true";
    let server = tokio::task::spawn_blocking(move || Server::start(lines, "")).await.unwrap();
    let fixture = RabbitMqFixture::of(server.url());
    let job = [job(&fixture, "job")];
    let publish = async |options: &str| {
        let broker = RabbitMqBroker::open(&server.tls_url(options), &Routes::default()).unwrap();
        soon(broker.producer().await.unwrap().publish(&job)).await
    };
    publish("ca=FOLDER/ca.pem&cert=FOLDER/client.pem&key=FOLDER/client.key").await.unwrap();
    let error = publish("ca=FOLDER/ca.pem").await.unwrap_err();
    assert!(error.kind().is_outage(), "{error}");
}

#[tokio::test]
async fn a_renewed_password_is_read_for_the_next_connection() {
    let server = Arc::new(tokio::task::spawn_blocking(|| Server::start("", "")).await.unwrap());
    let fixture = RabbitMqFixture::of(server.url());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "guest").unwrap();
    let (path, port) = (file.path().to_owned(), server.port);
    let read = move || Ok(format!("rabbitmq://guest:{}@127.0.0.1:{port}", std::fs::read_to_string(&path).unwrap()));
    let url: RabbitMqUrl = read().unwrap().parse().unwrap();
    let broker = RabbitMqBroker::open(&url.renewed_by(UrlSource::new(read)), &Routes::default()).unwrap();
    let producer = broker.producer().await.unwrap();
    producer.publish(&[job(&fixture, "before")]).await.unwrap();

    let change = move || {
        server.control(&["change_password", "guest", "second"]);
        server.control(&["close_all_connections", "the password has changed"]);
        server
    };
    let _server = tokio::task::spawn_blocking(change).await.unwrap();
    let after = [job(&fixture, "after")];
    let refused = async {
        loop {
            match producer.publish(&after).await {
                Err(error) if error.kind() == ErrorKind::Denied => return,
                result => assert!(result.is_err(), "the former password is accepted"),
            }
        }
    };
    soon(refused).await;
    std::fs::write(file.path(), "second").unwrap();
    soon(async {
        while producer.publish(&after).await.is_err() {
            tokio::task::yield_now().await
        }
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_too_big_is_refused_and_no_other_job_with_it() {
    let start = || Server::start("max_message_size = 65536", "");
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let fixture = RabbitMqFixture::of(server.url());
    let process = fixture.open().await;
    let producer = process.broker.producer().await.unwrap();
    let mut big = job(&fixture, "big");
    big.input.body = Body::Inline(Bytes::from(vec![0; 65_537]));
    let others = jobs(&fixture, 50);
    let (refused, published) = tokio::join!(producer.publish(std::slice::from_ref(&big)), producer.publish(&others));
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("65536"), "{error}");
    published.unwrap();
    let gauge = process.broker.gauge().await.unwrap();
    assert_eq!(gauge.depths(&[pool()]).await.remove(0).unwrap().waiting(), 50);
}
