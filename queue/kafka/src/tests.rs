//! What Kafka in particular must do, on a real one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord, Producer as _};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::Event;
use crate::fixture::KafkaFixture;
use queue::{
    Backend, Body, Class, Consumer, Delivery, Depth, Error, ErrorKind, Job, PoolExpectation, Result, Settlement,
};
use queue_contract::{Fixture, job, jobs, pool, soon};

/// A dead consumer is noticed soon, and a thread that does not poll within three seconds is taken for dead.
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

async fn waiting_and_held(process: &Backend) -> (u64, Option<u64>) {
    let depth = depth(process).await;
    (depth.waiting(), depth.in_flight)
}

/// As many, in however many pieces they come.
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

async fn done(consumer: &dyn Consumer, deliveries: Vec<Delivery>) {
    consumer.settle(deliveries.into_iter().map(|delivery| (delivery, Settlement::Ack)).collect()).await.unwrap();
}

async fn done_exactly(consumer: &dyn Consumer, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let received = receive(consumer, count - ids.len()).await;
        ids.extend(received.iter().map(|delivery| delivery.job.id.to_string()));
        done(consumer, received).await;
    }
    ids
}

/// What came, and how often.
#[derive(Default)]
struct Tally {
    deliveries: HashMap<String, usize>,
    ended: HashSet<String>,
}

impl Tally {
    fn count(&mut self, received: &[Delivery]) {
        for delivery in received {
            let id = delivery.job.id.to_string();
            assert!(!self.ended.contains(&id), "{id} came after it was done");
            *self.deliveries.entry(id).or_default() += 1;
        }
    }

    /// One batch.
    async fn work(&mut self, consumer: &dyn Consumer) {
        let received = receive(consumer, 32).await;
        self.count(&received);
        self.ended.extend(received.iter().map(|delivery| delivery.job.id.to_string()));
        done(consumer, received).await;
    }
}

/// One worker works; another joins, then the first leaves with its hands full. There is always enough to do.
async fn a_worker_joins_and_one_leaves(options: &str) {
    const LOAD: usize = 3_000;
    let fixture = KafkaFixture::with(options);
    let (one, another) = (fixture.open().await, fixture.open().await);
    let mut published = 0;
    let mut publish_more = async |count| {
        let of_class = |number: usize| Job { class: Class::ALL[number % 3], ..job(&fixture, &format!("job-{number}")) };
        publish(&one, &(published..published + count).map(of_class).collect::<Vec<_>>()).await;
        published += count;
        published
    };

    publish_more(LOAD).await;
    let mut tally = Tally::default();
    let leaving = consumer(&one).await;
    let mut joining = std::pin::pin!(consumer(&another));
    let (staying, total) = loop {
        let total = publish_more(32).await;
        tokio::select! {
            joined = &mut joining => break (joined, total),
            () = tally.work(&*leaving) => {}
        }
    };
    for _ in 0..5 {
        tally.work(&*staying).await;
    }
    let held = receive(&*leaving, 32).await;
    tally.count(&held);
    drop(leaving);
    while tally.ended.len() < total {
        tally.work(&*staying).await;
    }

    assert_eq!(tally.deliveries.len(), total);
    let repeated = tally.deliveries.values().map(|count| count - 1).sum::<usize>();
    assert_eq!(repeated, held.len(), "something else was repeated than what was in flight");
    let found = depth(&one).await;
    assert_eq!((found.waiting(), found.in_flight), (0, Some(0)));
}

#[tokio::test]
async fn a_rebalance_in_mid_load_loses_nothing_and_repeats_only_what_was_in_flight() {
    a_worker_joins_and_one_leaves(CLASSIC).await;
}

#[tokio::test]
async fn the_new_group_protocol_keeps_the_same_promise() {
    a_worker_joins_and_one_leaves("group.protocol=consumer&max.poll.interval.ms=3000").await;
}

