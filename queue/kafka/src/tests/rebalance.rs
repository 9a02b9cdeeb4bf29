//! Members that join, leave or are killed, and settlements that come late.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::{
    CLASSIC, acknowledge, consumer, depth, publish, receive, receive_and_acknowledge, receive_exactly, refused,
    waiting_and_in_flight,
};
use crate::command::InjectedEvent;
use crate::fixture::KafkaFixture;
use queue::{Class, Consumer, Delivery, ErrorKind, Job};
use queue_contract::{Fixture, job, jobs, pool, soon};

/// How often each job was delivered, and which are acknowledged.
#[derive(Default)]
struct Tally {
    deliveries: HashMap<String, usize>,
    acknowledged: HashSet<String>,
}

impl Tally {
    fn count(&mut self, received: &[Delivery]) {
        for delivery in received {
            let id = delivery.job.id.to_string();
            assert!(!self.acknowledged.contains(&id), "{id} came after it was acknowledged");
            *self.deliveries.entry(id).or_default() += 1;
        }
    }

    /// Receives and acknowledges one batch.
    async fn work(&mut self, consumer: &dyn Consumer) {
        let received = receive(consumer, 32).await;
        self.count(&received);
        self.acknowledged.extend(received.iter().map(|delivery| delivery.job.id.to_string()));
        acknowledge(consumer, received).await;
    }
}

/// One worker runs and another joins. Then the first leaves while it holds deliveries. Jobs always wait meanwhile.
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
    while tally.acknowledged.len() < total {
        tally.work(&*staying).await;
    }

    assert_eq!(tally.deliveries.len(), total);
    let repeated = tally.deliveries.values().map(|count| count - 1).sum::<usize>();
    assert_eq!(repeated, held.len(), "other jobs were delivered again than those in flight");
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

/// Workers join one after the other, as the scaler starts them. The jobs are all of one class.
async fn each_worker_gets_jobs(options: &str) {
    let fixture = KafkaFixture::with(options);
    let mut workers = Vec::new();
    for _ in 0..4 {
        let process = fixture.open().await;
        workers.push((consumer(&process).await, process));
        // The next worker joins when the group has assigned all partitions.
        publish(&workers[0].1, &jobs(&fixture, 1)).await;
        let mut receiving: Vec<_> = workers.iter().map(|(consumer, _)| Box::pin(consumer.receive(1))).collect();
        soon(futures::future::select_all(&mut receiving)).await.0.unwrap();
    }
    publish(&workers[0].1, &jobs(&fixture, 240)).await;
    let mut held = Vec::new();
    for (consumer, _) in &workers {
        held.push(receive(&**consumer, 1).await);
    }
}

#[tokio::test]
async fn each_worker_gets_jobs_of_a_class_that_alone_has_some() {
    each_worker_gets_jobs(CLASSIC).await;
}

#[tokio::test]
async fn each_worker_gets_jobs_of_a_class_that_alone_has_some_with_the_new_group_protocol() {
    each_worker_gets_jobs("group.protocol=consumer").await;
}

/// A worker of version 0.2.0 is such a member.
#[tokio::test]
async fn a_worker_gets_jobs_when_members_with_another_rule_have_left() {
    let fixture = KafkaFixture::with(CLASSIC);
    let process = fixture.open().await;
    publish(&process, &[job(&fixture, "waiting")]).await;
    let mut config = fixture.url.config(&[("partition.assignment.strategy", "cooperative-sticky")]);
    config.set("group.id", fixture.url.group(&pool())).set("max.poll.interval.ms", "300000");
    let other: BaseConsumer = config.create().unwrap();
    other.subscribe(&[&fixture.url.topic(&pool(), Class::Standard)]).unwrap();
    #[allow(clippy::disallowed_methods, reason = "the client blocks while it polls, in this test only")]
    let has_joined = tokio::task::spawn_blocking(move || {
        while other.assignment().unwrap().count() == 0 {
            drop(other.poll(Duration::from_millis(100)));
        }
        other
    });
    let other = soon(has_joined).await.unwrap();
    let consumer = consumer(&process).await;
    refused(soon(consumer.receive(1)).await, ErrorKind::Denied, "by another rule");
    drop(other);
    let received = async {
        loop {
            if let Ok(received) = consumer.receive(1).await {
                break received;
            }
        }
    };
    assert_eq!(soon(received).await[0].job.id.as_str(), "waiting");
}

