//! The tables, and which version of them a file has.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::sqlite;
use super::writer::BUSY_TIMEOUT;
use queue::{Error, ErrorKind, Result};

/// Grows with every change of the tables.
pub(super) const VERSION: i64 = 5;

/// Marks the file as ours ("Mill" in ASCII), so that a stranger's database is not taken for an empty one.
const APPLICATION_ID: i64 = 0x4d69_6c6c;

/// The write-ahead log is copied into the file whenever it has grown by so many pages of 4 KiB.
const CHECKPOINT_PAGES: i64 = 4000;

/// Opens the file for writing, creating or checking its tables. The caller holds the lock.
pub(super) fn open(file: &Path, max_size_bytes: Option<u64>) -> Result<Connection> {
    let mut connection = Connection::open(file).map_err(sqlite("open"))?;
    prepare(&mut connection, max_size_bytes).map_err(|error| of_file(file, &error))?;
    Ok(connection)
}

/// The version of the tables of a file that is there; 0 where nothing was ever written. Changes nothing.
pub(super) fn version_of(file: &Path) -> Result<i64> {
    let connection = open_to_look(file).map_err(sqlite("open"));
    connection.and_then(|connection| version(&connection)).map_err(|error| of_file(file, &error))
}

/// SQLite would leave a write-ahead log beside a file that has none, unless it is told that nobody writes to it
/// (<https://www.sqlite.org/uri.html#uriimmutable>).
fn open_to_look(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    match file.to_str() {
        Some(path) if !Path::new(&log).exists() => {
            let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            Connection::open_with_flags(format!("file:{path}?immutable=1"), flags | OpenFlags::SQLITE_OPEN_URI)
        }
        _ => Connection::open_with_flags(file, flags),
    }
}

/// As [`version_of`]; refuses the file of another program, and one of a newer version.
fn version(connection: &Connection) -> Result<i64> {
    let opening = sqlite("open");
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (version, application) =
        (number("user_version").map_err(&opening)?, number("application_id").map_err(&opening)?);
    if application != APPLICATION_ID && !is_blank(connection).map_err(&opening)? {
        let message = "this is the database of another program; choose another folder";
        return Err(Error::new(ErrorKind::Incompatible, message));
    }
    if version > VERSION {
        let message = format!(
            "written by a newer version of millrace (schema {version}, this program knows {VERSION}); \
             upgrade millrace, or choose another folder"
        );
        return Err(Error::new(ErrorKind::Incompatible, message));
    }
    Ok(version)
}

fn of_file(file: &Path, error: &Error) -> Error {
    Error::new(error.kind(), format_args!("{}: {error}", file.display()))
}

fn prepare(connection: &mut Connection, max_size_bytes: Option<u64>) -> Result<()> {
    let opening = sqlite("open");
    connection.busy_timeout(BUSY_TIMEOUT).map_err(&opening)?;
    connection.set_prepared_statement_cache_capacity(64);
    let version = version(connection)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(&opening)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(&opening)?;
    connection.pragma_update(None, "cache_size", -32_000).map_err(&opening)?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024).map_err(&opening)?;
    if version < VERSION {
        let creating = connection.transaction().map_err(&opening)?;
        if version < 1 {
            creating.execute_batch(TABLES).map_err(&opening)?;
            creating.pragma_update(None, "application_id", APPLICATION_ID).map_err(&opening)?;
        }
        // A new file takes the same steps as an old one, so that both end alike.
        if version < 2 {
            creating.execute_batch(TO_2).map_err(&opening)?;
        }
        if version < 3 {
            creating.execute_batch(TO_3).map_err(&opening)?;
        }
        if version < 4 {
            creating.execute_batch(TO_4).map_err(&opening)?;
        }
        creating.execute_batch(TO_5).map_err(&opening)?;
        creating.pragma_update(None, "user_version", VERSION).map_err(&opening)?;
        creating.commit().map_err(&opening)?;
    }
    // After the conversion, for which a file that is full has to have room.
    if let Some(bytes) = max_size_bytes {
        let page_bytes =
            connection.pragma_query_value(None, "page_size", |row| row.get::<_, u64>(0)).map_err(&opening)?;
        let pages = i64::try_from(bytes / page_bytes.max(1)).unwrap_or(i64::MAX).max(1);
        connection.pragma_update(None, "max_page_count", pages).map_err(&opening)?;
    }
    Ok(())
}

