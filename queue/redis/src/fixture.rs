//! The contract on Redis: every fixture has keys of its own on one server, and goes by its time, moved ahead at will.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::broker::give_up_on_consumers;
use crate::connection::{Redis, RedisUrl};
use queue::{Backend, Clock};
use queue_contract::{Fixture, pool};

pub(crate) struct RedisFixture {
    server: String,
    prefix: String,
    clock: Clock,
    processes: Mutex<Vec<(Backend, Line)>>,
}

/// The line of a process to the server, which can be cut.
struct Line {
    address: String,
    cut: Arc<Notify>,
    carrying: JoinHandle<()>,
}

impl RedisFixture {
    pub(crate) fn start() -> Self {
        let url = std::env::var("MILLRACE_TEST_REDIS_URL");
        let url = url.expect("set MILLRACE_TEST_REDIS_URL, or run make test, which starts the servers");
        let server = url.strip_prefix("redis://").expect("MILLRACE_TEST_REDIS_URL: write redis://HOST:PORT").to_owned();
        let prefix = format!("test-{}", uuid::Uuid::now_v7());
        Self { server, prefix, clock: Clock::shifted(), processes: Mutex::default() }
    }

    /// The time that its servers go by; a clone is moved with it.
    pub(crate) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// A connection of the fixture's own.
    pub(crate) fn redis(&self) -> Redis {
        self.redis_at(&self.server)
    }

    /// Breaks the connections of every process; they may connect again.
    pub(crate) fn cut_lines(&self) {
        self.processes.lock().unwrap().iter().for_each(|(_, line)| line.cut.notify_one());
    }

    fn redis_at(&self, address: &str) -> Redis {
        let url: RedisUrl = format!("redis://{address}?prefix={}", self.prefix).parse().unwrap();
        Redis::open(&url, self.clock.clone()).unwrap()
    }
}

impl Line {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cut = Arc::new(Notify::new());
        let is_cut = Arc::clone(&cut);
        // Aborted, it closes the listener and every connection with it.
        let carrying = tokio::spawn(async move {
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
        Self { address, cut, carrying }
    }
}

#[async_trait]
impl Fixture for RedisFixture {
    async fn open(&self) -> Backend {
        let line = Line::to(self.server.clone()).await;
        let backend = crate::backend(&self.redis_at(&line.address));
        self.processes.lock().unwrap().push((backend.clone(), line));
        backend
    }

    async fn kill(&self, process: Backend) {
        let line = {
            let mut processes = self.processes.lock().unwrap();
            let found = processes.iter().position(|(known, _)| Arc::ptr_eq(&known.broker, &process.broker));
            processes.swap_remove(found.unwrap()).1
        };
        line.carrying.abort();
        assert!(line.carrying.await.unwrap_err().is_cancelled());
    }

    async fn give_up_on_consumers(&self) {
        give_up_on_consumers(&self.redis(), &pool()).await.unwrap();
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

queue_contract::broker_contract!(RedisFixture::start());
queue_contract::ledger_contract!(RedisFixture::start());
queue_contract::roster_contract!(RedisFixture::start());
