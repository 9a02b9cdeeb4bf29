//! The one thread of a process that writes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::Receiver;
use rusqlite::{CachedStatement, Connection};

use super::bell::{Bell, Ringer};
use super::{schema, sqlite};
use queue::driver::milliseconds_of;
use queue::{Clock, Error, ErrorKind, Result};

/// How long SQLite waits for a lock that our own file lock does not cover (a checkpoint, a backup). Well below
/// the time after which a silent consumer is taken for dead: waiting must not make one silent.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(3);

/// The most pieces of work in one transaction, so that nobody's answer waits too long.
const GROUP_LIMIT: usize = 512;

/// What must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Durability {
    /// A killed process; a power failure may undo it, never what came before it.
    Process,
    /// A power failure: fsync before the answer.
    Power,
}

/// What a piece of work may do.
pub(crate) struct Write<'c> {
    connection: &'c Connection,
    now_milliseconds: i64,
    rung: &'c mut [bool; Bell::COUNT],
}

impl<'c> Write<'c> {
    /// A statement, prepared once per process.
    pub(crate) fn prepare(&self, sql: &str) -> Result<CachedStatement<'c>> {
        self.connection.prepare_cached(sql).map_err(sqlite("write"))
    }

    /// The connection, to read with.
    pub(crate) fn connection(&self) -> &'c Connection {
        self.connection
    }

    pub(crate) fn last_insert_rowid(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    pub(crate) fn now_milliseconds(&self) -> i64 {
        self.now_milliseconds
    }

    /// The time `by` from now; the end of time where that is beyond it.
    pub(crate) fn milliseconds_after(&self, by: Duration) -> i64 {
        self.now_milliseconds.saturating_add(milliseconds_of(by))
    }

    /// Rings `bell` once the group is committed.
    pub(crate) fn ring(&mut self, bell: Bell) {
        self.rung[bell as usize] = true;
    }
}

/// Work in the queue, its types forgotten.
pub(super) trait Pending: Send {
    fn durability(&self) -> Durability;
    fn run(&mut self, write: &mut Write<'_>) -> Result<(), ()>;
    fn answer(self: Box<Self>, committed: Option<&Error>);
}

/// Work, then its result, then who wants it.
pub(super) struct Task<T, F, R> {
    durability: Durability,
    work: Option<F>,
    result: Option<Result<T>>,
    reply: R,
}

impl<T, F, R> Task<T, F, R>
where
    T: Send + 'static,
    F: FnOnce(&mut Write<'_>) -> Result<T> + Send + 'static,
    R: FnOnce(Result<T>) + Send + 'static,
{
    pub(super) fn boxed(durability: Durability, work: F, reply: R) -> Box<dyn Pending> {
        Box::new(Self { durability, work: Some(work), result: None, reply })
    }
}

impl<T, F, R> Pending for Task<T, F, R>
where
    T: Send + 'static,
    F: FnOnce(&mut Write<'_>) -> Result<T> + Send + 'static,
    R: FnOnce(Result<T>) + Send + 'static,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn run(&mut self, write: &mut Write<'_>) -> Result<(), ()> {
        let Some(work) = self.work.take() else { return Err(()) };
        let result = work(write);
        let outcome = result.as_ref().map(drop).map_err(drop);
        self.result = Some(result);
        outcome
    }

    fn answer(self: Box<Self>, failed: Option<&Error>) {
        let result = match (failed, self.result) {
            (None, Some(result)) => result,
            // Its own error says more than the group's.
            (Some(_), Some(Err(error))) => Err(error),
            (Some(error), _) => Err(Error::new(error.kind(), error)),
            (None, None) => Err(Error::new(ErrorKind::Unavailable, "the write was not attempted")),
        };
        (self.reply)(result);
    }
}

/// The connection and the lock, before their thread takes them.
pub(super) struct Writer {
    connection: Connection,
    lock: File,
    lock_path: PathBuf,
    clock: Clock,
    synchronous: Option<Durability>,
    /// How many pieces of work still go into a group of their own.
    alone: usize,
}

impl Writer {
    pub(super) fn open(file: &Path, lock_path: &Path, max_size_bytes: Option<u64>, clock: Clock) -> Result<Self> {
        let lock =
            File::options().create(true).append(true).open(lock_path).map_err(|error| locked(lock_path, error))?;
        // Two processes that start at once must not both create the schema.
        lock.lock().map_err(|error| locked(lock_path, error))?;
        let connection = schema::open(file, max_size_bytes)?;
        lock.unlock().map_err(|error| locked(lock_path, error))?;
        Ok(Self { connection, lock, lock_path: lock_path.to_owned(), clock, synchronous: None, alone: 0 })
    }

