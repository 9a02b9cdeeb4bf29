//! The promises of every broker.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::poll;
use jiff::Timestamp;

use crate::{DEAD_AFTER, Fixture, job, jobs, pool, soon};
use queue::{Backend, BlobRef, Body, Class, Consumer, Delivery, Depth, Job, Origin, PoolName, Settlement};

/// Makes one test per promise of a broker; the argument makes a [`Fixture`] for each.
#[macro_export]
macro_rules! broker_contract {
    ($fixture:expr) => {
        $crate::promises! {
            $fixture,
            broker,
            a_published_job_is_received_with_every_field_intact
            a_job_that_one_process_publishes_is_received_by_another
            a_published_job_survives_reopening
            a_publish_of_many_jobs_is_all_there
            publishing_nothing_changes_nothing
            a_job_published_twice_is_delivered_twice
            deliveries_come_by_class_then_in_the_order_of_publication
            receive_gives_between_one_and_max_deliveries
            a_waiting_receive_is_woken_by_a_publish
            a_waiting_receive_is_woken_by_a_requeued_delivery
            two_consumers_never_hold_the_same_delivery
            an_acknowledged_delivery_is_never_delivered_again
            a_first_delivery_is_not_redelivered
            a_requeued_delivery_is_delivered_again_before_later_ones
            a_dropped_delivery_is_delivered_again_before_later_ones
            a_dropped_receive_loses_nothing
            a_consumer_that_leaves_requeues_its_deliveries
            the_deliveries_of_a_killed_process_are_delivered_again
            a_stale_settle_does_not_touch_a_later_delivery
            depth_counts_waiting_by_class_and_in_flight_and_knows_the_oldest
            a_reading_of_the_depth_changes_nothing
            a_pool_without_published_jobs_is_empty
            pools_are_separate
            depths_of_many_pools_come_in_one_call_in_order
            a_gauge_counts_a_pool_that_is_new
        }
    };
}

async fn consumer(process: &Backend) -> Arc<dyn Consumer> {
    process.broker.consumer(&pool()).await.unwrap()
}

async fn publish(process: &Backend, jobs: &[Job]) {
    process.broker.producer().await.unwrap().publish(jobs).await.unwrap();
}

async fn depth(process: &Backend) -> Depth {
    process.broker.gauge().await.unwrap().depths(&[pool()]).await.remove(0).unwrap()
}

async fn settle_all(consumer: &dyn Consumer, deliveries: Vec<Delivery>, how: Settlement) {
    consumer.settle(deliveries.into_iter().map(|delivery| (delivery, how)).collect()).await.unwrap();
}

async fn receive(consumer: &dyn Consumer, max: usize) -> Vec<Delivery> {
    soon(consumer.receive(max)).await.unwrap()
}

/// Exactly `count` deliveries, in any number of calls.
async fn receive_exactly(consumer: &dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        deliveries.extend(receive(consumer, count - deliveries.len()).await);
    }
    deliveries
}

/// Exactly `count` deliveries, and the index of their consumer: the first, unless the broker chooses one.
async fn receive_by_one(
    fixture: &dyn Fixture,
    consumers: &[Arc<dyn Consumer>],
    count: usize,
) -> (Arc<dyn Consumer>, Vec<Delivery>) {
    let candidates = if fixture.any_consumer_gets_any_delivery() { &consumers[..1] } else { consumers };
    let receiving = candidates.iter().map(|consumer| Box::pin(receive_exactly(&**consumer, count)));
    let (deliveries, index, _) = futures::future::select_all(receiving).await;
    (Arc::clone(&candidates[index]), deliveries)
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.job.id.as_str()).collect()
}