/// Whether nothing was ever written: many programs give their files no application id either.
fn is_blank(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// The tables of version 1. Narrow ones for what changes, wide ones for what is written once: an update rewrites its
/// whole row. Times are milliseconds since the Unix epoch.
pub(super) const TABLES: &str = "
-- The broker. `consumer` is null while nobody holds the message; seq is never used twice.
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    pool TEXT NOT NULL,
    class INTEGER NOT NULL,
    consumer INTEGER,
    deliveries INTEGER NOT NULL DEFAULT 0,
    published_at INTEGER NOT NULL
);
CREATE INDEX messages_waiting ON messages (pool, class, seq) WHERE consumer IS NULL;
CREATE INDEX messages_held ON messages (pool, consumer) WHERE consumer IS NOT NULL;
CREATE TABLE payloads (
    seq INTEGER PRIMARY KEY,
    job TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    deadline_at INTEGER,
    max_attempts INTEGER NOT NULL,
    retention INTEGER NOT NULL,
    trace_parent TEXT,
    media_type TEXT NOT NULL,
    body BLOB,
    blob TEXT
);
CREATE TABLE consumers (
    consumer INTEGER PRIMARY KEY AUTOINCREMENT,
    alive_until INTEGER NOT NULL
);

-- The ledger. `due_at` is when somebody must publish the job again, `fence` grows with every claim and publication,
-- `lost` counts the holders that vanished, `begun` says that the attempt counts even if its holder vanishes.
CREATE TABLE jobs (
    job INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    pool TEXT NOT NULL,
    class INTEGER NOT NULL,
    state INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    fence INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    begun INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    deadline_at INTEGER,
    due_at INTEGER,
    started_at INTEGER,
    finished_at INTEGER,
    purge_at INTEGER,
    retention INTEGER NOT NULL,
    worker TEXT,
    trace_parent TEXT,
    error_type TEXT,
    error_message TEXT
);
CREATE INDEX jobs_due ON jobs (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX jobs_purge ON jobs (purge_at) WHERE purge_at IS NOT NULL;
CREATE INDEX jobs_open ON jobs (pool, state) WHERE state IN (1, 2);
CREATE INDEX jobs_given_out ON jobs (pool) WHERE state = 0 AND due_at IS NOT NULL AND fence > 0;
CREATE TABLE inputs (job INTEGER PRIMARY KEY, media_type TEXT NOT NULL, body BLOB, blob TEXT);
CREATE TABLE outputs (job INTEGER PRIMARY KEY, media_type TEXT NOT NULL, body BLOB, blob TEXT);
-- Jobs in the order in which they ended: what watchers read.
CREATE TABLE endings (ending INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL);

-- The roster.
CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    pool TEXT NOT NULL,
    state TEXT NOT NULL,
    alive_until INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    batch_items REAL NOT NULL,
    batch_seconds REAL NOT NULL,
    cold_start_seconds REAL NOT NULL
);
";

/// From version 1 to 2: what waits is counted by index too, failed attempts are remembered, dead jobs are listed, and a
/// job remembers the event that asked for it.
pub(super) const TO_2: &str = "
ALTER TABLE payloads ADD COLUMN origin TEXT;
ALTER TABLE jobs ADD COLUMN origin TEXT;
-- The request whose claim was granted last: made again, it is given the same lease.
ALTER TABLE jobs ADD COLUMN claim BLOB;
DROP INDEX jobs_open;
CREATE INDEX jobs_open ON jobs (pool, state) WHERE state IN (0, 1, 2);
-- `failed` and `dead`, in the order in which they are listed: over all pools and of one.
CREATE INDEX jobs_dead ON jobs (state, finished_at, id) WHERE state IN (4, 7);
CREATE INDEX jobs_dead_of_pool ON jobs (pool, state, finished_at, id) WHERE state IN (4, 7);
CREATE TABLE attempts (
    job INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    worker TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    error_type TEXT NOT NULL,
    error_message TEXT NOT NULL,
    PRIMARY KEY (job, sequence)
) WITHOUT ROWID;
";

