//! Servers that are unreachable or refuse requests.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::{acknowledge, consumer, publish, refused};
use crate::fixture::KafkaFixture;
use queue::{Class, ErrorKind};
use queue_contract::{Fixture, jobs, pool, soon};

#[tokio::test]
async fn a_server_out_of_reach_is_unavailable_and_nothing_hangs() {
    let fixture = KafkaFixture::at("kafka://127.0.0.1:1");
    let process = fixture.open().await;
    let (producer, gauge) = (process.broker.producer().await.unwrap(), process.broker.gauge().await.unwrap());
    let consumer = consumer(&process).await;
    let (jobs, pools) = (jobs(&fixture, 1), [pool(), "bert".parse().unwrap()]);
    let (published, read, received) =
        tokio::join!(soon(producer.publish(&jobs)), soon(gauge.depths(&pools)), soon(consumer.receive(1)));
    refused(published, ErrorKind::Unavailable, "127.0.0.1:1");
    assert_eq!(read.len(), 2);
    for read in read {
        refused(read, ErrorKind::Unavailable, "127.0.0.1:1");
    }
    refused(received, ErrorKind::Unavailable, "127.0.0.1:1");
}

#[tokio::test]
async fn a_setting_that_is_wrong_is_refused_at_once() {
    let fixture = KafkaFixture::at("kafka://127.0.0.1:1?security.protocol=ssl&ssl.ca.location=/no/such/file");
    let process = fixture.open().await;
    refused(process.broker.producer().await, ErrorKind::Denied, "cannot open a producer");
}

/// A mock server of librdkafka that answers all requests of this kind with this error.
fn refusing(api: RDKafkaApiKey, code: RDKafkaRespErr) -> (MockCluster<'static, DefaultProducerContext>, KafkaFixture) {
    let server = MockCluster::new(1).unwrap();
    let fixture = KafkaFixture::at(&format!("kafka://{}?prefix=test", server.bootstrap_servers()));
    for class in Class::ALL {
        server.create_topic(&fixture.url.topic(&pool(), class), 1, 1).unwrap();
    }
    server.request_errors(api, &[code; 10_000]);
    (server, fixture)
}

#[tokio::test]
async fn a_worker_that_may_not_join_the_group_gets_the_reason_and_works_once_it_may() {
    let code = RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    let (server, fixture) = refusing(RDKafkaApiKey::FindCoordinator, code);
    let process = fixture.open().await;
    let consumer = consumer(&process).await;
    for _ in 0..2 {
        refused(soon(consumer.receive(1)).await, ErrorKind::Denied, "receive from the pool resnet50: FindCoordinator");
    }
    server.clear_request_errors(RDKafkaApiKey::FindCoordinator);
    publish(&process, &jobs(&fixture, 1)).await;
    let works = async {
        loop {
            match consumer.receive(1).await {
                Ok(received) => break acknowledge(&*consumer, received).await,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Denied, "{error}"),
            }
        }
    };
    soon(works).await;
}

#[tokio::test]
async fn a_group_whose_committed_offsets_cannot_be_read_is_named() {
    let code = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    let (_server, fixture) = refusing(RDKafkaApiKey::OffsetFetch, code);
    let process = fixture.open().await;
    let consumer = consumer(&process).await;
    refused(soon(consumer.receive(1)).await, ErrorKind::Denied, "cannot take over partitions");
}

#[tokio::test]
async fn a_record_that_was_confirmed_without_an_offset_does_not_count_as_published() {
    let code = RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER;
    let (server, fixture) = refusing(RDKafkaApiKey::Produce, code);
    let process = fixture.open().await;
    let producer = process.broker.producer().await.unwrap();
    let jobs = jobs(&fixture, 1);
    refused(soon(producer.publish(&jobs)).await, ErrorKind::Unavailable, "without an offset");
    server.clear_request_errors(RDKafkaApiKey::Produce);
    soon(producer.publish(&jobs)).await.unwrap();
}
