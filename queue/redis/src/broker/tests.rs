//! Tests of this broker beyond the contract.

use std::collections::HashSet;

use redis::{Value, cmd};

use super::*;
use crate::connection::private::PrivateRedis;
use crate::fixture::RedisFixture;
use queue::{Body, Class, Clock};
use queue_contract::{DEAD_AFTER, Fixture as _, job, jobs, pool, soon};

type Field<'a> = (&'a str, &'a [u8]);

/// Publishes an entry of the class `standard`, like an outside producer without this library.
async fn add(redis: &Redis, fields: &[Field<'_>]) {
    let mut command = cmd("XADD");
    command.arg(redis.key("stream:resnet50:standard")).arg("*");
    for (name, value) in fields {
        command.arg(name).arg(value);
    }
    redis.run::<String>("add", &command).await.unwrap();
}

async fn receive(consumer: &dyn Consumer, max: usize) -> Vec<Delivery> {
    soon(consumer.receive(max)).await.unwrap()
}

/// The names of the consumers in the group of the class standard.
async fn members(redis: &Redis) -> Vec<String> {
    let mut command = cmd("XINFO");
    command.arg("CONSUMERS").arg(redis.key("stream:resnet50:standard")).arg(streams::GROUP);
    let members: Vec<std::collections::HashMap<String, Value>> = redis.run("list", &command).await.unwrap();
    members.into_iter().map(|mut of| entry::text(of.remove("name").unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn an_outside_producer_needs_no_library_of_ours() {
    let fixture = RedisFixture::start();
    let (process, redis) = (fixture.open().await, fixture.redis());
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    let mut receiving = consumer.receive(1);
    assert!(futures::poll!(&mut receiving).is_pending());
    let of_event = [("specversion", "1.0"), ("source", "/cameras/7"), ("id", "1"), ("type", "shot")];
    let mut fields: Vec<_> = of_event.map(|(name, value)| (format!("ce_{name}"), value.as_bytes())).into();
    fields.push(("data".to_owned(), b"\xff\xd8"));
    add(&redis, &fields.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>()).await;
    let received = soon(receiving).await.unwrap();
    assert_eq!(received[0].job.input.body, Body::Inline(vec![0xff, 0xd8].into()));
    assert_eq!(
        (received[0].job.class, received[0].redelivered, &received[0].unreadable),
        (Class::Standard, false, &None)
    );

    let structured =
        br#"{"specversion":"1.0","source":"/s","id":"2","type":"t","data":"hi","datacontenttype":"text/plain"}"#;
    add(&redis, &[("content-type", b"application/cloudevents+json; charset=utf-8"), ("data", structured)]).await;
    let received = receive(&*consumer, 1).await;
    assert_eq!(received[0].job.input.body, Body::Inline("hi".into()));
}

#[tokio::test]
async fn an_unreadable_entry_is_the_same_job_with_each_delivery() {
    let fixture = RedisFixture::start();
    let (process, redis) = (fixture.open().await, fixture.redis());
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    add(&redis, &[("ce_specversion", b"1.0"), ("ce_source", b"\xff"), ("data", b"?")]).await;
    let mut ids = HashSet::new();
    for round in 0..3 {
        let received = receive(&*consumer, 1).await;
        let [delivery] = &received[..] else { panic!("{} deliveries", received.len()) };
        assert!(delivery.unreadable.as_ref().unwrap().contains("source: is not UTF-8"));
        assert_eq!((&delivery.job.input.body, delivery.redelivered), (&Body::Inline("?".into()), round > 0));
        ids.insert(delivery.job.id.clone());
    }
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn ten_kinds_of_hostile_entries_are_unreadable_and_the_pool_continues() {
    let fixture = RedisFixture::start();
    let (process, redis) = (fixture.open().await, fixture.redis());
    let event: [Field; 3] = [("ce_specversion", b"1.0"), ("ce_source", b"/cameras/7"), ("ce_id", b"1")];
    let deep = format!("{{\"id\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let structured: Field = ("content-type", b"application/cloudevents+json");
    let hostile: [(&[Field], &str); 10] = [
        (&[("data", b"?")], "specversion: is missing"),
        (&[("", b"")], "specversion: is missing"),
        (&[structured], "not a structured event: "),
        (&[structured, ("data", deep.as_bytes())], "id: is not a text, number or boolean"),
        (&[structured, ("data", br#"{"data_base64":"?"}"#)], "data_base64: is not base64"),
        (&[("ce_specversion", b"0.3")], "specversion: \"0.3\" is not 1.0"),
        (&[("ce_type", b"\xff")], "type: is not UTF-8"),
        (&[("ce_expirytime", b"soon")], "expirytime: \"soon\" is not an RFC 3339 time"),
        (&[("ce_maxattempts", b"0")], "maxattempts: \"0\" is not a number of at least 1"),
        (&[("ce_type", b"millrace.job.failed")], "type: \"millrace.job.failed\" is the ending of a job"),
    ];
    for (fields, _) in hostile {
        let is_event = fields[0].0.starts_with("ce_");
        // Of two fields with the same name, the first one counts.
        add(&redis, &[fields, if is_event { &event[..] } else { &[] }].concat()).await;
    }
    add(&redis, &[&event[..], &[("caf\u{e9}", b"\xe9"), ("data", b"jpeg")]].concat()).await;
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    let mut received = Vec::new();
    while received.len() < 11 {
        received.extend(receive(&*consumer, 11 - received.len()).await);
    }
    for (delivery, (_, reason)) in received.iter().zip(hostile) {
        let found = delivery.unreadable.as_deref().unwrap_or_default();
        assert!(found.starts_with(reason), "{found:?} instead of {reason:?}");
    }
    assert_eq!((&received[10].unreadable, &received[10].job.input.body), (&None, &Body::Inline("jpeg".into())));
}

#[tokio::test]
async fn one_answer_has_a_few_mebibytes_of_big_entries() {
    let fixture = RedisFixture::start();
    let process = fixture.open().await;
    let all = jobs(&fixture, 64).into_iter().map(|mut job| {
        job.input.body = Body::Inline(vec![0; 256 * 1024].into());
        job
    });
    let all = all.collect::<Vec<_>>();
    for some in all.chunks(8) {
        process.broker.producer().await.unwrap().publish(some).await.unwrap();
    }
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    let mut received = Vec::new();
    while received.len() < 64 {
        let part = receive(&*consumer, 64 - received.len()).await;
        // 4 MiB, and at most the entry that woke the consumer.
        assert!(part.len() <= 17, "{} deliveries", part.len());
        received.extend(part);
    }
    let ids: Vec<_> = received.iter().map(|delivery| &delivery.job.id).collect();
    assert_eq!(ids, all.iter().map(|job| &job.id).collect::<Vec<_>>());
}

#[tokio::test]
async fn consumers_that_left_or_were_killed_do_not_stay_in_the_group() {
    let fixture = RedisFixture::start();
    let (killed, process, redis) = (fixture.open().await, fixture.open().await, fixture.redis());
    process.broker.producer().await.unwrap().publish(&jobs(&fixture, 3)).await.unwrap();
    let of_killed = killed.broker.consumer(&pool()).await.unwrap();
    let held = receive(&*of_killed, 1).await;
    fixture.kill(killed).await;
    drop((held, of_killed));
    let leaving = process.broker.consumer(&pool()).await.unwrap();
    let left = receive(&*leaving, 1).await;
    drop(leaving);
    let staying = process.broker.consumer(&pool()).await.unwrap();
    let mut arrived = HashSet::new();
    fixture.advance(DEAD_AFTER).await;
    while arrived.len() < 3 {
        let received = receive(&*staying, 3).await;
        arrived.extend(received.iter().map(|delivery| delivery.job.id.clone()));
        let done = received.into_iter().map(|delivery| (delivery, Settlement::Ack)).collect();
        staying.settle(done).await.unwrap();
    }
    drop(left);
    assert_eq!(members(&redis).await.len(), 1);
}

#[tokio::test]
async fn a_consumer_that_holds_a_delivery_for_long_does_not_expire() {
    let fixture = RedisFixture::start();
    let process = fixture.open().await;
    process.broker.producer().await.unwrap().publish(&jobs(&fixture, 1)).await.unwrap();
    let holding = process.broker.consumer(&pool()).await.unwrap();
    let held = receive(&*holding, 1).await;
    let other = process.broker.consumer(&pool()).await.unwrap();
    // There is no signal for an event that must not happen. So this waits longer than a heartbeat is valid.
    let patience = session::HEARTBEAT_TIMEOUT + std::time::Duration::from_secs(3);
    assert!(tokio::time::timeout(patience, other.receive(1)).await.is_err());
    holding.settle(held.into_iter().map(|delivery| (delivery, Settlement::Ack)).collect()).await.unwrap();
}

#[tokio::test]
async fn consumers_that_were_delayed_together_keep_their_deliveries() {
    let fixture = RedisFixture::start();
    let processes = [fixture.open().await, fixture.open().await, fixture.open().await];
    processes[0].broker.producer().await.unwrap().publish(&jobs(&fixture, 3)).await.unwrap();
    let (mut consumers, mut held) = (Vec::new(), Vec::new());
    for process in &processes {
        let consumer = process.broker.consumer(&pool()).await.unwrap();
        held.push(receive(&*consumer, 1).await);
        consumers.push(consumer);
    }
    // As after an outage of the server: the last heartbeat of each consumer is too old.
    fixture.advance(session::HEARTBEAT_TIMEOUT * 2).await;
    // There is no signal for an event that must not happen. So this waits for some heartbeats of each consumer.
    let receiving = futures::future::select_all(consumers.iter().map(|consumer| consumer.receive(1)));
    let received = tokio::time::timeout(session::HEARTBEAT_TIMEOUT, receiving).await;
    assert!(received.is_err(), "a delivery of a consumer that was alive was delivered again");
    for (consumer, held) in consumers.iter().zip(held) {
        consumer.settle(held.into_iter().map(|delivery| (delivery, Settlement::Ack)).collect()).await.unwrap();
    }
}

#[tokio::test]
async fn an_entry_whose_answer_was_lost_is_delivered_again() {
    let fixture = RedisFixture::start();
    let (process, redis) = (fixture.open().await, fixture.redis());
    let producer = process.broker.producer().await.unwrap();
    producer.publish(&jobs(&fixture, 1)).await.unwrap();
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    let held = receive(&*consumer, 1).await;
    producer.publish(&[job(&fixture, "lost")]).await.unwrap();
    let member = members(&redis).await.remove(0);
    let mut taking = cmd("XREADGROUP");
    taking.arg("GROUP").arg(streams::GROUP).arg(member).arg("STREAMS");
    taking.arg(redis.key("stream:resnet50:standard")).arg(">");
    assert_ne!(redis.run::<Value>("take", &taking).await.unwrap(), Value::Nil);
    let received = receive(&*consumer, 2).await;
    assert_eq!((received.len(), received[0].job.id.as_str(), received[0].redelivered), (1, "lost", true));
    assert_eq!(held[0].job.id.as_str(), "job-0");
}

#[tokio::test]
async fn a_consumer_continues_when_its_streams_are_deleted() {
    let fixture = RedisFixture::start();
    let (process, redis) = (fixture.open().await, fixture.redis());
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    let mut receiving = consumer.receive(1);
    assert!(futures::poll!(&mut receiving).is_pending());
    let streams = streams::Streams::of(&redis, &pool());
    let mut deleting = cmd("DEL");
    deleting.arg(&streams.keys);
    // The streams and the heartbeats exist once the consumer has read the streams.
    soon(async { while redis.run::<usize>("delete", &deleting).await.unwrap() <= streams::COUNT {} }).await;
    process.broker.producer().await.unwrap().publish(&jobs(&fixture, 1)).await.unwrap();
    assert_eq!(soon(receiving).await.unwrap().len(), 1);
}

#[tokio::test]
async fn waiting_jobs_can_be_taken_and_settled_when_memory_is_full() {
    let server = PrivateRedis::started(&["--maxmemory", "6mb"]);
    let url = format!("redis://{}", server.address()).parse().unwrap();
    let broker = RedisBroker::new(Redis::open(&url, Clock::default()).unwrap());
    let fixture = RedisFixture::start();
    let big = |number: usize| {
        let mut job = job(&fixture, &format!("job-{number}"));
        job.input.body = Body::Inline(vec![0; 100_000].into());
        job
    };
    let producer = broker.producer().await.unwrap();
    let mut published = 0;
    let error = loop {
        match producer.publish(&[big(published)]).await {
            Ok(()) => published += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    let consumer = broker.consumer(&pool()).await.unwrap();
    // The deliveries are requeued first, which moves each entry.
    let held = receive(&*consumer, published).await;
    consumer.settle(held.into_iter().map(|delivery| (delivery, Settlement::Requeue)).collect()).await.unwrap();
    let mut taken = 0;
    while taken < published {
        let received = receive(&*consumer, published).await;
        taken += received.len();
        consumer.settle(received.into_iter().map(|delivery| (delivery, Settlement::Ack)).collect()).await.unwrap();
    }
    producer.publish(&[big(published)]).await.unwrap();
}

#[tokio::test]
async fn a_pool_that_cannot_be_read_does_not_hide_the_others() {
    let fixture = RedisFixture::start();
    let (process, redis) = (fixture.open().await, fixture.redis());
    process.broker.producer().await.unwrap().publish(&jobs(&fixture, 2)).await.unwrap();
    let mut overwrite = cmd("SET");
    overwrite.arg(redis.key("stream:bert:standard")).arg("no stream");
    redis.run::<()>("overwrite", &overwrite).await.unwrap();
    let gauge = process.broker.gauge().await.unwrap();
    let mut depths = gauge.depths(&["bert".parse().unwrap(), pool()]).await;
    assert_eq!(depths.remove(1).unwrap().waiting(), 2);
    let error = depths.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("bert") && error.to_string().contains("WRONGTYPE"), "{error}");
}

#[tokio::test]
async fn after_a_panic_of_its_task_a_consumer_has_ended() {
    let (requests, _) = tokio::sync::mpsc::unbounded_channel();
    let consumer = RedisConsumer { requests };
    assert_eq!(consumer.receive(1).await.unwrap_err().kind(), ErrorKind::Ended);
    assert_eq!(consumer.settle(Vec::new()).await.unwrap_err().kind(), ErrorKind::Ended);
}
