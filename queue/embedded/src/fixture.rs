//! The contract on the embedded backend, with a clock moved by hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tempfile::TempDir;

use crate::broker::give_up_on_consumers;
use crate::store::{Durability, Store, StoreOptions};
use queue::{Backend, Clock};
use queue_contract::Fixture;

/// One data file, with a clock moved by hand, and the processes that use it.
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

    /// An empty file whose leases, deadlines and retries go by `clock`.
    pub fn with_clock(clock: Clock) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock, processes: Mutex::default() }
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
        self.processes.lock().unwrap().push((backend.clone(), store));
        backend
    }

    async fn kill(&self, process: Backend) {
        let store = {
            let mut processes = self.processes.lock().unwrap();
            let found = processes.iter().position(|(known, _)| Arc::ptr_eq(&known.broker, &process.broker));
            processes.swap_remove(found.unwrap()).1
        };
        // What it asked for so far is done; the kernel would have seen to that too, or not.
        store.write(Durability::Process, |_| Ok(())).await.unwrap();
        store.vanish();
    }

    async fn give_up_on_consumers(&self) {
        self.store().write(Durability::Process, give_up_on_consumers).await.unwrap();
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
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
        fn whatever_happens_every_job_is_accounted_for(actions in actions()) {
            act(EmbeddedFixture::start(), actions);
        }
    }
}
