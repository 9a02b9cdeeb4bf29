//! The tables, and their versions.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::error::sqlite;
use queue::{Error, ErrorKind, Result};

/// The version of the tables. It grows with every change of them.
pub(super) const VERSION: i64 = 8;

/// Marks the file as ours ("Mill" in ASCII), so that the database of another program is not taken for an empty file.
const APPLICATION_ID: i64 = 0x4d69_6c6c;

/// The version of the tables in an existing file. 0 for an empty file. Changes nothing.
pub(super) fn version_of(file: &Path) -> Result<i64> {
    let connection = open_unchanged(file).map_err(sqlite("open"));
    connection.and_then(|connection| version(&connection)).map_err(|error| of_file(file, &error))
}

/// Opens a file without creating a write-ahead log beside it. For that, a file without a log is opened as immutable
/// (<https://www.sqlite.org/uri.html#uriimmutable>).
fn open_unchanged(file: &Path) -> rusqlite::Result<Connection> {
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

/// Like [`version_of`], for an open file. Rejects the file of another program, and a file of a newer version.
pub(super) fn version(connection: &Connection) -> Result<i64> {
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

/// Adds the path of the file to an error.
pub(super) fn of_file(file: &Path, error: &Error) -> Error {
    Error::new(error.kind(), format_args!("{}: {error}", file.display()))
}

/// Converts a file from `version` to [`VERSION`]. A new file takes the same steps as an old one, so that both have the
/// same tables.
pub(super) fn upgrade(connection: &mut Connection, version: i64) -> Result<()> {
    if version >= VERSION {
        return Ok(());
    }
    let opening = sqlite("open");
    let upgrading = connection.transaction().map_err(&opening)?;
    if version < 1 {
        upgrading.execute_batch(TABLES).map_err(&opening)?;
        upgrading.pragma_update(None, "application_id", APPLICATION_ID).map_err(&opening)?;
    }
    for (to, step) in [(2, TO_2), (3, TO_3), (4, TO_4), (5, TO_5), (6, TO_6), (7, TO_7), (8, TO_8)] {
        if version < to {
            upgrading.execute_batch(step).map_err(&opening)?;
        }
    }
    upgrading.pragma_update(None, "user_version", VERSION).map_err(&opening)?;
    upgrading.commit().map_err(&opening)
}

/// Whether the file has no tables. The application id alone does not show that: many programs set none.
fn is_blank(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// The tables of version 1. Columns that change are in narrow tables. Columns that are written once are in wide tables.
/// The reason: an update rewrites its whole row. Times are milliseconds since the Unix epoch.
pub(super) const TABLES: &str = "
-- The broker. `consumer` is null while no consumer holds the message. A `seq` is never used twice.
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

-- The ledger. At `due_at` the job must be published (again), or its lease expires. `fence` grows with every claim and
-- publication. `lost` is the number of workers that disappeared with the job. With `begun` the attempt counts even if its
-- worker disappears.
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
-- Jobs in the order in which they ended, for watchers.
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

/// From version 1 to 2: an index counts waiting jobs too. Failed attempts are stored, dead jobs are listed, and a job
/// keeps the origin of its event.
pub(super) const TO_2: &str = "
ALTER TABLE payloads ADD COLUMN origin TEXT;
ALTER TABLE jobs ADD COLUMN origin TEXT;
-- The request whose claim was granted last. If it is repeated, it is granted the same lease.
ALTER TABLE jobs ADD COLUMN claim BLOB;
DROP INDEX jobs_open;
CREATE INDEX jobs_open ON jobs (pool, state) WHERE state IN (0, 1, 2);
-- Failed and dead jobs in the order in which they are listed, of all pools and of one.
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

/// From version 2 to 3: a worker reports its batch time model. 0 stands for a value that it has not reported.
pub(super) const TO_3: &str = "
ALTER TABLE workers ADD COLUMN batch_base_seconds REAL NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN batch_item_seconds REAL NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN batch_limit_items INTEGER NOT NULL DEFAULT 0;
";

/// From version 3 to 4: triggers count the jobs of a pool with every change. So a reading costs the same for any number
/// of jobs, and no statement can miss a change.
pub(super) const TO_4: &str = "
-- `given_out` counts jobs that were taken as due and whose publication is not confirmed. `ended` never decreases.
-- `arrival` is the number of the pool's last arrival of work, counted over all pools.
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
-- The program deletes only ended jobs. The counts of open jobs stay exact even if others are deleted by hand.
CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs WHEN old.state <= 2 BEGIN
    UPDATE pools SET queued = queued - (old.state = 0), leased = leased - (old.state = 1),
        retry = retry - (old.state = 2),
        given_out = given_out - (old.state = 0 AND old.due_at IS NOT NULL AND old.fence > 0)
    WHERE pool = old.pool;
END;
DROP INDEX jobs_open;
DROP INDEX jobs_given_out;
";

/// From version 4 to 5: the last measurements of a pool outlive its workers.
pub(super) const TO_5: &str = "
CREATE TABLE measured (
    pool TEXT PRIMARY KEY,
    batch_base_seconds REAL NOT NULL,
    batch_item_seconds REAL NOT NULL,
    batch_limit_items INTEGER NOT NULL,
    cold_start_seconds REAL NOT NULL
) WITHOUT ROWID;
";

/// From version 5 to 6: the length of a lease, and the times of upkeep (one row): when a process last looked for due jobs,
/// and the end of the last gap in which none did. A job whose publication is confirmed is due too, after hours.
pub(super) const TO_6: &str = "
ALTER TABLE jobs ADD COLUMN lease INTEGER NOT NULL DEFAULT 30000;
CREATE TABLE upkeep (looked_at INTEGER, resumed_at INTEGER);
INSERT INTO upkeep VALUES (NULL, NULL);
-- The fence of the publication that was confirmed. Such a job is not given out, although it is due some time.
ALTER TABLE jobs ADD COLUMN confirmed INTEGER;
DROP TRIGGER jobs_added;
DROP TRIGGER jobs_changed;
DROP TRIGGER jobs_deleted;
UPDATE jobs SET confirmed = fence, due_at = min(created_at + 21600000, coalesce(deadline_at, created_at + 21600000))
WHERE state = 0 AND due_at IS NULL;
CREATE TRIGGER jobs_added AFTER INSERT ON jobs BEGIN
    INSERT INTO pools (pool) VALUES (new.pool) ON CONFLICT (pool) DO NOTHING;
    UPDATE pools SET queued = queued + (new.state = 0), leased = leased + (new.state = 1),
        retry = retry + (new.state = 2),
        given_out = given_out + (new.state = 0 AND new.due_at IS NOT NULL AND new.fence > 0 AND new.confirmed IS NOT new.fence),
        ended = ended + (new.state > 2)
    WHERE pool = new.pool;
END;
CREATE TRIGGER jobs_changed AFTER UPDATE OF state, due_at, fence, confirmed ON jobs
WHEN old.state <> new.state OR (old.state = 0 AND
    (old.due_at IS NOT NULL AND old.fence > 0 AND old.confirmed IS NOT old.fence)
    <> (new.due_at IS NOT NULL AND new.fence > 0 AND new.confirmed IS NOT new.fence))
BEGIN
    UPDATE pools SET queued = queued + (new.state = 0) - (old.state = 0),
        leased = leased + (new.state = 1) - (old.state = 1), retry = retry + (new.state = 2) - (old.state = 2),
        given_out = given_out
            + (new.state = 0 AND new.due_at IS NOT NULL AND new.fence > 0 AND new.confirmed IS NOT new.fence)
            - (old.state = 0 AND old.due_at IS NOT NULL AND old.fence > 0 AND old.confirmed IS NOT old.fence),
        ended = ended + (new.state > 2 AND old.state <= 2)
    WHERE pool = new.pool;
END;
CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs WHEN old.state <= 2 BEGIN
    UPDATE pools SET queued = queued - (old.state = 0), leased = leased - (old.state = 1),
        retry = retry - (old.state = 2),
        given_out = given_out - (old.state = 0 AND old.due_at IS NOT NULL AND old.fence > 0 AND old.confirmed IS NOT old.fence)
    WHERE pool = old.pool;
END;
";

/// From version 6 to 7: facts about the installation, such as the id of its blob store.
pub(super) const TO_7: &str = "
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// From version 7 to 8: triggers count the messages of a pool too. One process at a time does the upkeep. A job that
/// succeeded has the digest of its input.
pub(super) const TO_8: &str = "
-- The waiting messages of each class, and the messages that a consumer holds.
CREATE TABLE depths (
    pool TEXT PRIMARY KEY,
    premium INTEGER NOT NULL,
    standard INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    held INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO depths (pool, premium, standard, batch, held)
SELECT pool, sum(consumer IS NULL AND class = 0), sum(consumer IS NULL AND class = 1),
    sum(consumer IS NULL AND class = 2), sum(consumer IS NOT NULL) FROM messages GROUP BY pool;
CREATE TRIGGER messages_added AFTER INSERT ON messages BEGIN
    INSERT INTO depths (pool, premium, standard, batch, held)
    VALUES (new.pool, new.consumer IS NULL AND new.class = 0, new.consumer IS NULL AND new.class = 1,
        new.consumer IS NULL AND new.class = 2, new.consumer IS NOT NULL)
    ON CONFLICT (pool) DO UPDATE SET premium = premium + excluded.premium, standard = standard + excluded.standard,
        batch = batch + excluded.batch, held = held + excluded.held;
END;
CREATE TRIGGER messages_changed AFTER UPDATE OF consumer ON messages
WHEN (old.consumer IS NULL) <> (new.consumer IS NULL) BEGIN
    UPDATE depths SET held = held + (new.consumer IS NOT NULL) - (old.consumer IS NOT NULL),
        premium = premium + (new.class = 0) * ((new.consumer IS NULL) - (old.consumer IS NULL)),
        standard = standard + (new.class = 1) * ((new.consumer IS NULL) - (old.consumer IS NULL)),
        batch = batch + (new.class = 2) * ((new.consumer IS NULL) - (old.consumer IS NULL))
    WHERE pool = new.pool;
END;
CREATE TRIGGER messages_deleted AFTER DELETE ON messages BEGIN
    UPDATE depths SET held = held - (old.consumer IS NOT NULL), premium = premium - (old.consumer IS NULL AND old.class = 0),
        standard = standard - (old.consumer IS NULL AND old.class = 1),
        batch = batch - (old.consumer IS NULL AND old.class = 2)
    WHERE pool = old.pool;
END;
-- The process that does the upkeep, and the end of its lease.
ALTER TABLE upkeep ADD COLUMN holder TEXT;
ALTER TABLE upkeep ADD COLUMN held_until INTEGER;
-- The digest of an input that was deleted when its job succeeded.
ALTER TABLE jobs ADD COLUMN digest BLOB;
";
