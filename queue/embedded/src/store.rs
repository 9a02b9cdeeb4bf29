//! One SQLite file that several processes use at once, with group commit.
//!
//! Every write of a process goes to one thread. It takes what has gathered, runs it in one transaction, commits once and
//! then answers all: the more callers, the more rows an fsync carries. Between processes a file lock decides whose turn
//! it is: the kernel wakes the next one (SQLite's own busy handler would poll) and lets go when a holder dies.

mod bell;
mod body;
mod error;
mod risk;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

pub(crate) use bell::{Bell, Listener};
pub(crate) use body::{read_blob, read_body, read_origin};
pub(crate) use error::{corrupt, sqlite};
pub(crate) use writer::{Durability, Write};

use bell::Bells;
use queue::{Clock, Error, ErrorKind, Result, Risk};
use writer::{Pending, Task, Writer};

/// How many threads answer reads. Reads never wait for writes in WAL mode, and the queries are short.
const READERS: usize = 2;

/// The data file's name in its folder.
const FILE: &str = "millrace.db";

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// A handle on the file; clones share its threads, which end with the last one.
#[derive(Clone)]
pub(crate) struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    file: PathBuf,
    max_size_bytes: Option<u64>,
    writes: Sender<Box<dyn Pending>>,
    reads: Sender<Read>,
    bells: Bells,
    clock: Clock,
    #[cfg(any(test, feature = "fixture"))]
    vanished: std::sync::atomic::AtomicBool,
}

/// Where a store lies and how large it may grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// The folder, relative to the working folder unless absolute.
    pub folder: PathBuf,
    /// The most bytes the data file may have; then writes fail as [`ErrorKind::Full`].
    pub max_size_bytes: Option<u64>,
}

impl StoreOptions {
    /// A file in `folder` that may grow without a limit of ours.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), max_size_bytes: None }
    }
}

impl Store {
    /// Opens the file in `options.folder`, making both if they are missing.
    pub(crate) fn open(options: &StoreOptions, clock: Clock) -> Result<Self> {
        let folder = &options.folder;
        std::fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
        let file = folder.join(FILE);
        let bells = Bells::open(&folder.join("bells")).map_err(|error| unusable(folder, &error))?;
        let writer = Writer::open(&file, &folder.join("millrace.lock"), options.max_size_bytes, clock.clone())?;

        let (writes, queue) = unbounded();
        let ringer = bells.ringer();
        spawn("millrace-writer", move || writer.run(&queue, &ringer))?;
        let (reads, queue) = unbounded();
        for _ in 0..READERS {
            let connection = open_reader(&file)?;
            let queue = queue.clone();
            spawn("millrace-reader", move || serve_reads(&connection, &queue))?;
        }
        let shared = Shared {
            file,
            max_size_bytes: options.max_size_bytes,
            writes,
            reads,
            bells,
            clock,
            #[cfg(any(test, feature = "fixture"))]
            vanished: Default::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The risks of a folder in which [`Store::open`] would make or convert the file; `None`: it would do neither.
    pub(crate) fn risks_before_use(folder: &Path) -> Result<Option<Vec<Risk>>> {
        risk::before_use(&folder.join(FILE))
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Runs `work` in the next group and returns when that is committed. When `work` fails, what it wrote is undone and
    /// the rest of its group is not affected (a full disk excepted: that may undo the group; then groups are of one).
    pub(crate) async fn write<T, F>(&self, durability: Durability, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Write<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.queue_write(Task::boxed(durability, work, move |result| drop(reply.send(result))))?;
        answer.await.map_err(|_| self.stopped())?
    }

    /// As [`Store::write`], without waiting: for destructors. `answered` is called by the writer's thread.
    pub(crate) fn write_later<F, A>(&self, durability: Durability, work: F, answered: A)
    where
        F: FnOnce(&mut Write<'_>) -> Result<()> + Send + 'static,
        A: FnOnce(Result<()>) + Send + 'static,
    {
        if let Err(error) = self.queue_write(Task::boxed(durability, work, answered)) {
            tracing::debug!(%error, "a write in the background was not begun");
        }
    }

    /// Runs `work` on a consistent snapshot of all that is committed.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            if !reply.is_closed() {
                drop(reply.send(in_snapshot(connection, work)));
            }
        });
        self.shared.reads.send(read).map_err(|_| self.stopped())?;
        answer.await.map_err(|_| self.stopped())?
    }

    /// What about the file and where it lies may lose or delay jobs.
    pub(crate) async fn risks(&self) -> Result<Vec<Risk>> {
        let (file, max_size_bytes) = (self.shared.file.clone(), self.shared.max_size_bytes);
        self.read(move |connection| risk::risks(connection, &file, max_size_bytes)).await
    }

    /// Hears when any process on this file rings `bell`.
    pub(crate) fn listen(&self, bell: Bell) -> Listener {
        self.shared.bells.listen(bell)
    }

    /// As if this process had been killed: nothing that it does from here on reaches the file.
    #[cfg(any(test, feature = "fixture"))]
    pub(crate) fn vanish(&self) {
        self.shared.vanished.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn queue_write(&self, pending: Box<dyn Pending>) -> Result<()> {
        #[cfg(any(test, feature = "fixture"))]
        if self.shared.vanished.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(self.stopped());
        }
        self.shared.writes.send(pending).map_err(|_| self.stopped())
    }

    fn stopped(&self) -> Error {
        Error::new(ErrorKind::Unavailable, format_args!("{}: its thread has stopped", self.shared.file.display()))
    }
}

fn in_snapshot<T>(connection: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    let snapshot = connection.unchecked_transaction().map_err(sqlite("read"))?;
    let value = work(&snapshot)?;
    snapshot.finish().map_err(sqlite("read"))?;
    Ok(value)
}

fn serve_reads(connection: &Connection, queue: &Receiver<Read>) {
    for read in queue {
        read(connection);
    }
}

fn open_reader(file: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(sqlite("open"))?;
    connection.pragma_update(None, "query_only", true).map_err(sqlite("open"))?;
    connection.busy_timeout(writer::BUSY_TIMEOUT).map_err(sqlite("open"))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| Error::caused(ErrorKind::Unavailable, format_args!("cannot start {name}"), error))
}

fn unusable(folder: &Path, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format_args!("data folder {}: {error}", folder.display()))
}
