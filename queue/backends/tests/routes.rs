//! Routes: jobs come from topics and queues with other names, and endings are published to such topics and queues.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use millrace_backends::BackendUrls;
use queue::{
    Backend, Body, Class, Delivery, Depth, Ending, ErrorKind, Gauge, JobId, JobState, Origin, Output, PoolName, Route,
    Routes, Settlement,
};
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

fn server(variable: &str) -> String {
    let url = std::env::var(variable);
    url.unwrap_or_else(|_| panic!("set {variable}, or run make test, which starts the servers"))
}

fn pool(name: &str) -> PoolName {
    name.parse().unwrap()
}

/// The results of the pool `first` are jobs of the pool `second`, through a topic or queue that a route names.
async fn chained(server: &str, ledger: &TempDir) -> Backend {
    let unique = JobId::generate();
    let separator = if server.contains('?') { '&' } else { '?' };
    let broker = format!("{server}{separator}prefix=routes-{unique}").parse().unwrap();
    let ledger = format!("embedded:{}", ledger.path().display()).parse().unwrap();
    let between = format!("between-{unique}");
    let routes = BTreeMap::from([
        (pool("first"), Route { jobs_from: Vec::new(), results_to: Some(between.clone()) }),
        (pool("second"), Route { jobs_from: vec![between], results_to: None }),
    ]);
    let urls = BackendUrls::new(broker, Some(ledger)).unwrap().with_routes(Routes::new(routes).unwrap()).unwrap();
    millrace_backends::open(&urls).await.unwrap()
}

fn ending(id: &str) -> Ending {
    Ending {
        id: id.parse().unwrap(),
        pool: pool("first"),
        state: JobState::Succeeded,
        finished_at: Timestamp::from_millisecond(1_800_000_000_123).unwrap(),
        output: Some(Output { media_type: "text/plain".to_owned(), body: Body::Inline(id.to_owned().into()) }),
        error: None,
        origin: Some(Origin { source: "/cameras/7".to_owned(), id: "4711".to_owned() }),
        trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    }
}

/// Retries, because a server that has just started may reject calls.
async fn depth(gauge: &dyn Gauge, name: &str) -> Depth {
    let reading = async {
        loop {
            match gauge.depths(&[pool(name)]).await.remove(0) {
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                read => return read.unwrap(),
            }
        }
    };
    timeout(PATIENCE, reading).await.unwrap()
}

async fn an_ending_published_to_a_route_is_a_job_of_the_next_pool(server: &str) {
    let ledger = tempfile::tempdir().unwrap();
    let backend = chained(server, &ledger).await;
    assert!(backend.broker.announcer(&pool("second")).await.unwrap().is_none());
    let announcer = backend.broker.announcer(&pool("first")).await.unwrap().unwrap();
    let gauge = backend.broker.gauge().await.unwrap();
    assert_eq!(depth(&*gauge, "second").await.waiting(), 0);

    announcer.announce(&[ending("a"), ending("b")]).await.unwrap();
    announcer.announce(&[]).await.unwrap();
    // Published again, as after a lost answer: the same event.
    announcer.announce(&[ending("a")]).await.unwrap();
    let waits = async { while depth(&*gauge, "second").await.waiting_of(Class::Standard) != 3 {} };
    timeout(PATIENCE, waits).await.unwrap();
    assert_eq!(depth(&*gauge, "first").await.waiting(), 0);

    let consumer = backend.broker.consumer(&pool("second")).await.unwrap();
    let mut taken: Vec<Delivery> = Vec::new();
    while taken.len() < 3 {
        taken.extend(timeout(PATIENCE, consumer.receive(3)).await.unwrap().unwrap());
    }
    let mut ids: Vec<&JobId> = taken.iter().map(|delivery| &delivery.job.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2);
    for Delivery { job, unreadable, .. } in &taken {
        assert_eq!(*unreadable, None);
        let Body::Inline(name) = &job.input.body else { panic!("{job:?}") };
        let name = str::from_utf8(name).unwrap();
        let event = Origin { source: "/millrace/pools/first".to_owned(), id: format!("{name}.1800000000123") };
        assert_eq!(job.id, JobId::of_event(&pool("second"), &event.source, &event.id).unwrap());
        assert_eq!((&job.origin, &job.pool, job.class), (&Some(event), &pool("second"), Class::Standard));
        assert_eq!(job.input.media_type, "text/plain");
        assert!(job.trace_parent.as_ref().is_some_and(|parent| parent.starts_with("00-0af7651916cd43dd")));
    }
    consumer.settle(taken.into_iter().map(|delivery| (delivery, Settlement::Ack)).collect()).await.unwrap();
    let drained = async { while depth(&*gauge, "second").await.waiting() != 0 {} };
    timeout(PATIENCE, drained).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ending_published_to_a_kafka_topic_is_a_job_of_the_next_pool() {
    an_ending_published_to_a_route_is_a_job_of_the_next_pool(&server("MILLRACE_TEST_KAFKA_URL")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ending_published_to_a_rabbitmq_queue_is_a_job_of_the_next_pool() {
    an_ending_published_to_a_route_is_a_job_of_the_next_pool(&server("MILLRACE_TEST_RABBITMQ_URL")).await;
}

#[test]
fn a_broker_without_topics_rejects_a_route_by_its_key() {
    let route = |from: &str| {
        let route = Route { jobs_from: vec![from.to_owned()], results_to: None };
        Routes::new(BTreeMap::from([(pool("first"), route)])).unwrap()
    };
    for (broker, name, why) in [
        ("embedded:data", "shots", "has none; use Kafka or RabbitMQ"),
        ("redis://127.0.0.1", "shots", "has none; use Kafka or RabbitMQ"),
        ("kafka://127.0.0.1:9092", "millrace.b.standard", "is reserved: the names millrace.* are"),
        ("rabbitmq://127.0.0.1?prefix=x", "x.b", "is reserved: the names x.* are"),
        ("kafka://127.0.0.1:9092", "big shots", "is not the name of a Kafka topic"),
    ] {
        let urls = BackendUrls::new(broker.parse().unwrap(), Some("embedded:data".parse().unwrap())).unwrap();
        let error = urls.with_routes(route(name)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("pools.first.jobs_from: {name:?} ")) && error.contains(why), "{error}");
    }
}