#[tokio::test]
async fn a_job_that_outlasts_the_poll_interval_does_not_get_its_worker_thrown_out() {
    let fixture = KafkaFixture::with(CLASSIC);
    let process = fixture.open().await;
    let consumer = consumer(&process).await;
    publish(&process, &[job(&fixture, "slow")]).await;
    let slow = receive(&*consumer, 1).await;
    let (start, mut number) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(6) {
        number += 1;
        let id = format!("quick-{number}");
        publish(&process, &[job(&fixture, &id)]).await;
        assert_eq!(done_exactly(&*consumer, 1).await, [id]);
    }
    assert_eq!((depth(&process).await.waiting(), depth(&process).await.in_flight), (0, Some(1)));
    done(&*consumer, slow).await;
    assert_eq!((depth(&process).await.waiting(), depth(&process).await.in_flight), (0, Some(0)));
}

#[tokio::test]
async fn one_poison_job_does_not_block_its_partition() {
    let fixture = KafkaFixture::with(&format!("partitions=1&{CLASSIC}"));
    let killed = fixture.open().await;
    publish(&killed, &jobs(&fixture, 200)).await;
    let first = consumer(&killed).await;
    let poison = receive(&*first, 1).await;
    assert_eq!(done_exactly(&*first, 199).await.len(), 199);
    assert_eq!((depth(&killed).await.waiting(), depth(&killed).await.in_flight), (0, Some(1)));

    fixture.kill(killed).await;
    drop((poison, first));
    let process = fixture.open().await;
    publish(&process, &[job(&fixture, "after")]).await;
    let second = consumer(&process).await;
    assert_eq!(done_exactly(&*second, 2).await, ["job-0", "after"]);
    assert_eq!(depth(&process).await.waiting(), 0);
}

#[tokio::test]
async fn the_gauge_says_how_many_workers_can_work() {
    let fixture = KafkaFixture::with("partitions=3");
    let process = fixture.open().await;
    assert_eq!(depth(&process).await.max_consumers, Some(3));
    publish(&process, &jobs(&fixture, 1)).await;
    assert_eq!(depth(&process).await.max_consumers, Some(3));
}

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
        FutureRecord::to(&topic).payload("nobody knows"),
    ] {
        producer.send(record, Duration::from_secs(60)).await.unwrap();
    }
    let mut received = Vec::new();
    while received.len() < 3 {
        received.extend(receive(&*consumer, 3).await);
    }
    let bodies: Vec<_> = received.iter().map(|delivery| delivery.job.input.body.clone()).collect();
    let inline = |text: &'static str| Body::Inline(Bytes::from_static(text.as_bytes()));
    assert_eq!(bodies, [inline("jpeg"), inline(r#"{"a":1}"#), inline("nobody knows")]);
    let unreadable: Vec<_> = received.iter().map(|delivery| delivery.unreadable.clone()).collect();
    assert_eq!(unreadable, [None, None, Some("specversion: is missing".to_owned())]);
    done(&*consumer, received).await;
    assert_eq!(depth(&process).await.waiting(), 0);
}

fn refused<T>(result: Result<T>, kind: ErrorKind, what: &str) {
    let error: Error = result.err().unwrap();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(what), "{error}");
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
    assert_eq!(done_exactly(&*consumer(&process).await, 2).await, ["before", "after"]);
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
        ErrorKind::Refused,
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
        // It is found missing by the first that are published to it.
        while let Err(error) = producer.publish(&jobs(&fixture, 2)).await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
    };
    soon(again).await;
    assert_eq!(done_exactly(&*consumer(&process).await, 2).await, ["job-0", "job-1"]);
}

#[tokio::test]
async fn what_a_topic_or_group_risks_is_read_off_its_servers() {
    let fixture = KafkaFixture::with("partitions=1&group.protocol=consumer");
    let process = fixture.open().await;
    publish(&process, &jobs(&fixture, 1)).await;
    let admin: AdminClient<DefaultClientContext> = fixture.url.config(&[]).create().unwrap();
    let topic = fixture.url.topic(&pool(), Class::Standard);
    let group = fixture.url.group(&pool());
    let kept = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "-1");
    admin.alter_configs(&[kept], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let deadline = Some(Duration::from_secs(60));
    let expectation = PoolExpectation { pool: pool(), max_workers: 1, deadline, holding: None };
    let risks = soon(process.broker.risks(&[expectation])).await.unwrap();
    let found = |setting: &str| -> Vec<_> {
        let risks = risks.iter().filter(|risk| risk.setting == setting);
        risks.map(|risk| (&*risk.subject, &*risk.found)).collect()
    };
    assert_eq!(found("retention.ms"), [(&*topic, "-1")]);
    // The tests' servers have it short enough; only that they tell is to be seen here.
    assert_eq!(found("consumer.session.timeout.ms"), []);
    let of_group = admin.describe_configs([&ResourceSpecifier::Group(&group)], &AdminOptions::new()).await.unwrap();
    let session = of_group[0].as_ref().unwrap().get("consumer.session.timeout.ms").and_then(|at| at.value.clone());
    assert_eq!(session.as_deref(), Some("6000"));
    let why = &risks.iter().find(|risk| risk.setting == "retention.ms").unwrap().why;
    assert!(why.starts_with("10080 minutes after"), "{why}");
}

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
    refused(process.broker.producer().await, ErrorKind::Refused, "cannot open a producer");
}

