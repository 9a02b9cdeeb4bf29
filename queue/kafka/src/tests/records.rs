//! Records of other programs, records that are too big, and transactions.

use std::time::Duration;

use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::{acknowledge, consumer, depth, receive, receive_and_acknowledge, refused};
use crate::fixture::KafkaFixture;
use queue::{Body, Class, Depth, ErrorKind};
use queue_contract::{Fixture, job, pool, soon};

#[tokio::test]
async fn outside_producers_need_no_library_of_ours() {
    let fixture = KafkaFixture::start();
    let process = fixture.open().await;
    let consumer = consumer(&process).await;
    let producer: FutureProducer = fixture.url.config(&[]).create().unwrap();
    let topic = fixture.url.topic(&pool(), Class::Standard);
    let header = |key, value| Header { key, value: Some(value) };
    let binary = OwnedHeaders::new()
        .insert(header("ce_specversion", "1.0"))
        .insert(header("ce_source", "/cameras/7"))
        .insert(header("ce_id", "1"))
        .insert(header("content-type", "image/jpeg"));
    let structured = OwnedHeaders::new().insert(header("content-type", "application/cloudevents+json"));
    let body = r#"{"specversion":"1.0","source":"/cameras/7","id":"2","type":"t","data":{"a":1}}"#;
    for record in [
        FutureRecord::<str, _>::to(&topic).headers(binary).payload("jpeg"),
        FutureRecord::to(&topic).headers(structured).payload(body),
        FutureRecord::to(&topic).payload("not an event"),
    ] {
        producer.send(record, Duration::from_secs(60)).await.unwrap();
    }
    let mut received = Vec::new();
    while received.len() < 3 {
        received.extend(receive(&*consumer, 3).await);
    }
    let bodies: Vec<_> = received.iter().map(|delivery| delivery.job.input.body.clone()).collect();
    let inline = |text: &'static str| Body::Inline(Bytes::from_static(text.as_bytes()));
    assert_eq!(bodies, [inline("jpeg"), inline(r#"{"a":1}"#), inline("not an event")]);
    let unreadable: Vec<_> = received.iter().map(|delivery| delivery.unreadable.clone()).collect();
    assert_eq!(unreadable, [None, None, Some("specversion: is missing".to_owned())]);
    acknowledge(&*consumer, received).await;
    assert_eq!(depth(&process).await.waiting(), 0);
}

#[tokio::test]
async fn a_job_that_is_too_big_is_refused_and_the_next_one_is_not() {
    let fixture = KafkaFixture::start();
    let process = fixture.open().await;
    let producer = process.broker.producer().await.unwrap();
    let mut big = job(&fixture, "big");
    big.input.body = Body::Inline(Bytes::from(vec![0; 2_000_000]));
    let result = producer.publish(&[job(&fixture, "before"), big]).await;
    refused(result, ErrorKind::Refused, "2000000 bytes: raise max.message.bytes");
    producer.publish(&[job(&fixture, "after")]).await.unwrap();
    assert_eq!(receive_and_acknowledge(&*consumer(&process).await, 2).await, ["before", "after"]);
}

#[tokio::test]
async fn a_producer_with_transactions_leaves_nothing_that_waits_for_ever() {
    let fixture = KafkaFixture::start();
    let process = fixture.open().await;
    let consumer = consumer(&process).await;
    let topic = fixture.url.topic(&pool(), Class::Standard);
    let mut config = fixture.url.config(&[]);
    let producer: FutureProducer = config.set("transactional.id", &topic).create().unwrap();
    let limit = Duration::from_secs(60);
    producer.init_transactions(limit).unwrap();
    let publish_one = async |body: &str| {
        producer.begin_transaction().unwrap();
        producer.send(FutureRecord::<str, _>::to(&topic).payload(body), limit).await.unwrap();
    };

    publish_one("kept").await;
    producer.commit_transaction(limit).unwrap();
    let received = receive(&*consumer, 1).await;
    assert_eq!(received[0].job.input.body, Body::Inline(Bytes::from_static(b"kept")));
    publish_one("taken back").await;
    producer.abort_transaction(limit).unwrap();
    assert_eq!(depth(&process).await.in_flight, Some(1));
    acknowledge(&*consumer, received).await;

    let nothing_waits = async {
        while depth(&process).await != (Depth { in_flight: Some(0), max_consumers: Some(1), ..Depth::default() }) {}
    };
    tokio::select! {
        () = soon(nothing_waits) => {}
        received = consumer.receive(1) => panic!("{:?} was taken back", received.unwrap()),
    }
}