pub async fn a_published_job_is_received_with_every_field_intact(fixture: &dyn Fixture) {
    let blob = BlobRef {
        key: "input/x/1".to_owned(),
        size_bytes: Some(1 << 33),
        sha256: Some("ab".repeat(32)),
        is_borrowed: false,
    };
    let bodies = [
        Body::Inline(Bytes::new()),
        Body::Inline(Bytes::from_static(&[0])),
        Body::Inline(Bytes::from_static(&[0xff, 0xfe, 0x00, 0xc3, 0x28])),
        Body::Inline((0..200 * 1024).map(|index: u32| (index % 251) as u8).collect()),
        Body::Reference(blob),
    ];
    let mut published = Vec::new();
    for (number, body) in bodies.into_iter().enumerate() {
        let mut job = job(fixture, &format!("A.b_c~d:e-{number}"));
        job.input.body = body;
        job.input.media_type = "image/jpeg; name=\"größer\"".to_owned();
        job.created_at = Timestamp::from_millisecond(1_712_345_678_901).unwrap();
        published.push(job);
    }
    let base = published[0].clone();
    for class in Class::ALL {
        published.push(Job { id: class.as_str().parse().unwrap(), class, ..base.clone() });
    }
    published.push(Job {
        id: "full".parse().unwrap(),
        deadline_at: Some(Timestamp::from_millisecond(1_912_345_678_901).unwrap()),
        max_attempts: u32::MAX,
        retention: Duration::from_millis(86_400_001),
        trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        origin: Some(Origin { source: "/cameras/7".to_owned(), id: "größer 1".to_owned() }),
        ..base.clone()
    });
    published.push(Job { id: "x".repeat(128).parse().unwrap(), max_attempts: 1, retention: Duration::ZERO, ..base });

    let process = fixture.open().await;
    publish(&process, &published).await;
    let received = receive_exactly(&*consumer(&process).await, published.len()).await;
    for job in &published {
        let found = received.iter().find(|delivery| delivery.job.id == job.id).unwrap();
        assert_eq!(&found.job, job);
    }
}

pub async fn a_job_that_one_process_publishes_is_received_by_another(fixture: &dyn Fixture) {
    let (one, another) = (fixture.open().await, fixture.open().await);
    publish(&one, &jobs(fixture, 2)).await;
    assert_eq!(ids(&receive_exactly(&*consumer(&another).await, 2).await), ["job-0", "job-1"]);
}

pub async fn a_published_job_survives_reopening(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    publish(&process, &jobs(fixture, 3)).await;
    fixture.kill(process).await;
    let process = fixture.open().await;
    assert_eq!(ids(&receive_exactly(&*consumer(&process).await, 3).await), ["job-0", "job-1", "job-2"]);
}

pub async fn a_publish_of_many_jobs_is_all_there(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    publish(&process, &jobs(fixture, 2_000)).await;
    assert_eq!(depth(&process).await.waiting(), 2_000);
    let received = receive_exactly(&*consumer(&process).await, 2_000).await;
    assert_eq!(ids(&received).into_iter().collect::<HashSet<_>>().len(), 2_000);
}

pub async fn publishing_nothing_changes_nothing(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    publish(&process, &[]).await;
    assert_eq!(depth(&process).await.waiting(), 0);
}

pub async fn a_job_published_twice_is_delivered_twice(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    publish(&process, &jobs(fixture, 1)).await;
    publish(&process, &jobs(fixture, 1)).await;
    assert_eq!(ids(&receive_exactly(&*consumer(&process).await, 2).await), ["job-0", "job-0"]);
}

pub async fn deliveries_come_by_class_then_in_the_order_of_publication(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    for (id, class) in [
        ("batch-1", Class::Batch),
        ("standard-1", Class::Standard),
        ("premium-1", Class::Premium),
        ("batch-2", Class::Batch),
        ("premium-2", Class::Premium),
        ("standard-2", Class::Standard),
    ] {
        publish(&process, &[Job { class, ..job(fixture, id) }]).await;
    }
    let consumer = consumer(&process).await;
    let mut received = Vec::new();
    for _ in 0..3 {
        received.extend(receive_exactly(&*consumer, 2).await);
    }
    assert_eq!(ids(&received), ["premium-1", "premium-2", "standard-1", "standard-2", "batch-1", "batch-2"]);
}

pub async fn receive_gives_between_one_and_max_deliveries(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    publish(&process, &jobs(fixture, 10)).await;
    let consumer = consumer(&process).await;
    let (mut received, mut max) = (Vec::new(), 0);
    while received.len() < 10 {
        max += 1;
        let some = receive(&*consumer, max).await;
        assert!((1..=max).contains(&some.len()), "{} of at most {max}", some.len());
        received.extend(some);
    }
}

/// Each round waits for a signal. With an interval instead, two hundred rounds would take too long.
pub async fn a_waiting_receive_is_woken_by_a_publish(fixture: &dyn Fixture) {
    let (one, another) = (fixture.open().await, fixture.open().await);
    let (producer, consumer) = (one.broker.producer().await.unwrap(), consumer(&another).await);
    let rounds = async {
        for round in 0..200 {
            let mut receiving = consumer.receive(1);
            assert!(poll!(&mut receiving).is_pending());
            producer.publish(&[job(fixture, &format!("job-{round}"))]).await.unwrap();
            settle_all(&*consumer, receiving.await.unwrap(), Settlement::Ack).await;
        }
    };
    soon(rounds).await;
}

