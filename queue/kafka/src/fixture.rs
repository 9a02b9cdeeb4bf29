//! The contract on a real Kafka, which several tests share. Each test has a prefix of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::command::InjectedEvent;
use crate::{KafkaBroker, KafkaUrl};
use queue::{Backend, Clock, Routes};
use queue_contract::Fixture;
use queue_embedded::StoreOptions;

/// A dead consumer is removed sooner than by default. Jobs are in the order of their publication only within a
/// partition, so there is one partition.
const OPTIONS: &str = "partitions=1&session.timeout.ms=2000&heartbeat.interval.ms=200&max.poll.interval.ms=3000";

pub(crate) struct KafkaFixture {
    pub(crate) url: KafkaUrl,
    folder: TempDir,
    clock: Clock,
    processes: Mutex<Vec<(Backend, Arc<KafkaBroker>)>>,
}

/// The URL of the tests' server, with a fresh prefix.
fn url(options: &str) -> String {
    let server = std::env::var("MILLRACE_TEST_KAFKA_URL")
        .expect("set MILLRACE_TEST_KAFKA_URL, or run make test, which starts the servers");
    let separator = if server.contains('?') { '&' } else { '?' };
    format!("{server}{separator}prefix=test-{}&{options}", uuid::Uuid::now_v7().simple())
}

impl KafkaFixture {
    pub(crate) fn start() -> Self {
        Self::with(OPTIONS)
    }

    pub(crate) fn with(options: &str) -> Self {
        Self::at(&url(options))
    }

    pub(crate) fn at(url: &str) -> Self {
        Self {
            url: url.parse().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            clock: Clock::manual(Timestamp::from_second(1_800_000_000).unwrap()),
            processes: Mutex::default(),
        }
    }

    /// Causes this event for every consumer.
    pub(crate) async fn inject(&self, event: InjectedEvent) {
        let brokers: Vec<_> = self.processes.lock().iter().map(|(_, broker)| Arc::clone(broker)).collect();
        for broker in brokers {
            broker.inject(event).await;
        }
    }
}

#[async_trait]
impl Fixture for KafkaFixture {
    async fn open(&self) -> Backend {
        let options = StoreOptions::new(self.folder.path());
        let embedded = queue_embedded::open(&options, self.clock.clone()).unwrap();
        let broker = Arc::new(KafkaBroker::open(&self.url, &Routes::default()));
        let backend = Backend { broker: Arc::clone(&broker) as _, ..embedded };
        self.processes.lock().push((backend.clone(), broker));
        backend
    }

    async fn kill(&self, process: Backend) {
        let mut processes = self.processes.lock();
        let found = processes.iter().position(|(backend, _)| Arc::ptr_eq(&backend.broker, &process.broker));
        processes.swap_remove(found.unwrap()).1.kill_consumers();
    }

    async fn give_up_on_consumers(&self) {
        self.inject(InjectedEvent::RemovedFromGroup).await;
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The servers have a clock of their own, so tests wait for what the servers do, not for a time.
    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    fn knows_the_oldest(&self) -> bool {
        false
    }

    fn any_consumer_gets_any_delivery(&self) -> bool {
        false
    }
}

queue_contract::broker_contract!(KafkaFixture::start());
