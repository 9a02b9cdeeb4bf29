//! The thread that runs all writes of a process.

use std::path::Path;
use std::time::Duration;

use crossbeam_channel::Receiver;
use rusqlite::{CachedStatement, Connection};

use super::error::sqlite;
use super::lock::FileLock;
use super::notifier::{Change, Changes, Publisher};
use super::{StoreOptions, connection};
use queue::driver::milliseconds_of;
use queue::{Clock, Error, ErrorKind, Result};

/// The most writes of one transaction, so that no caller waits too long for its answer.
const GROUP_LIMIT: usize = 512;

/// The failures that a committed write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Durability {
    /// The process is killed. A power failure may undo the write, but only together with all later writes.
    Process,
    /// A power failure. The answer follows an fsync.
    Power,
}

/// The data file, as a write uses it.
pub(crate) struct Write<'c> {
    connection: &'c Connection,
    now_milliseconds: i64,
    dead_retention: Duration,
    changes: &'c mut Changes,
}

impl<'c> Write<'c> {
    /// A statement, prepared once per process.
    pub(crate) fn prepare(&self, sql: &str) -> Result<CachedStatement<'c>> {
        self.connection.prepare_cached(sql).map_err(sqlite("write"))
    }

    /// The connection, for reads.
    pub(crate) fn connection(&self) -> &'c Connection {
        self.connection
    }

    pub(crate) fn last_insert_rowid(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    pub(crate) fn now_milliseconds(&self) -> i64 {
        self.now_milliseconds
    }

    /// The time `by` from now, or the latest possible time if that is earlier.
    pub(crate) fn milliseconds_after(&self, by: Duration) -> i64 {
        self.now_milliseconds.saturating_add(milliseconds_of(by))
    }

    /// The least time for which dead and failed jobs are kept.
    pub(crate) fn dead_retention(&self) -> Duration {
        self.dead_retention
    }

    /// Notifies the subscribers of `change` once the group is committed.
    pub(crate) fn notify(&mut self, change: Change) {
        self.changes[change as usize] = true;
    }
}

/// A write in the queue, with a result of any type.
pub(super) trait QueuedWrite: Send {
    fn durability(&self) -> Durability;
    fn run(&mut self, write: &mut Write<'_>) -> Result<(), ()>;
    /// Sends the result, or the error of the group.
    fn answer(self: Box<Self>, group_error: Option<&Error>);
}

/// A write: its work, later its result, and the function that receives the result.
pub(super) struct WriteTask<T, F, R> {
    durability: Durability,
    work: Option<F>,
    result: Option<Result<T>>,
    reply: R,
}

impl<T, F, R> WriteTask<T, F, R>
where
    T: Send + 'static,
    F: FnOnce(&mut Write<'_>) -> Result<T> + Send + 'static,
    R: FnOnce(Result<T>) + Send + 'static,
{
    pub(super) fn boxed(durability: Durability, work: F, reply: R) -> Box<dyn QueuedWrite> {
        Box::new(Self { durability, work: Some(work), result: None, reply })
    }
}

impl<T, F, R> QueuedWrite for WriteTask<T, F, R>
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

    fn answer(self: Box<Self>, group_error: Option<&Error>) {
        let result = match (group_error, self.result) {
            (None, Some(result)) => result,
            // The write's own error is more exact than that of the group.
            (Some(_), Some(Err(error))) => Err(error),
            (Some(error), _) => Err(Error::new(error.kind(), error)),
            (None, None) => Err(Error::new(ErrorKind::Unavailable, "the write was not attempted")),
        };
        (self.reply)(result);
    }
}

/// The connection and the file lock of the thread.
pub(super) struct Writer {
    connection: Connection,
    lock: FileLock,
    clock: Clock,
    dead_retention: Duration,
    synchronous: Option<Durability>,
    /// The number of further groups that hold a single write.
    single_write_groups: usize,
}

impl Writer {
    pub(super) fn open(file: &Path, lock_path: &Path, options: &StoreOptions, clock: Clock) -> Result<Self> {
        let lock = FileLock::open(lock_path)?;
        // Two processes that start at the same time must not both create the tables.
        lock.acquire_patiently()?;
        let connection = connection::open_for_writing(file, options.max_size_bytes)?;
        lock.release()?;
        let dead_retention = options.dead_retention;
        Ok(Self { connection, lock, clock, dead_retention, synchronous: None, single_write_groups: 0 })
    }

    /// Runs until every handle is dropped and every queued write has run.
    pub(super) fn run(mut self, queue: &Receiver<Box<dyn QueuedWrite>>, publisher: &Publisher) {
        while let Ok(first) = queue.recv() {
            // Writes that arrive while this waits for the lock still join the group.
            let locked = self.lock.acquire();
            let others = if self.single_write_groups > 0 { 0 } else { GROUP_LIMIT - 1 };
            let mut group: Vec<_> = std::iter::once(first).chain(queue.try_iter().take(others)).collect();
            let mut changes = [false; Change::COUNT];
            let committed = locked.and_then(|()| {
                let committed = self.commit(&mut group, &mut changes);
                self.lock.release()?;
                committed
            });
            match &committed {
                Ok(()) => {
                    self.single_write_groups = self.single_write_groups.saturating_sub(1);
                    publisher.publish(changes);
                }
                // A write that frees space must not fail again and again with one that needs space.
                Err(error) if error.kind() == ErrorKind::Full => self.single_write_groups = GROUP_LIMIT,
                Err(_) => {}
            }
            for write in group {
                write.answer(committed.as_ref().err());
            }
        }
    }

    fn commit(&mut self, group: &mut [Box<dyn QueuedWrite>], changes: &mut Changes) -> Result<()> {
        self.set_synchronous(group.iter().map(|write| write.durability()).max())?;
        self.execute("BEGIN IMMEDIATE")?;
        let done = self.run_group(group, changes).and_then(|()| self.execute("COMMIT"));
        if done.is_err() && !self.connection.is_autocommit() {
            self.execute("ROLLBACK")?;
        }
        done
    }

    fn run_group(&self, group: &mut [Box<dyn QueuedWrite>], changes: &mut Changes) -> Result<()> {
        let now_milliseconds = self.clock.now_milliseconds();
        for queued in group {
            self.execute("SAVEPOINT work")?;
            let dead_retention = self.dead_retention;
            let mut write = Write { connection: &self.connection, now_milliseconds, dead_retention, changes };
            if queued.run(&mut write).is_err() {
                // On a full disk SQLite may undo the whole transaction by itself, and every write of the group is lost.
                if self.connection.is_autocommit() {
                    return Err(Error::new(ErrorKind::Full, "cannot write: no space left in the data folder"));
                }
                self.execute("ROLLBACK TO work")?;
            }
            self.execute("RELEASE work")?;
        }
        Ok(())
    }

    /// With FULL, a commit waits for the disk. With NORMAL, a later commit waits, and the order of commits is the same.
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