pub async fn a_waiting_receive_is_woken_by_a_requeued_delivery(fixture: &dyn Fixture) {
    let (one, another) = (fixture.open().await, fixture.open().await);
    let (first, second) = (consumer(&one).await, consumer(&another).await);
    publish(&one, &jobs(fixture, 1)).await;
    let (holder, held) = receive_by_one(fixture, &[first, Arc::clone(&second)], 1).await;
    let waiting = if fixture.any_consumer_gets_any_delivery() { second } else { Arc::clone(&holder) };
    let mut receiving = waiting.receive(1);
    assert!(poll!(&mut receiving).is_pending());
    settle_all(&*holder, held, Settlement::Requeue).await;
    assert!(soon(receiving).await.unwrap()[0].redelivered);
}

pub async fn two_consumers_never_hold_the_same_delivery(fixture: &dyn Fixture) {
    const JOBS: usize = 300;
    let (one, another) = (fixture.open().await, fixture.open().await);
    publish(&one, &jobs(fixture, JOBS)).await;
    let consumers = [consumer(&one).await, consumer(&one).await, consumer(&another).await, consumer(&another).await];
    let mut receiving: Vec<_> = consumers.iter().map(|consumer| consumer.receive(7)).collect();
    let mut held = Vec::new();
    while held.len() < JOBS {
        let (some, index, _) = soon(futures::future::select_all(&mut receiving)).await;
        held.extend(some.unwrap());
        receiving[index] = consumers[index].receive(7);
    }
    assert_eq!(ids(&held).into_iter().collect::<HashSet<_>>().len(), JOBS);
    assert_eq!(depth(&one).await.waiting(), 0);
}

pub async fn an_acknowledged_delivery_is_never_delivered_again(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    publish(&process, &jobs(fixture, 3)).await;
    let first = consumer(&process).await;
    let held = receive_exactly(&*first, 3).await;
    settle_all(&*first, held, Settlement::Ack).await;
    assert_eq!(depth(&process).await.waiting(), 0);
    drop(first);
    fixture.give_up_on_consumers().await;
    fixture.kill(process).await;

    let process = fixture.open().await;
    publish(&process, &[job(fixture, "marker")]).await;
    assert_eq!(ids(&receive(&*consumer(&process).await, 10).await), ["marker"]);
}

pub async fn a_first_delivery_is_not_redelivered(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    publish(&process, &jobs(fixture, 3)).await;
    for delivery in receive_exactly(&*consumer(&process).await, 3).await {
        assert!(!delivery.redelivered);
    }
}

pub async fn a_requeued_delivery_is_delivered_again_before_later_ones(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    publish(&process, &jobs(fixture, 3)).await;
    let consumer = consumer(&process).await;
    let held = receive(&*consumer, 1).await;
    settle_all(&*consumer, held, Settlement::Requeue).await;
    let received = receive_exactly(&*consumer, 3).await;
    assert_eq!(ids(&received), ["job-0", "job-1", "job-2"]);
    assert_eq!(received.iter().map(|delivery| delivery.redelivered).collect::<Vec<_>>(), [true, false, false]);
}

pub async fn a_dropped_delivery_is_delivered_again_before_later_ones(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    publish(&process, &jobs(fixture, 1)).await;
    let consumer = consumer(&process).await;
    drop(receive(&*consumer, 1).await);
    let again = receive(&*consumer, 1).await;
    assert_eq!((ids(&again), again[0].redelivered), (vec!["job-0"], true));
    publish(&process, &[job(fixture, "job-1"), job(fixture, "job-2")]).await;
    drop(again);
    let again = receive(&*consumer, 1).await;
    assert_eq!((ids(&again), again[0].redelivered), (vec!["job-0"], true));
}