    /// Serves until every handle is gone, and everything they queued is written.
    pub(super) fn run(mut self, queue: &Receiver<Box<dyn Pending>>, ringer: &Ringer) {
        while let Ok(first) = queue.recv() {
            // Work that arrives while we wait for our turn still joins the group.
            let locked = self.lock.lock().map_err(|error| locked(&self.lock_path, error));
            let others = if self.alone > 0 { 0 } else { GROUP_LIMIT - 1 };
            let mut group: Vec<_> = std::iter::once(first).chain(queue.try_iter().take(others)).collect();
            let mut rung = [false; Bell::COUNT];
            let committed = locked.and_then(|()| {
                let committed = self.commit(&mut group, &mut rung);
                self.lock.unlock().map_err(|error| self::locked(&self.lock_path, error))?;
                committed
            });
            match &committed {
                Ok(()) => {
                    self.alone = self.alone.saturating_sub(1);
                    ringer.ring(rung);
                }
                // What makes room must not fail for ever with what needs it.
                Err(error) if error.kind() == ErrorKind::Full => self.alone = GROUP_LIMIT,
                Err(_) => {}
            }
            for pending in group {
                pending.answer(committed.as_ref().err());
            }
        }
    }

    fn commit(&mut self, group: &mut [Box<dyn Pending>], rung: &mut [bool; Bell::COUNT]) -> Result<()> {
        self.set_synchronous(group.iter().map(|pending| pending.durability()).max())?;
        self.execute("BEGIN IMMEDIATE")?;
        let done = self.run_group(group, rung).and_then(|()| self.execute("COMMIT"));
        if done.is_err() && !self.connection.is_autocommit() {
            self.execute("ROLLBACK")?;
        }
        done
    }

    fn run_group(&self, group: &mut [Box<dyn Pending>], rung: &mut [bool; Bell::COUNT]) -> Result<()> {
        let now_milliseconds = self.clock.now_milliseconds();
        for pending in group {
            self.execute("SAVEPOINT work")?;
            let mut write = Write { connection: &self.connection, now_milliseconds, rung };
            if pending.run(&mut write).is_err() {
                // A full disk may make SQLite undo the whole transaction by itself: then nobody's work is done.
                if self.connection.is_autocommit() {
                    return Err(Error::new(ErrorKind::Full, "cannot write: no space left in the data folder"));
                }
                self.execute("ROLLBACK TO work")?;
            }
            self.execute("RELEASE work")?;
        }
        Ok(())
    }

    /// FULL makes every commit wait for the disk; NORMAL leaves it to a later one, never changing the order.
    fn set_synchronous(&mut self, durability: Option<Durability>) -> Result<()> {
        let durability = durability.unwrap_or(Durability::Power);
        if self.synchronous != Some(durability) {
            let mode = if durability == Durability::Power { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", mode).map_err(sqlite("write"))?;
            self.synchronous = Some(durability);
        }
        Ok(())
    }

    fn execute(&self, sql: &str) -> Result<()> {
        let mut statement = self.connection.prepare_cached(sql).map_err(sqlite("write"))?;
        statement.execute([]).map(drop).map_err(sqlite("write"))
    }
}

fn locked(path: &Path, error: std::io::Error) -> Error {
    Error::caused(ErrorKind::Unavailable, format_args!("lock file {}", path.display()), error)
}
