//! The contract on the embedded backend.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::broker::expire_consumers;
use crate::ledger::grace::record_look;
use crate::store::{Durability, Store, StoreOptions};
use queue::{Backend, Clock};
use queue_contract::Fixture;

/// One data file, the processes that use it, and their clock, which the test moves.
pub struct EmbeddedFixture {
    folder: TempDir,
    clock: Clock,
    processes: Mutex<Vec<(Backend, Store)>>,
}

impl EmbeddedFixture {
    /// An empty file.
    pub fn start() -> Self {
        Self::with_clock(Clock::manual(Timestamp::from_second(1_800_000_000).unwrap()))
    }

    /// An empty file whose leases, deadlines and retries use `clock`.
    pub fn with_clock(clock: Clock) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock, processes: Mutex::default() }
    }

    /// The data file.
    pub fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("millrace.db")
    }

    fn store(&self) -> Store {
        let options = StoreOptions::new(self.folder.path());
        Store::open(&options, self.clock.clone()).unwrap()
    }
}

#[async_trait]
impl Fixture for EmbeddedFixture {
    async fn open(&self) -> Backend {
        let store = self.store();
        let backend = crate::backend(&store);
        self.processes.lock().push((backend.clone(), store));
        backend
    }

    async fn kill(&self, process: Backend) {
        let store = {
            let mut processes = self.processes.lock();
            let found = processes.iter().position(|(opened, _)| Arc::ptr_eq(&opened.broker, &process.broker));
            processes.swap_remove(found.unwrap()).1
        };
        // Waits for the writes that are queued. After a real kill, each of these writes may or may not have happened.
        store.write(Durability::Process, |_| Ok(())).await.unwrap();
        store.simulate_kill();
    }

    async fn give_up_on_consumers(&self) {
        self.store().write(Durability::Process, expire_consumers).await.unwrap();
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        let now = self.clock.now_milliseconds();
        let running = self.processes.lock().last().map(|(_, store)| store.clone());
        let store = running.unwrap_or_else(|| self.store());
        store.write(Durability::Process, move |write| record_look(write, now)).await.unwrap();
    }

    async fn advance_in_outage(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn set_back(&self, by: Duration) {
        self.clock.set_back(by);
    }
}

#[cfg(test)]
mod contract {
    use super::EmbeddedFixture;
    use proptest::prelude::*;
    use queue_contract::model::{act, actions, config};

    queue_contract::broker_contract!(EmbeddedFixture::start());
    queue_contract::ledger_contract!(EmbeddedFixture::start());
    queue_contract::roster_contract!(EmbeddedFixture::start());

    proptest! {
        #![proptest_config(config(256))]

        #[test]
        fn every_job_is_accounted_for_after_any_actions(actions in actions()) {
            act(EmbeddedFixture::start(), actions);
        }
    }
}
