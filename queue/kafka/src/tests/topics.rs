//! Topics that are created, deleted, read or checked for risks.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use super::{CLASSIC, consumer, depth, publish, receive_and_acknowledge, refused};
use crate::fixture::KafkaFixture;
use queue::{Class, ErrorKind, PoolExpectation};
use queue_contract::{Fixture, jobs, pool, soon};

#[tokio::test]
async fn the_gauge_reports_how_many_workers_can_get_jobs() {
    let fixture = KafkaFixture::with("partitions=3");
    let process = fixture.open().await;
    assert_eq!(depth(&process).await.max_consumers, Some(3));
    publish(&process, &jobs(&fixture, 1)).await;
    assert_eq!(depth(&process).await.max_consumers, Some(3));
}

#[tokio::test]
async fn a_topic_that_cannot_be_created_is_named() {
    let fixture = KafkaFixture::start();
    let process = fixture.open().await;
    publish(&process, &jobs(&fixture, 1)).await;
    // Kafka refuses names that differ only in dots and underscores.
    let pool: queue::PoolName = "x".parse().unwrap();
    let prefix = fixture.url.topic(&pool, Class::Standard).replace(".x.standard", "");
    let server = std::env::var("MILLRACE_TEST_KAFKA_URL").unwrap();
    let dotted = KafkaFixture::at(&format!("{server}?prefix={prefix}.a&partitions=1"));
    let lined = KafkaFixture::at(&format!("{server}?prefix={prefix}_a&partitions=1"));
    publish(&dotted.open().await, &jobs(&dotted, 1)).await;
    let producer = lined.open().await.broker.producer().await.unwrap();
    let result = producer.publish(&jobs(&lined, 1)).await;
    refused(
        result,
        ErrorKind::Denied,
        &format!("cannot create the topic {prefix}_a.resnet50.premium with 1 partitions"),
    );
}

#[tokio::test]
async fn a_topic_that_was_deleted_is_created_again() {
    let fixture = KafkaFixture::with(&format!("partitions=1&topic.metadata.propagation.max.ms=1000&{CLASSIC}"));
    let process = fixture.open().await;
    let producer = process.broker.producer().await.unwrap();
    producer.publish(&jobs(&fixture, 1)).await.unwrap();
    let admin: AdminClient<DefaultClientContext> = fixture.url.config(&[]).create().unwrap();
    let names = Class::ALL.map(|class| fixture.url.topic(&pool(), class));
    let topics = names.each_ref().map(String::as_str);
    admin.delete_topics(&topics, &AdminOptions::new()).await.unwrap();
    let again = async {
        // The first jobs that are published to it find that it is missing.
        while let Err(error) = producer.publish(&jobs(&fixture, 2)).await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
    };
    soon(again).await;
    assert_eq!(receive_and_acknowledge(&*consumer(&process).await, 2).await, ["job-0", "job-1"]);
}

/// The batches of one producer arrive one after another while the servers create the logs.
#[tokio::test]
async fn each_job_that_is_published_while_its_topic_is_created_is_in_the_log() {
    for _ in 0..10 {
        let fixture = KafkaFixture::start();
        let process = fixture.open().await;
        let producer = process.broker.producer().await.unwrap();
        let jobs = jobs(&fixture, 64);
        let publishing = jobs.iter().map(|job| {
            let producer = Arc::clone(&producer);
            async move { producer.publish(std::slice::from_ref(job)).await }
        });
        soon(try_join_all(publishing)).await.unwrap();
        assert_eq!(depth(&process).await.waiting(), 64);
    }
}

#[tokio::test]
async fn the_risks_of_a_topic_or_group_are_read_from_its_servers() {
    let fixture = KafkaFixture::with("partitions=1&group.protocol=consumer");
    let process = fixture.open().await;
    publish(&process, &jobs(&fixture, 1)).await;
    let admin: AdminClient<DefaultClientContext> = fixture.url.config(&[]).create().unwrap();
    let topic = fixture.url.topic(&pool(), Class::Standard);
    let group = fixture.url.group(&pool());
    let retention = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "-1");
    admin.alter_configs(&[retention], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let deadline = Some(Duration::from_secs(60));
    let expectation = PoolExpectation { pool: pool(), max_workers: 1, deadline, holding: None };
    let risks = soon(process.broker.risks(&[expectation])).await.unwrap();
    let found = |setting: &str| -> Vec<_> {
        let risks = risks.iter().filter(|risk| risk.setting == setting);
        risks.map(|risk| (&*risk.subject, &*risk.found)).collect()
    };
    assert_eq!(found("retention.ms"), [(&*topic, "-1")]);
    // The test servers' session timeout is short enough. This shows only that it can be read.
    assert_eq!(found("consumer.session.timeout.ms"), []);
    let of_group = admin.describe_configs([&ResourceSpecifier::Group(&group)], &AdminOptions::new()).await.unwrap();
    let session = of_group[0].as_ref().unwrap().get("consumer.session.timeout.ms").and_then(|at| at.value.clone());
    assert_eq!(session.as_deref(), Some("6000"));
    let why = &risks.iter().find(|risk| risk.setting == "retention.ms").unwrap().why;
    assert!(why.starts_with("10080 minutes after"), "{why}");
}
