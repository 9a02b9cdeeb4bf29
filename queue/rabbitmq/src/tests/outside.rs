//! Messages of other programs, which do not use this crate.

use bytes::Bytes;
use lapin::Confirmation;
use lapin::options::BasicPublishOptions;
use lapin::protocol::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::{acknowledge, channel, queue, shared};
use crate::fixture::RabbitMqFixture;
use queue::{Body, Class, Job};
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
        let confirm = lapin::options::ConfirmSelectOptions::default();
        channel.confirm_select(confirm).await.unwrap();
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
