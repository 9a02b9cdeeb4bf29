//! Records of other programs, records that are too big, and transactions.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::{acknowledge, consumer, depth, receive, receive_and_acknowledge, receive_exactly, refused};
use crate::KafkaBroker;
use crate::fixture::KafkaFixture;
use queue::{Body, Broker as _, Class, Depth, ErrorKind, Route, Routes};
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

/// Headers with these bytes as names and values.
#[allow(unsafe_code, reason = "rdkafka takes the name of a header as a text; other clients publish any bytes")]
fn raw_headers(headers: &[(&[u8], &[u8])]) -> OwnedHeaders {
    headers.iter().fold(OwnedHeaders::new(), |all, (name, value)| {
        // SAFETY: rdkafka only copies the bytes of the name.
        let key = unsafe { std::str::from_utf8_unchecked(name) };
        all.insert(Header { key, value: Some(*value) })
    })
}

#[tokio::test]
async fn ten_kinds_of_hostile_records_are_unreadable_and_the_pool_continues() {
    let fixture = KafkaFixture::start();
    let shots = format!("shots-{}", uuid::Uuid::now_v7().simple());
    let route = Route { jobs_from: vec![shots.clone()], results_to: None };
    let broker = KafkaBroker::open(&fixture.url, &Routes::new(BTreeMap::from([(pool(), route)])).unwrap());
    let consumer = broker.consumer(&pool()).await.unwrap();
    let producer: FutureProducer = fixture.url.config(&[]).create().unwrap();
    let publish = async |headers: &[(&[u8], &[u8])], data: Option<&[u8]>| {
        let record = FutureRecord::to(&shots).key(b"key").headers(raw_headers(headers));
        let record = FutureRecord { payload: data, ..record };
        producer.send::<[u8; 3], [u8], _>(record, Duration::from_secs(60)).await.unwrap();
    };
    let event: [(&[u8], &[u8]); 3] = [(b"ce_specversion", b"1.0"), (b"ce_source", b"/cameras/7"), (b"ce_id", b"1")];
    let structured: (&[u8], &[u8]) = (b"content-type", b"application/cloudevents+json");
    let deep = format!("{{\"id\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    // Of two headers with the same name, the first one counts.
    let hostile: [(&[u8], &[u8], &str); 8] = [
        (b"ce_caf\xe9", b"x", r"ce_caf\xe9: the name of the header is not UTF-8"),
        (b"ce_type", b"\xff", "ce_type: is not UTF-8"),
        (b"ce_source", b"/millrace", "source: \"/millrace\" is reserved for"),
        (b"ce_originsource", b"/cameras/7", "originsource: is reserved for"),
        (b"ce_dataref", b"input/5a/victim.1", "dataref: \"input/5a/victim.1\" is an object of Millrace"),
        (b"ce_dataref", b"https://bucket/1?signature=secret", "dataref: \"https://bucket/1\" is not a path"),
        (b"ce_expirytime", b"soon", "expirytime: \"soon\" is not an RFC 3339 time"),
        (b"ce_type", b"millrace.job.failed", "type: \"millrace.job.failed\" is the ending of a job"),
    ];
    for (name, value, _) in hostile {
        publish(&[&[(name, value)], &event[..]].concat(), Some(b"data")).await;
    }
    publish(&[], None).await;
    publish(&[structured], Some(deep.as_bytes())).await;
    publish(&[&event[..], &[(b"caf\xe9", b"x")]].concat(), Some(b"jpeg")).await;

    let received = receive_exactly(&*consumer, 11).await;
    let rest = ["specversion: is missing", "id: is not a text, number or boolean"];
    let reasons = hostile.iter().map(|(_, _, reason)| *reason).chain(rest);
    for (delivery, reason) in received.iter().zip(reasons) {
        let found = delivery.unreadable.as_deref().unwrap_or_default();
        assert!(found.starts_with(reason), "{found:?} instead of {reason:?}");
        assert!(delivery.job.id.as_str().starts_with("unreadable-"), "{:?}", delivery.job);
    }
    assert_eq!(received[10].unreadable, None);
    assert_eq!(received[10].job.input.body, Body::Inline(Bytes::from_static(b"jpeg")));
    acknowledge(&*consumer, received).await;
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
