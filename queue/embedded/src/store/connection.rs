//! Opens connections to the data file.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::sqlite;
use super::schema;
use queue::Result;

/// How long SQLite waits for a lock that our file lock does not cover, such as that of a checkpoint or a backup. It is well
/// below the time after which a consumer's heartbeat expires: a wait must not make a consumer expire.
const BUSY_TIMEOUT: Duration = Duration::from_secs(3);

/// The write-ahead log is copied into the file whenever it has grown by this number of pages of 4 KiB.
const CHECKPOINT_PAGES: i64 = 4000;

/// Opens the file for writing, and creates or converts its tables. The caller holds the file lock.
pub(super) fn open_for_writing(file: &Path, max_size_bytes: Option<u64>) -> Result<Connection> {
    let mut connection = Connection::open(file).map_err(sqlite("open"))?;
    prepare(&mut connection, max_size_bytes).map_err(|error| schema::of_file(file, &error))?;
    Ok(connection)
}

/// Opens a file whose tables exist, for reading.
pub(super) fn open_for_reading(file: &Path) -> Result<Connection> {
    let opening = sqlite("open");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(&opening)?;
    connection.pragma_update(None, "query_only", true).map_err(&opening)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(&opening)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn prepare(connection: &mut Connection, max_size_bytes: Option<u64>) -> Result<()> {
    let opening = sqlite("open");
    connection.busy_timeout(BUSY_TIMEOUT).map_err(&opening)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Checked before the first change, so that the file of another program stays as it is.
    let version = schema::version(connection)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(&opening)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(&opening)?;
    connection.pragma_update(None, "cache_size", -32_000).map_err(&opening)?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024).map_err(&opening)?;
    schema::upgrade(connection, version)?;
    // Set after the conversion, because a full file must have room for it.
    if let Some(bytes) = max_size_bytes {
        let page_bytes =
            connection.pragma_query_value(None, "page_size", |row| row.get::<_, u64>(0)).map_err(&opening)?;
        let pages = i64::try_from(bytes / page_bytes.max(1)).unwrap_or(i64::MAX).max(1);
        connection.pragma_update(None, "max_page_count", pages).map_err(&opening)?;
    }
    Ok(())
}