/// The worker of the former membership is still at it when the next one has numbered its deliveries.
#[tokio::test]
async fn what_is_settled_after_its_consumer_has_joined_anew_settles_nothing_else() {
    let fixture = KafkaFixture::start();
    let process = fixture.open().await;
    let consumer = consumer(&process).await;
    publish(&process, &jobs(&fixture, 3)).await;
    let mut former = receive_exactly(&*consumer, 2).await;
    let last = former.pop().unwrap();
    done(&*consumer, former).await;

    fixture.consumers_meet(Event::Ended).await;
    let mut next = Vec::new();
    while next.len() < 2 {
        // Who waits while it joins is told so, and asks again.
        if let Ok(received) = soon(consumer.receive(2 - next.len())).await {
            next.extend(received);
        }
    }
    let ids: Vec<_> = next.iter().map(|delivery| delivery.job.id.to_string()).collect();
    assert_eq!(ids, ["job-1", "job-2"]);
    done(&*consumer, vec![last]).await;
    assert_eq!(waiting_and_held(&process).await, (0, Some(2)));
    done(&*consumer, next).await;
    assert_eq!(waiting_and_held(&process).await, (0, Some(0)));
}

#[tokio::test]
async fn what_is_settled_of_a_former_log_settles_nothing_of_the_next() {
    let fixture = KafkaFixture::start();
    let process = fixture.open().await;
    let consumer = consumer(&process).await;
    publish(&process, &jobs(&fixture, 2)).await;
    let former = receive_exactly(&*consumer, 2).await;
    fixture.consumers_meet(Event::LogsBegunAnew).await;
    let next = receive_exactly(&*consumer, 2).await;
    done(&*consumer, former).await;
    assert_eq!(waiting_and_held(&process).await, (0, Some(2)));
    done(&*consumer, next).await;
    assert_eq!(waiting_and_held(&process).await, (0, Some(0)));
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
    done(&*consumer, received).await;

    let nothing_waits = async {
        while depth(&process).await != (Depth { in_flight: Some(0), max_consumers: Some(1), ..Depth::default() }) {}
    };
    tokio::select! {
        () = soon(nothing_waits) => {}
        received = consumer.receive(1) => panic!("{:?} was taken back", received.unwrap()),
    }
}

/// A server of librdkafka's own that refuses what it is told to.
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
async fn a_worker_that_may_not_join_the_group_is_told_and_works_once_it_may() {
    let code = RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    let (server, fixture) = refusing(RDKafkaApiKey::FindCoordinator, code);
    let process = fixture.open().await;
    let consumer = consumer(&process).await;
    for _ in 0..2 {
        refused(soon(consumer.receive(1)).await, ErrorKind::Refused, "receive from the pool resnet50: FindCoordinator");
    }
    server.clear_request_errors(RDKafkaApiKey::FindCoordinator);
    publish(&process, &jobs(&fixture, 1)).await;
    let works = async {
        loop {
            match consumer.receive(1).await {
                Ok(received) => break done(&*consumer, received).await,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Refused, "{error}"),
            }
        }
    };
    soon(works).await;
}

#[tokio::test]
async fn a_group_that_does_not_say_where_its_partitions_were_left_is_named() {
    let code = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    let (_server, fixture) = refusing(RDKafkaApiKey::OffsetFetch, code);
    let process = fixture.open().await;
    let consumer = consumer(&process).await;
    refused(soon(consumer.receive(1)).await, ErrorKind::Refused, "cannot take over partitions");
}
