//! The embedded broker with a ledger in Redis. Only the ledger differs from the embedded backend.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::fixture::RedisFixture;
use queue::Backend;
use queue_contract::Fixture;
use queue_embedded::EmbeddedFixture;

pub(super) struct LedgerInRedis {
    redis: RedisFixture,
    embedded: EmbeddedFixture,
    /// The two halves of each process.
    processes: Mutex<Vec<(Backend, Backend)>>,
}

impl LedgerInRedis {
    pub(super) fn start() -> Self {
        let redis = RedisFixture::start();
        let embedded = EmbeddedFixture::with_clock(redis.clock());
        Self { redis, embedded, processes: Mutex::default() }
    }
}

#[async_trait]
impl Fixture for LedgerInRedis {
    async fn open(&self) -> Backend {
        let (embedded, redis) = (self.embedded.open().await, self.redis.open().await);
        self.processes.lock().push((embedded.clone(), redis.clone()));
        Backend { ledger: redis.ledger, ..embedded }
    }

    async fn kill(&self, process: Backend) {
        let (embedded, redis) = {
            let mut processes = self.processes.lock();
            let found = processes.iter().position(|(opened, _)| Arc::ptr_eq(&opened.broker, &process.broker));
            processes.swap_remove(found.unwrap())
        };
        self.embedded.kill(embedded).await;
        self.redis.kill(redis).await;
    }

    async fn give_up_on_consumers(&self) {
        self.embedded.give_up_on_consumers().await;
    }

    fn now(&self) -> Timestamp {
        self.redis.now()
    }

    async fn advance(&self, by: Duration) {
        self.redis.advance(by).await;
    }

    async fn set_back(&self, by: Duration) {
        self.redis.set_back(by).await;
    }
}

mod contract {
    use super::LedgerInRedis;
    use proptest::prelude::*;
    use queue_contract::model::{act, actions, config};

    proptest! {
        #![proptest_config(config(48))]

        #[test]
        fn the_ledger_in_redis_accounts_for_every_job_after_any_actions(actions in actions()) {
            act(LedgerInRedis::start(), actions);
        }
    }
}