pub async fn a_dropped_receive_loses_nothing(fixture: &dyn Fixture) {
    const JOBS: usize = 100;
    let process = fixture.open().await;
    publish(&process, &jobs(fixture, JOBS)).await;
    let consumer = consumer(&process).await;
    let mut arrived = HashSet::new();
    let mut patience = 0;
    while arrived.len() < JOBS {
        // The rounds drop the receive later and later, so they cover every moment of it. Some rounds complete it.
        patience = (patience + 7) % 2_000;
        let mut receiving = consumer.receive(3);
        let mut received = None;
        for _ in 0..patience {
            match poll!(&mut receiving) {
                std::task::Poll::Ready(some) => {
                    received = Some(some.unwrap());
                    break;
                }
                std::task::Poll::Pending => tokio::task::yield_now().await,
            }
        }
        drop(receiving);
        for delivery in received.into_iter().flatten() {
            assert!(
                arrived.insert(delivery.job.id.clone()),
                "{} was delivered after it was acknowledged",
                delivery.job.id
            );
            settle_all(&*consumer, vec![delivery], Settlement::Ack).await;
        }
    }
}

pub async fn a_consumer_that_leaves_requeues_its_deliveries(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    publish(&process, &jobs(fixture, 2)).await;
    let leaving = consumer(&process).await;
    let held = receive_exactly(&*leaving, 2).await;
    drop(leaving);
    let staying = consumer(&process).await;
    let received = receive_exactly(&*staying, 2).await;
    assert_eq!(ids(&received), ["job-0", "job-1"]);
    assert!(received.iter().all(|delivery| delivery.redelivered));
    drop(held);
    settle_all(&*staying, received, Settlement::Ack).await;
    let found = depth(&process).await;
    let (in_flight, max_consumers) = (found.in_flight.map(|_| 0), found.max_consumers);
    assert_eq!(found, Depth { in_flight, max_consumers, ..Depth::default() });
}

pub async fn the_deliveries_of_a_killed_process_are_delivered_again(fixture: &dyn Fixture) {
    let (killed, survivor) = (fixture.open().await, fixture.open().await);
    publish(&survivor, &jobs(fixture, 3)).await;
    let consuming = consumer(&killed).await;
    let held = receive_exactly(&*consuming, 2).await;
    fixture.kill(killed).await;
    drop((held, consuming));

    let consumer = consumer(&survivor).await;
    fixture.advance(DEAD_AFTER).await;
    let mut arrived = HashSet::new();
    while arrived.len() < 3 {
        let received = receive(&*consumer, 3).await;
        for delivery in &received {
            assert_eq!(delivery.redelivered, delivery.job.id.as_str() != "job-2");
            assert!(arrived.insert(delivery.job.id.clone()));
        }
        settle_all(&*consumer, received, Settlement::Ack).await;
    }
}

pub async fn a_stale_settle_does_not_touch_a_later_delivery(fixture: &dyn Fixture) {
    let (one, another) = (fixture.open().await, fixture.open().await);
    publish(&one, &jobs(fixture, 3)).await;
    let (first, second) = (consumer(&one).await, consumer(&another).await);
    let (former, stale) = receive_by_one(fixture, &[Arc::clone(&first), Arc::clone(&second)], 3).await;
    let mut stale = stale.into_iter();
    fixture.give_up_on_consumers().await;
    let (holder, held) = receive_by_one(fixture, &[second, first], 3).await;

    let (first, second) = (stale.next().unwrap(), stale.next().unwrap());
    former.settle(vec![(first, Settlement::Ack), (second, Settlement::Requeue)]).await.unwrap();
    drop(stale);
    // The consumer handles this after the drop, because both are in its queue.
    former.settle(Vec::new()).await.unwrap();
    // A broker may count late which deliveries are in flight again.
    soon(async { while depth(&one).await.waiting() > 0 {} }).await;

    settle_all(&*holder, held, Settlement::Requeue).await;
    assert_eq!(ids(&receive_exactly(&*holder, 3).await), ["job-0", "job-1", "job-2"]);
}

pub async fn depth_counts_waiting_by_class_and_in_flight_and_knows_the_oldest(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    let before = fixture.now();
    publish(&process, &[Job { class: Class::Batch, ..job(fixture, "first") }]).await;
    let after = fixture.now();
    fixture.advance(Duration::from_secs(1)).await;
    publish(&process, &[job(fixture, "second"), job(fixture, "third")]).await;
    publish(&process, &[Job { class: Class::Premium, ..job(fixture, "fourth") }]).await;

    let found = depth(&process).await;
    assert_eq!(found.waiting_by_class, [1, 2, 1]);
    assert_eq!((found.waiting(), found.waiting_of(Class::Standard)), (4, 2));
    assert!(found.in_flight.is_none_or(|held| held == 0));
    if fixture.knows_the_oldest() {
        assert!(found.oldest_waiting_at.is_some_and(|oldest| (before..=after).contains(&oldest)));
    } else {
        assert_eq!(found.oldest_waiting_at, None);
    }

    let consumer = consumer(&process).await;
    let held = receive_exactly(&*consumer, 3).await;
    let found = depth(&process).await;
    assert_eq!(found.waiting_by_class, [0, 0, 1]);
    assert!(found.in_flight.is_none_or(|held| held == 3));

    settle_all(&*consumer, held, Settlement::Ack).await;
    let found = depth(&process).await;
    assert_eq!(found.waiting(), 1);
    assert!(found.in_flight.is_none_or(|held| held == 0));
}

