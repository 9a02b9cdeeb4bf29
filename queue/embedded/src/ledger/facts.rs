//! Facts about the installation, one row each.

use rusqlite::{Connection, OptionalExtension};

use crate::store::{Write, sqlite};
use queue::Result;

const BLOB_STORE: &str = "blob_store";

/// The recorded id of the blob store.
pub(super) fn blob_store(file: &Connection) -> Result<Option<String>> {
    let reading = sqlite("read the id of the blob store");
    let mut select = file.prepare_cached("SELECT value FROM facts WHERE name = ?1").map_err(&reading)?;
    select.query_row([BLOB_STORE], |row| row.get(0)).optional().map_err(&reading)
}

/// Records the id of the blob store unless one is recorded. Returns the recorded one.
pub(super) fn record_blob_store(write: &Write<'_>, found: &str) -> Result<Option<String>> {
    let mut insert = write.prepare("INSERT INTO facts (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING")?;
    insert.execute([BLOB_STORE, found]).map_err(sqlite("record the id of the blob store"))?;
    blob_store(write.connection())
}
