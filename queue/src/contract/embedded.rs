//! The contract on the embedded backend, with a clock moved by hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tempfile::TempDir;

use super::Fixture;
use crate::broker::embedded::give_up_on_consumers;
use crate::store::{Durability, Store, StoreOptions};
use crate::{Backend, Clock};

pub(crate) struct EmbeddedFixture {
    folder: TempDir,
    clock: Clock,
    processes: Mutex<Vec<(Backend, Store)>>,
}

impl EmbeddedFixture {
    pub(crate) fn start() -> Self {
        Self::with_clock(Clock::manual(Timestamp::from_second(1_800_000_000).unwrap()))
    }

    pub(crate) fn with_clock(clock: Clock) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock, processes: Mutex::default() }
    }

    fn store(&self) -> Store {
        let options = StoreOptions { folder: self.folder.path().to_owned(), max_size_bytes: None };
        Store::open(&options, self.clock.clone()).unwrap()
    }
}

#[async_trait]
impl Fixture for EmbeddedFixture {
    async fn open(&self) -> Backend {
        let store = self.store();
        let backend = Backend::of_store(&store);
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

crate::broker_contract!(EmbeddedFixture::start());
crate::ledger_contract!(EmbeddedFixture::start());
crate::roster_contract!(EmbeddedFixture::start());
