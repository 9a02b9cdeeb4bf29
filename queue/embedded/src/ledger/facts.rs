//! Facts about the installation, one row each.

use rusqlite::{Connection, OptionalExtension};

use crate::store::{Write, sqlite};
use queue::Result;

/// The fact with the id of the blob store.
pub(super) const BLOB_STORE: &str = "blob_store";

/// The fact with the id of the ledger.
pub(super) const LEDGER: &str = "ledger";

/// A recorded fact.
pub(super) fn read(file: &Connection, name: &str) -> Result<Option<String>> {
    let reading = sqlite("read a fact");
    let mut select = file.prepare_cached("SELECT value FROM facts WHERE name = ?1").map_err(&reading)?;
    select.query_row([name], |row| row.get(0)).optional().map_err(&reading)
}

/// Records a fact unless it is recorded. Returns the recorded value.
pub(super) fn record(write: &Write<'_>, name: &str, value: &str) -> Result<Option<String>> {
    let mut insert = write.prepare("INSERT INTO facts (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING")?;
    insert.execute([name, value]).map_err(sqlite("record a fact"))?;
    read(write.connection(), name)
}