pub async fn a_reading_of_the_depth_changes_nothing(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    publish(&process, &jobs(fixture, 2)).await;
    let first = depth(&process).await;
    for _ in 0..10 {
        assert_eq!(depth(&process).await, first);
    }
    let received = receive_exactly(&*consumer(&process).await, 2).await;
    assert!(received.iter().all(|delivery| !delivery.redelivered));
}

pub async fn a_pool_without_published_jobs_is_empty(fixture: &dyn Fixture) {
    let found = depth(&fixture.open().await).await;
    assert_eq!((found.waiting(), found.oldest_waiting_at), (0, None));
    assert!(found.in_flight.is_none_or(|held| held == 0));
}

pub async fn pools_are_separate(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    let other: PoolName = "bert".parse().unwrap();
    publish(&process, &[job(fixture, "ours"), Job { pool: other.clone(), ..job(fixture, "theirs") }]).await;
    assert_eq!(ids(&receive(&*consumer(&process).await, 10).await), ["ours"]);
    assert_eq!(
        process.broker.gauge().await.unwrap().depths(std::slice::from_ref(&other)).await.remove(0).unwrap().waiting(),
        1
    );
    let theirs = process.broker.consumer(&other).await.unwrap();
    let received = receive(&*theirs, 10).await;
    assert_eq!((ids(&received), &received[0].job.pool), (vec!["theirs"], &other));
}

pub async fn depths_of_many_pools_come_in_one_call_in_order(fixture: &dyn Fixture) {
    const POOLS: usize = 40;
    let process = fixture.open().await;
    let pools: Vec<PoolName> = (0..POOLS).map(|number| format!("pool-{number}").parse().unwrap()).collect();
    // Every fourth pool has jobs: one, two, three and so on.
    let of = |number: usize| if number % 4 == 1 { number / 4 + 1 } else { 0 };
    let mut published = Vec::new();
    for (number, pool) in pools.iter().enumerate() {
        for copy in 0..of(number) {
            let class = Class::ALL[copy % 3];
            published.push(Job { pool: pool.clone(), class, ..job(fixture, &format!("job-{number}-{copy}")) });
        }
    }
    publish(&process, &published).await;
    let gauge = process.broker.gauge().await.unwrap();
    let asked: Vec<_> = pools.iter().rev().chain([&pools[1]]).cloned().collect();
    // The first reading finds the queues that exist; the second one uses that knowledge.
    for _ in 0..2 {
        let found: Vec<Depth> = gauge.depths(&asked).await.into_iter().map(|depth| depth.unwrap()).collect();
        assert_eq!(found.len(), POOLS + 1);
        for (number, depth) in (0..POOLS).rev().chain([1]).zip(&found) {
            let by_class = [0, 1, 2].map(|class| (of(number) as u64 + 2 - class) / 3);
            assert_eq!(depth.waiting_by_class, by_class, "pool-{number}");
            assert!(depth.in_flight.is_none_or(|held| held == 0));
        }
    }
    assert!(gauge.depths(&[]).await.is_empty());
}

pub async fn a_gauge_counts_a_pool_that_is_new(fixture: &dyn Fixture) {
    let (one, another) = (fixture.open().await, fixture.open().await);
    let pools = [pool(), "bert".parse().unwrap(), "gpt-2".parse().unwrap(), "t5".parse().unwrap()];
    let gauge = another.broker.gauge().await.unwrap();
    let waiting = async || {
        let depths = gauge.depths(&pools).await.into_iter();
        depths.map(|depth| depth.unwrap().waiting()).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        assert_eq!(waiting().await, [0, 0, 0, 0]);
    }
    publish(&one, &jobs(fixture, 3)).await;
    assert_eq!(waiting().await, [3, 0, 0, 0]);
    publish(&one, &[Job { pool: pools[3].clone(), ..job(fixture, "other") }]).await;
    for _ in 0..2 {
        assert_eq!(waiting().await, [3, 0, 0, 1]);
    }
}
