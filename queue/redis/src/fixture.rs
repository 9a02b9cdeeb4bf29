//! The contract on Redis. Each fixture has its own keys on one server, and its own shift of the server's time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::broker::expire_consumers;
use crate::connection::{Redis, RedisUrl};
use queue::{Backend, Clock, DEAD_RETENTION};
use queue_contract::{Fixture, pool};

pub(crate) struct RedisFixture {
    server: String,
    prefix: String,
    clock: Clock,
    processes: Mutex<Vec<(Backend, ProxiedConnection)>>,
}

/// A proxy between one process and the server. It can break the connections through it.
struct ProxiedConnection {
    address: String,
    cut: Arc<Notify>,
    forwarding: JoinHandle<()>,
}

impl RedisFixture {
    pub(crate) fn start() -> Self {
        let url = std::env::var("MILLRACE_TEST_REDIS_URL");
        let url = url.expect("set MILLRACE_TEST_REDIS_URL, or run make test, which starts the servers");
        let server = url.strip_prefix("redis://").expect("MILLRACE_TEST_REDIS_URL: write redis://HOST:PORT").to_owned();
        let prefix = format!("test-{}", uuid::Uuid::now_v7());
        Self { server, prefix, clock: Clock::shifted(), processes: Mutex::default() }
    }

    /// The clock of the processes. A clone is shifted with it.
    pub(crate) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// A connection for the test itself.
    pub(crate) fn redis(&self) -> Redis {
        self.redis_at(&self.server)
    }

    /// Breaks the connections of every process. The processes may connect again.
    pub(crate) fn cut_connections(&self) {
        self.processes.lock().iter().for_each(|(_, proxy)| proxy.cut.notify_one());
    }

    fn redis_at(&self, address: &str) -> Redis {
        let url: RedisUrl = format!("redis://{address}?prefix={}", self.prefix).parse().unwrap();
        Redis::open(&url, self.clock.clone()).unwrap()
    }
}

impl ProxiedConnection {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cut = Arc::new(Notify::new());
        let is_cut = Arc::clone(&cut);
        // Aborting this task closes the listener and every connection.
        let forwarding = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let mut near = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = is_cut.notified() => {
                        connections.shutdown().await;
                        continue;
                    }
                };
                let server = server.clone();
                connections.spawn(async move {
                    let mut far = TcpStream::connect(server).await.unwrap();
                    near.set_nodelay(true).unwrap();
                    far.set_nodelay(true).unwrap();
                    // Either side may close.
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { address, cut, forwarding }
    }
}

#[async_trait]
impl Fixture for RedisFixture {
    async fn open(&self) -> Backend {
        let proxy = ProxiedConnection::to(self.server.clone()).await;
        let backend = crate::backend(&self.redis_at(&proxy.address), DEAD_RETENTION);
        self.processes.lock().push((backend.clone(), proxy));
        backend
    }

    async fn kill(&self, process: Backend) {
        let proxy = {
            let mut processes = self.processes.lock();
            let found = processes.iter().position(|(opened, _)| Arc::ptr_eq(&opened.broker, &process.broker));
            processes.swap_remove(found.unwrap()).1
        };
        proxy.forwarding.abort();
        assert!(proxy.forwarding.await.unwrap_err().is_cancelled());
    }

    async fn give_up_on_consumers(&self) {
        expire_consumers(&self.redis(), &pool()).await.unwrap();
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        let redis = self.redis();
        let (key, now) = (redis.key("looked_at"), self.clock.now_milliseconds());
        let command = redis::cmd("SET").arg(key).arg(now).to_owned();
        redis.run::<()>("record a look for due jobs", &command).await.unwrap();
    }

    async fn advance_in_outage(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn set_back(&self, by: Duration) {
        self.clock.set_back(by);
    }
}

queue_contract::broker_contract!(RedisFixture::start());
queue_contract::ledger_contract!(RedisFixture::start());
queue_contract::roster_contract!(RedisFixture::start());
