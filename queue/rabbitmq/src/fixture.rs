//! The contract on RabbitMQ. The ledger is embedded.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::proxy::Proxy;
use crate::{RabbitMqBroker, RabbitMqUrl};
use queue::{Backend, Clock, Routes};
use queue_contract::Fixture;
use queue_embedded::StoreOptions;

/// A prefix of its own, for the queues of one test on the server that all tests share.
pub(crate) struct RabbitMqFixture {
    url: RabbitMqUrl,
    prefix: String,
    ledger: TempDir,
    clock: Clock,
    processes: Mutex<Vec<(Backend, Proxy)>>,
}

impl RabbitMqFixture {
    pub(crate) fn start() -> Self {
        let url = std::env::var("MILLRACE_TEST_RABBITMQ_URL")
            .expect("set MILLRACE_TEST_RABBITMQ_URL, or run make test, which starts the servers");
        Self::of(url.parse().unwrap())
    }

    pub(crate) fn of(url: RabbitMqUrl) -> Self {
        Self {
            url,
            prefix: format!("test-{}", Uuid::now_v7()),
            ledger: tempfile::tempdir().unwrap(),
            clock: Clock::manual(Timestamp::from_second(1_800_000_000).unwrap()),
            processes: Mutex::default(),
        }
    }

    /// The URL of the server itself, without a proxy.
    pub(crate) fn url(&self) -> &RabbitMqUrl {
        &self.url
    }

    /// The beginning of the queues' names.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

#[async_trait]
impl Fixture for RabbitMqFixture {
    async fn open(&self) -> Backend {
        let (host, port) = self.url.address();
        let proxy = Proxy::start(host, port).await;
        let url = self.url.through(proxy.port(), &self.prefix);
        let options = StoreOptions::new(self.ledger.path());
        let embedded = queue_embedded::open(&options, self.clock.clone()).unwrap();
        let broker = Arc::new(RabbitMqBroker::open(&url, &Routes::default()).unwrap());
        let backend = Backend { broker, ..embedded };
        self.processes.lock().await.push((backend.clone(), proxy));
        backend
    }

    async fn kill(&self, process: Backend) {
        let processes = self.processes.lock().await;
        let (_, proxy) = processes.iter().find(|(backend, _)| Arc::ptr_eq(&backend.broker, &process.broker)).unwrap();
        proxy.close().await;
    }

    async fn give_up_on_consumers(&self) {
        for (_, proxy) in &*self.processes.lock().await {
            proxy.sever().await;
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// No promise depends on the server's time, because the server detects a cut connection at once.
    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn set_back(&self, by: Duration) {
        self.clock.set_back(by);
    }

    fn knows_the_oldest(&self) -> bool {
        false
    }
}

queue_contract::broker_contract!(RabbitMqFixture::start());
