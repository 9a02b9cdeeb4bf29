//! The contract on a real Kafka, which several tests share. Each test has a prefix of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tempfile::TempDir;

use crate::command::InjectedEvent;
use crate::{KafkaBroker, KafkaUrl};
use queue::{Backend, Clock, Routes};
use queue_contract::{Fixture, pool, soon};
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

/// The ids of the group's members, once it has assigned their partitions.
fn stable_members(url: &KafkaUrl) -> Option<HashSet<String>> {
    let client: BaseConsumer = url.config(&[]).create().unwrap();
    let name = url.group(&pool());
    // The group's coordinator may be busy.
    let found = client.fetch_group_list(Some(&name), Duration::from_secs(5)).ok()?;
    let group = found.groups().iter().find(|group| group.name() == name && group.state() == "Stable")?;
    Some(group.members().iter().map(|member| member.id().to_owned()).collect())
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
        let count: usize = self.processes.lock().iter().map(|(_, broker)| broker.member_count()).sum();
        let members = async || {
            let url = self.url.clone();
            #[allow(clippy::disallowed_methods, reason = "the client blocks for a short call, in tests only")]
            tokio::task::spawn_blocking(move || stable_members(&url)).await.unwrap()
        };
        let former = members().await.unwrap_or_default();
        self.inject(InjectedEvent::RemovedFromGroup).await;
        // The consumers join again one after the other. Until the last one has, a rebalance may move deliveries.
        let have_joined_again = async {
            while count > 0 && !members().await.is_some_and(|now| now.len() == count && now.is_disjoint(&former)) {}
        };
        soon(have_joined_again).await;
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The servers have a clock of their own, so tests wait for what the servers do, not for a time.
    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn set_back(&self, by: Duration) {
        self.clock.set_back(by);
    }

    fn knows_the_oldest(&self) -> bool {
        false
    }

    fn any_consumer_gets_any_delivery(&self) -> bool {
        false
    }
}

queue_contract::broker_contract!(KafkaFixture::start());
