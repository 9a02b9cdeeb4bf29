//! One SQLite file that several processes use at once, with group commit.
//!
//! One thread of a process runs all its writes. It takes the writes that have gathered, runs them in one transaction,
//! commits once and then answers all of them. So with more callers, one fsync covers more rows.
//!
//! A file lock decides which process writes next. The kernel wakes the next process (SQLite's own busy handler would poll),
//! and releases the lock when its process dies.

mod body;
mod connection;
mod error;
mod lock;
mod notifier;
mod risk;
mod schema;
#[cfg(test)]
mod tests;
mod usage;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rusqlite::Connection;
use tokio::sync::oneshot;

pub(crate) use body::{read_blob, read_body, read_origin};
pub(crate) use error::{corrupt, sqlite};
pub(crate) use notifier::{Change, Subscription};
pub(crate) use writer::{Durability, Write};

use error::unusable;
use notifier::Notifier;
use queue::{Clock, DEAD_RETENTION, Error, ErrorKind, Result, Risk, StoreId, Usage};
use writer::{QueuedWrite, WriteTask, Writer};

/// The number of threads that run reads. In WAL mode a read never waits for a write, and the queries are short.
const READERS: usize = 2;

/// The data file's name in its folder.
const FILE: &str = "millrace.db";

/// The name of the folder with the files of the [`Notifier`].
const NOTIFIER_FOLDER: &str = "bells";

type QueuedRead = Box<dyn FnOnce(&Connection) + Send>;

/// A handle on the file. Clones share its threads, which end with the last clone.
#[derive(Clone)]
pub(crate) struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    id: StoreId,
    file: PathBuf,
    max_size_bytes: Option<u64>,
    writes: Sender<Box<dyn QueuedWrite>>,
    reads: Sender<QueuedRead>,
    notifier: Notifier,
    clock: Clock,
    #[cfg(any(test, feature = "fixture"))]
    is_killed: std::sync::atomic::AtomicBool,
}

/// The folder of a store, its largest size, and how long it keeps dead jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// The folder, relative to the working folder unless absolute.
    pub folder: PathBuf,
    /// The most bytes of the data file. Above that, writes fail as [`ErrorKind::Full`].
    pub max_size_bytes: Option<u64>,
    /// The least time for which the ledger keeps the dead and failed jobs that this process ends.
    pub dead_retention: Duration,
}

impl StoreOptions {
    /// A file in `folder`, without a limit on its size. It keeps dead jobs for [`DEAD_RETENTION`].
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), max_size_bytes: None, dead_retention: DEAD_RETENTION }
    }
}

impl Store {
    /// Opens the file in `options.folder`. Creates the file and the folder if they are missing.
    pub(crate) fn open(options: &StoreOptions, clock: Clock) -> Result<Self> {
        let folder = &options.folder;
        std::fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
        let file = folder.join(FILE);
        let notifier = Notifier::open(&folder.join(NOTIFIER_FOLDER)).map_err(|error| unusable(folder, &error))?;
        let writer = Writer::open(&file, &folder.join("millrace.lock"), options, clock.clone())?;

        let (writes, queue) = unbounded();
        let publisher = notifier.publisher();
        spawn("millrace-writer", move || writer.run(&queue, &publisher))?;
        let (reads, queue) = unbounded();
        for _ in 0..READERS {
            let connection = connection::open_for_reading(&file)?;
            let queue = queue.clone();
            spawn("millrace-reader", move || serve_reads(&connection, &queue))?;
        }
        let shared = Shared {
            id: StoreId::unique(),
            file,
            max_size_bytes: options.max_size_bytes,
            writes,
            reads,
            notifier,
            clock,
            #[cfg(any(test, feature = "fixture"))]
            is_killed: Default::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The risks of a folder in which [`Store::open`] would create or convert the file. `None`: it would do neither.
    pub(crate) fn risks_before_use(folder: &Path) -> Result<Option<Vec<Risk>>> {
        risk::before_use(&folder.join(FILE))
    }

    pub(crate) fn id(&self) -> StoreId {
        self.shared.id
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Runs `work` in the next group, and returns when the group is committed.
    ///
    /// If `work` fails, only its own writes are undone; the other writes of the group stay. A full disk is an
    /// exception: it may undo the whole group. The next groups then hold a single write each.
    pub(crate) async fn write<T, F>(&self, durability: Durability, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Write<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.queue_write(WriteTask::boxed(durability, work, move |result| drop(reply.send(result))))?;
        answer.await.map_err(|_| self.stopped())?
    }

    /// Like [`Store::write`], but does not wait, for destructors. The writer's thread calls `answered`.
    pub(crate) fn write_later<F, A>(&self, durability: Durability, work: F, answered: A)
    where
        F: FnOnce(&mut Write<'_>) -> Result<()> + Send + 'static,
        A: FnOnce(Result<()>) + Send + 'static,
    {
        if let Err(error) = self.queue_write(WriteTask::boxed(durability, work, answered)) {
            tracing::debug!(%error, "a write in the background was not started");
        }
    }

    /// Runs `work` on a consistent snapshot of all committed writes.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let read: QueuedRead = Box::new(move |connection| {
            if !reply.is_closed() {
                drop(reply.send(in_snapshot(connection, work)));
            }
        });
        self.shared.reads.send(read).map_err(|_| self.stopped())?;
        answer.await.map_err(|_| self.stopped())?
    }

    /// The risks of the file, its folder and its disk: conditions that may lose or delay jobs.
    pub(crate) async fn risks(&self) -> Result<Vec<Risk>> {
        let (file, max_size_bytes) = (self.shared.file.clone(), self.shared.max_size_bytes);
        self.read(move |connection| risk::risks(connection, &file, max_size_bytes)).await
    }

    /// The room that the records in the file take.
    pub(crate) async fn usage(&self) -> Result<Option<Usage>> {
        let (file, max_size_bytes) = (self.shared.file.clone(), self.shared.max_size_bytes);
        self.read(move |connection| usage::usage(connection, &file, max_size_bytes)).await
    }

    /// Subscribes to changes of one kind by any process that uses the file.
    pub(crate) fn subscribe(&self, change: Change) -> Subscription {
        self.shared.notifier.subscribe(change)
    }

    /// Rejects all further writes, as if this process had been killed.
    #[cfg(any(test, feature = "fixture"))]
    pub(crate) fn simulate_kill(&self) {
        self.shared.is_killed.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn queue_write(&self, write: Box<dyn QueuedWrite>) -> Result<()> {
        #[cfg(any(test, feature = "fixture"))]
        if self.shared.is_killed.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(self.stopped());
        }
        self.shared.writes.send(write).map_err(|_| self.stopped())
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

fn serve_reads(connection: &Connection, queue: &Receiver<QueuedRead>) {
    for read in queue {
        read(connection);
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| Error::caused(ErrorKind::Unavailable, format_args!("cannot start {name}"), error))
}
