//! Broker, ledger and roster in one SQLite file that the processes of a machine share.

mod broker;
#[cfg(any(test, feature = "fixture"))]
#[allow(clippy::unwrap_used, reason = "this is for tests, even where it is compiled as a library")]
mod fixture;
mod ledger;
mod roster;
mod store;

use std::path::Path;
use std::sync::Arc;

use queue::{Backend, Clock, Result, Risk};

#[cfg(any(test, feature = "fixture"))]
pub use fixture::EmbeddedFixture;
pub use store::StoreOptions;

use broker::EmbeddedBroker;
use ledger::EmbeddedLedger;
use roster::EmbeddedRoster;
use store::Store;

/// Opens the file in `options.folder`. Creates the file and the folder if they are missing. Must be called within a
/// tokio runtime.
pub fn open(options: &StoreOptions, clock: Clock) -> Result<Backend> {
    Ok(backend(&Store::open(options, clock)?))
}

/// The risks of a folder in which [`open`] would create or convert the file. `None`: it would do neither.
pub fn risks_before_use(folder: &Path) -> Result<Option<Vec<Risk>>> {
    Store::risks_before_use(folder)
}

fn backend(store: &Store) -> Backend {
    Backend {
        broker: Arc::new(EmbeddedBroker::new(store.clone())),
        ledger: Arc::new(EmbeddedLedger::new(store.clone())),
        roster: Arc::new(EmbeddedRoster::new(store.clone())),
    }
}
