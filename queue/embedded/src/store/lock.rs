//! The lock that decides which process writes to the file next.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::spawn;
use queue::{Error, ErrorKind, Result};

/// Other processes hold the lock for milliseconds. After this time the log says that one holds it for longer.
const WARN_AFTER: Duration = Duration::from_secs(1);

/// After this further time the writes that wait fail, so that their callers need not wait for a process that is stopped.
const FAIL_AFTER: Duration = Duration::from_secs(4);

/// The file's lock. It is released when it is dropped, and by the kernel when the process dies.
///
/// The kernel wakes a thread that waits for the lock at once, but such a wait has no time limit. So a thread of its own
/// waits, and the writer waits for that thread.
pub(super) struct FileLock {
    file: Arc<File>,
    path: PathBuf,
    waiter: Arc<Mutex<Wait>>,
    requests: Sender<()>,
    acquired: Receiver<io::Result<()>>,
}

/// What the other thread does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Nothing: it may be asked to wait.
    Idle,
    /// It waits, and the writer waits for it.
    Wanted,
    /// It waits, and the writer has given up: it releases the lock at once.
    Abandoned,
}

impl FileLock {
    /// Opens the lock file at `path`. Creates it if it is missing.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path).map_err(|error| failed(path, error))?;
        let file = Arc::new(file);
        let waiter = Arc::new(Mutex::new(Wait::Idle));
        let (requests, inbox) = bounded(1);
        let (outbox, acquired) = bounded(1);
        let (of_thread, state) = (Arc::clone(&file), Arc::clone(&waiter));
        spawn("millrace-lock", move || wait_when_asked(&of_thread, &state, &inbox, &outbox))?;
        Ok(Self { file, path: path.to_owned(), waiter, requests, acquired })
    }

    /// Waits without a limit. For the start of a process, which cannot go on without the file.
    pub(super) fn acquire_patiently(&self) -> Result<()> {
        self.file.lock().map_err(|error| failed(&self.path, error))
    }

    /// Waits until this process holds the lock. Fails as `Unavailable` if that takes too long.
    pub(super) fn acquire(&self) -> Result<()> {
        let is_waiting = std::mem::replace(&mut *self.waiter.lock(), Wait::Wanted) != Wait::Idle;
        if !is_waiting {
            match self.file.try_lock() {
                Ok(()) => {
                    *self.waiter.lock() = Wait::Idle;
                    return Ok(());
                }
                Err(TryLockError::Error(error)) => {
                    *self.waiter.lock() = Wait::Idle;
                    return Err(failed(&self.path, error));
                }
                // The thread lives as long as this.
                Err(TryLockError::WouldBlock) => drop(self.requests.send(())),
            }
        }
        let path = self.path.display();
        let acquired = self.acquired.recv_timeout(WARN_AFTER).or_else(|_| {
            if !is_waiting {
                tracing::warn!(%path, "another process has held the lock of the data file for {WARN_AFTER:?}; is it stopped?");
            }
            self.acquired.recv_timeout(FAIL_AFTER)
        });
        if let Some(result) = acquired.ok().or_else(|| self.abandon()) {
            return result.map_err(|error| failed(&self.path, error));
        }
        let limit = WARN_AFTER + FAIL_AFTER;
        let why = format_args!("lock file {path}: another process has held the lock for more than {limit:?}");
        Err(Error::new(ErrorKind::Unavailable, why))
    }

    /// Waits no longer. Returns the result if it has just come.
    fn abandon(&self) -> Option<io::Result<()>> {
        let mut waiter = self.waiter.lock();
        let result = self.acquired.try_recv().ok();
        if result.is_none() {
            *waiter = Wait::Abandoned;
        }
        result
    }

    pub(super) fn release(&self) -> Result<()> {
        self.file.unlock().map_err(|error| failed(&self.path, error))
    }
}

fn wait_when_asked(file: &File, waiter: &Mutex<Wait>, requests: &Receiver<()>, acquired: &Sender<io::Result<()>>) {
    while requests.recv().is_ok() {
        let result = file.lock();
        let mut waiter = waiter.lock();
        if std::mem::replace(&mut *waiter, Wait::Idle) == Wait::Wanted {
            // If the writer has ended, it has dropped its file, and the process needs no lock.
            drop(acquired.try_send(result));
        } else if let Err(error) = file.unlock() {
            tracing::warn!(%error, "cannot release the lock of the data file");
        }
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::caused(ErrorKind::Unavailable, format_args!("lock file {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_another_holds_for_long_fails_and_is_not_kept_when_it_comes_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let (holder, other) = (FileLock::open(&path).unwrap(), FileLock::open(&path).unwrap());
        holder.acquire().unwrap();
        let error = other.acquire().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("another process has held the lock for more than 5s"), "{error}");
        holder.release().unwrap();
        // The thread of `other` may get it first, and releases it then.
        holder.acquire().unwrap();
        holder.release().unwrap();
        other.acquire().unwrap();
        other.release().unwrap();
        holder.acquire().unwrap();
        holder.release().unwrap();
    }

    #[test]
    fn a_lock_that_is_released_goes_to_the_process_that_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let (holder, other) = (FileLock::open(&path).unwrap(), FileLock::open(&path).unwrap());
        holder.acquire().unwrap();
        let (is_held, held) = bounded(0);
        let (end, ended) = bounded::<()>(0);
        let waiting = std::thread::spawn(move || {
            other.acquire().unwrap();
            is_held.send(()).unwrap();
            ended.recv().unwrap();
            other.release().unwrap();
        });
        assert!(held.recv_timeout(Duration::from_millis(50)).is_err());
        holder.release().unwrap();
        held.recv().unwrap();
        assert!(matches!(holder.file.try_lock(), Err(TryLockError::WouldBlock)));
        end.send(()).unwrap();
        holder.acquire().unwrap();
        waiting.join().unwrap();
    }
}