#[tokio::test]
async fn a_job_that_outlasts_the_poll_interval_does_not_remove_its_worker_from_the_group() {
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
        assert_eq!(receive_and_acknowledge(&*consumer, 1).await, [id]);
    }
    assert_eq!((depth(&process).await.waiting(), depth(&process).await.in_flight), (0, Some(1)));
    acknowledge(&*consumer, slow).await;
    assert_eq!((depth(&process).await.waiting(), depth(&process).await.in_flight), (0, Some(0)));
}

#[tokio::test]
async fn one_poison_job_does_not_block_its_partition() {
    let fixture = KafkaFixture::with(&format!("partitions=1&{CLASSIC}"));
    let killed = fixture.open().await;
    publish(&killed, &jobs(&fixture, 200)).await;
    let first = consumer(&killed).await;
    let poison = receive(&*first, 1).await;
    assert_eq!(receive_and_acknowledge(&*first, 199).await.len(), 199);
    assert_eq!((depth(&killed).await.waiting(), depth(&killed).await.in_flight), (0, Some(1)));

    fixture.kill(killed).await;
    drop((poison, first));
    let process = fixture.open().await;
    publish(&process, &[job(&fixture, "after")]).await;
    let second = consumer(&process).await;
    assert_eq!(receive_and_acknowledge(&*second, 2).await, ["job-0", "after"]);
    assert_eq!(depth(&process).await.waiting(), 0);
}

/// The worker settles a delivery of the former membership when the next one has numbered its own.
#[tokio::test]
async fn a_late_settlement_after_its_consumer_has_joined_again_settles_nothing_else() {
    let fixture = KafkaFixture::start();
    let process = fixture.open().await;
    let consumer = consumer(&process).await;
    publish(&process, &jobs(&fixture, 3)).await;
    let mut former = receive_exactly(&*consumer, 2).await;
    let last = former.pop().unwrap();
    acknowledge(&*consumer, former).await;

    fixture.inject(InjectedEvent::MembershipEnded).await;
    let mut next = Vec::new();
    while next.len() < 2 {
        // A receive that waits while the consumer joins again fails with the reason.
        if let Ok(received) = soon(consumer.receive(2 - next.len())).await {
            next.extend(received);
        }
    }
    let ids: Vec<_> = next.iter().map(|delivery| delivery.job.id.to_string()).collect();
    assert_eq!(ids, ["job-1", "job-2"]);
    acknowledge(&*consumer, vec![last]).await;
    assert_eq!(waiting_and_in_flight(&process).await, (0, Some(2)));
    acknowledge(&*consumer, next).await;
    assert_eq!(waiting_and_in_flight(&process).await, (0, Some(0)));
}

#[tokio::test]
async fn a_late_settlement_of_a_former_log_settles_nothing_of_the_next() {
    let fixture = KafkaFixture::start();
    let process = fixture.open().await;
    let consumer = consumer(&process).await;
    publish(&process, &jobs(&fixture, 2)).await;
    let former = receive_exactly(&*consumer, 2).await;
    fixture.inject(InjectedEvent::LogsRestarted).await;
    let next = receive_exactly(&*consumer, 2).await;
    acknowledge(&*consumer, former).await;
    assert_eq!(waiting_and_in_flight(&process).await, (0, Some(2)));
    acknowledge(&*consumer, next).await;
    assert_eq!(waiting_and_in_flight(&process).await, (0, Some(0)));
}
