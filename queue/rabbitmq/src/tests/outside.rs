//! Messages of other programs, which do not use this crate.

use std::collections::BTreeMap;

use bytes::Bytes;
use lapin::Confirmation;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::protocol::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::{acknowledge, channel, queue, shared};
use crate::RabbitMqBroker;
use crate::fixture::RabbitMqFixture;
use queue::{Body, Broker as _, Class, Job, Route, Routes};
use queue_contract::{Fixture, pool, soon};

/// Publishes a message as another program would, and receives it as a job.
async fn received_from_outside(
    fixture: &RabbitMqFixture,
    properties: BasicProperties,
    body: &[u8],
) -> (Job, Option<String>) {
    let process = fixture.open().await;
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    // The consumer declares the queues of its pool.
    let mut receiving = consumer.receive(1);
    let (_connection, channel) = channel(fixture.url()).await;
    let publish = async {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        loop {
            let sent = channel.basic_publish("".into(), queue(fixture), options, body, properties.clone());
            if sent.await.unwrap().await.unwrap() == Confirmation::Ack(None) {
                break;
            }
        }
    };
    let received = tokio::select! {
        () = publish => None,
        received = &mut receiving => Some(received),
    };
    let received = match received {
        Some(received) => received,
        None => soon(receiving).await,
    };
    let delivery = received.unwrap().remove(0);
    let received = (delivery.job.clone(), delivery.unreadable.clone());
    acknowledge(&*consumer, vec![delivery]).await;
    received
}

#[tokio::test]
async fn a_message_from_outside_needs_no_library_of_ours() {
    let fixture = shared();
    let mut headers = FieldTable::default();
    headers.insert("cloudEvents:specversion".into(), AMQPValue::LongString("1.0".into()));
    headers.insert("cloudEvents_source".into(), AMQPValue::LongString("/cameras/7".into()));
    headers.insert("cloudEvents:id".into(), AMQPValue::LongInt(4711));
    headers.insert("cloudEvents:maxattempts".into(), AMQPValue::ShortShortUInt(2));
    headers.insert("unrelated".into(), AMQPValue::FieldTable(FieldTable::default()));
    let properties = BasicProperties::default().with_headers(headers).with_content_type("image/jpeg".into());
    let (job, unreadable) = received_from_outside(&fixture, properties, b"\xff\xd8").await;
    assert_eq!(unreadable, None);
    assert_eq!((job.id.as_str(), job.class), ("event-992a1a4739fe5b7ac07e985344fd395a", Class::Standard));
    assert_eq!((job.input.media_type.as_str(), job.max_attempts), ("image/jpeg", 2));
    assert_eq!(job.input.body, Body::Inline(Bytes::from_static(b"\xff\xd8")));

    let structured = br#"{"specversion":"1.0","source":"/cameras/7","id":"4711","type":"t","data":{"a":1}}"#;
    let content_type = "application/CloudEvents+json; charset=UTF-8";
    let properties = BasicProperties::default().with_content_type(content_type.into());
    let (job, unreadable) = received_from_outside(&fixture, properties, structured).await;
    assert_eq!(unreadable, None);
    assert_eq!(
        (job.id.as_str(), job.input.media_type.as_str()),
        ("event-992a1a4739fe5b7ac07e985344fd395a", "application/json")
    );
}

#[tokio::test]
async fn a_message_that_is_no_job_comes_with_the_reason_and_is_the_same_job_each_time() {
    let fixture = shared();
    let (first, reason) = received_from_outside(&fixture, BasicProperties::default(), b"what?").await;
    assert_eq!(reason.as_deref(), Some("specversion: is missing"));
    assert_eq!(first.input.body, Body::Inline(Bytes::from_static(b"what?")));
    let (again, _) = received_from_outside(&fixture, BasicProperties::default(), b"what?").await;
    let (other, _) = received_from_outside(&fixture, BasicProperties::default(), b"what!").await;
    assert_eq!(first.id, again.id);
    assert_ne!(first.id, other.id);
    let mut headers = FieldTable::default();
    headers.insert("cloudEvents:id".into(), AMQPValue::ByteArray(vec![0xff].into()));
    let (_, reason) = received_from_outside(&fixture, BasicProperties::default().with_headers(headers), b"").await;
    assert_eq!(reason.as_deref(), Some("cloudEvents:id: is not a text, number, boolean or time"));
}

#[tokio::test]
async fn ten_kinds_of_hostile_messages_are_unreadable_and_the_pool_continues() {
    let fixture = shared();
    let shots = format!("shots-{}", fixture.prefix());
    let route = Route { jobs_from: vec![shots.clone()], results_to: None };
    let url = fixture.url().through(fixture.url().address().1, fixture.prefix());
    let broker = RabbitMqBroker::open(&url, &Routes::new(BTreeMap::from([(pool(), route)])).unwrap()).unwrap();
    let (_connection, channel) = channel(fixture.url()).await;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(shots.as_str().into(), options, FieldTable::default()).await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let publish = async |properties: BasicProperties, body: &[u8]| {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = channel.basic_publish("".into(), shots.as_str().into(), options, body, properties);
        assert_eq!(sent.await.unwrap().await.unwrap(), Confirmation::Ack(None));
    };
    let text = |bytes: &[u8]| AMQPValue::LongString(bytes.into());
    let event = |name: &str, value: AMQPValue| {
        let mut headers = FieldTable::default();
        for (name, value) in [("specversion", "1.0"), ("source", "/cameras/7"), ("id", "1")] {
            headers.insert(format!("cloudEvents:{name}").into(), text(value.as_bytes()));
        }
        headers.insert(ShortString::from(format!("cloudEvents:{name}")), value);
        BasicProperties::default().with_headers(headers)
    };
    let hostile = [
        ("type", text(b"\xff"), "cloudEvents:type: is not text in UTF-8"),
        ("id", AMQPValue::ByteArray(vec![0xff].into()), "cloudEvents:id: is not a text, number, boolean or time"),
        ("time", AMQPValue::Timestamp(u64::MAX), "cloudEvents:time: is not a time"),
        ("source", text(b"/millrace"), "source: \"/millrace\" is reserved for"),
        ("originsource", text(b"/cameras/7"), "originsource: is reserved for"),
        ("dataref", text(b"input/5a/victim.1"), "dataref: \"input/5a/victim.1\" is an object of Millrace"),
        ("dataref", text(b"https://bucket/1?signature=secret"), "dataref: \"https://bucket/1\" is not a path"),
        ("type", text(b"millrace.job.failed"), "type: \"millrace.job.failed\" is the ending of a job"),
    ];
    for (name, value, _) in &hostile {
        publish(event(name, value.clone()), b"data").await;
    }
    publish(BasicProperties::default(), b"").await;
    let deep = format!("{{\"id\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    publish(BasicProperties::default().with_content_type("application/cloudevents+json".into()), deep.as_bytes()).await;
    publish(event("type", text(b"shot")), b"jpeg").await;

    let consumer = broker.consumer(&pool()).await.unwrap();
    let mut received = Vec::new();
    while received.len() < 11 {
        received.extend(soon(consumer.receive(11 - received.len())).await.unwrap());
    }
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
    channel.queue_delete(shots.as_str().into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
}