/// From version 2 to 3: a worker says what it can do in full batches. 0 stands for what it has not said.
pub(super) const TO_3: &str = "
ALTER TABLE workers ADD COLUMN batch_base_seconds REAL NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN batch_item_seconds REAL NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN batch_limit_items INTEGER NOT NULL DEFAULT 0;
";

/// From version 3 to 4: the jobs of a pool are counted as they change, so that a reading costs the same however many there
/// are. Triggers do it, so that no statement can forget to.
pub(super) const TO_4: &str = "
-- `given_out` is of those that were given out as due and are not known to be published. `ended` never falls. `arrival`
-- grows over all pools: it is the number of the last time that the pool may have got work.
CREATE TABLE pools (
    pool TEXT PRIMARY KEY,
    queued INTEGER NOT NULL DEFAULT 0,
    leased INTEGER NOT NULL DEFAULT 0,
    retry INTEGER NOT NULL DEFAULT 0,
    given_out INTEGER NOT NULL DEFAULT 0,
    ended INTEGER NOT NULL DEFAULT 0,
    arrival INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX pools_arrival ON pools (arrival);
INSERT INTO pools (pool, queued, leased, retry, given_out, ended)
SELECT pool, sum(state = 0), sum(state = 1), sum(state = 2), sum(state = 0 AND due_at IS NOT NULL AND fence > 0),
    sum(state > 2) FROM jobs GROUP BY pool;
CREATE TRIGGER jobs_added AFTER INSERT ON jobs BEGIN
    INSERT INTO pools (pool) VALUES (new.pool) ON CONFLICT (pool) DO NOTHING;
    UPDATE pools SET queued = queued + (new.state = 0), leased = leased + (new.state = 1),
        retry = retry + (new.state = 2),
        given_out = given_out + (new.state = 0 AND new.due_at IS NOT NULL AND new.fence > 0),
        ended = ended + (new.state > 2)
    WHERE pool = new.pool;
END;
CREATE TRIGGER jobs_changed AFTER UPDATE OF state, due_at, fence ON jobs
WHEN old.state <> new.state OR (old.state = 0 AND (old.due_at IS NOT NULL AND old.fence > 0)
    <> (new.due_at IS NOT NULL AND new.fence > 0))
BEGIN
    UPDATE pools SET queued = queued + (new.state = 0) - (old.state = 0),
        leased = leased + (new.state = 1) - (old.state = 1), retry = retry + (new.state = 2) - (old.state = 2),
        given_out = given_out + (new.state = 0 AND new.due_at IS NOT NULL AND new.fence > 0)
            - (old.state = 0 AND old.due_at IS NOT NULL AND old.fence > 0),
        ended = ended + (new.state > 2 AND old.state <= 2)
    WHERE pool = new.pool;
END;
-- Only what has ended is ever deleted; the count of what is open must hold all the same.
CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs WHEN old.state <= 2 BEGIN
    UPDATE pools SET queued = queued - (old.state = 0), leased = leased - (old.state = 1),
        retry = retry - (old.state = 2),
        given_out = given_out - (old.state = 0 AND old.due_at IS NOT NULL AND old.fence > 0)
    WHERE pool = old.pool;
END;
DROP INDEX jobs_open;
DROP INDEX jobs_given_out;
";

/// From version 4 to 5: what the workers of a pool measured last outlives them.
const TO_5: &str = "
CREATE TABLE measured (
    pool TEXT PRIMARY KEY,
    batch_base_seconds REAL NOT NULL,
    batch_item_seconds REAL NOT NULL,
    batch_limit_items INTEGER NOT NULL,
    cold_start_seconds REAL NOT NULL
) WITHOUT ROWID;
";
