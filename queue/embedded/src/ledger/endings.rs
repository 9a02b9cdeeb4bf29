//! Who waits for which job to end: one look per bell for all of them, whatever their number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::store::{Bell, Store, sqlite};
use queue::{JobId, Result};

type Senders = HashMap<JobId, Vec<oneshot::Sender<()>>>;

/// The waiters of this process.
pub(super) struct Endings {
    waiting: Arc<Mutex<Senders>>,
    following: JoinHandle<()>,
}

/// One waiter.
pub(super) struct Ending {
    id: JobId,
    heard: oneshot::Receiver<()>,
    waiting: Arc<Mutex<Senders>>,
}

impl Endings {
    /// Follows the endings that any process writes into the file.
    pub(super) fn watch(store: &Store) -> Self {
        let waiting = Arc::default();
        let following = tokio::spawn(follow(store.clone(), Arc::clone(&waiting)));
        Self { waiting, following }
    }

    /// Waits for job `id`, from now on.
    pub(super) fn of(&self, id: &JobId) -> Ending {
        let (sender, heard) = oneshot::channel();
        lock(&self.waiting).entry(id.clone()).or_default().push(sender);
        Ending { id: id.clone(), heard, waiting: Arc::clone(&self.waiting) }
    }
}

impl Drop for Endings {
    fn drop(&mut self) {
        self.following.abort();
        // Each waiter shares the map, so its sender would outlive us in there.
        lock(&self.waiting).clear();
    }
}

impl Ending {
    /// Returns when the job has ended; `false` if nobody follows the endings any more.
    pub(super) async fn wait(mut self) -> bool {
        // An error means that the sender is gone with its ledger.
        (&mut self.heard).await.is_ok()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.heard.close();
        let mut waiting = lock(&self.waiting);
        if let Some(senders) = waiting.get_mut(&self.id) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                waiting.remove(&self.id);
            }
        }
    }
}

async fn follow(store: Store, waiting: Arc<Mutex<Senders>>) {
    let mut ended = store.listen(Bell::Ended);
    let mut last = None;
    loop {
        if lock(&waiting).is_empty() {
            // Nothing to miss: the next waiter looks at its record after it has registered.
            last = None;
        } else {
            match look(&store, last, &waiting).await {
                Ok((newest, ids)) => {
                    last = Some(newest);
                    let mut waiting = lock(&waiting);
                    for sender in ids.iter().filter_map(|id| waiting.remove(id)).flatten() {
                        // Nobody listens any more: no one needs to know.
                        let _ = sender.send(());
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot follow the endings; looking again"),
            }
        }
        ended.rung().await;
    }
}

/// The newest ending, and the jobs that ended after `last`. Where that is not known, or so long ago that some may have
/// been forgotten, those waited for that have ended.
async fn look(store: &Store, last: Option<i64>, waiting: &Mutex<Senders>) -> Result<(i64, Vec<JobId>)> {
    if let Some(last) = last
        && let Some(found) = store.read(move |file| endings_since(file, last)).await?
    {
        return Ok(found);
    }
    let waited_for: Vec<JobId> = lock(waiting).keys().cloned().collect();
    store.read(move |file| ended_of(file, waited_for)).await
}

/// The newest ending, and the jobs that ended after `last`; `None` where some of them may have been forgotten.
fn endings_since(file: &Connection, last: i64) -> Result<Option<(i64, Vec<JobId>)>> {
    let reading = sqlite("follow the endings");
    let mut oldest = file.prepare_cached("SELECT min(ending) FROM endings").map_err(&reading)?;
    let oldest: Option<i64> = oldest.query_row([], |row| row.get(0)).map_err(&reading)?;
    if oldest.is_some_and(|oldest| oldest > last + 1) {
        return Ok(None);
    }
    let mut select = file.prepare_cached("SELECT id FROM endings WHERE ending > ?1").map_err(&reading)?;
    let ids = select.query_map([last], |row| row.get::<_, String>(0)).map_err(&reading)?;
    let ids: Vec<String> = ids.collect::<rusqlite::Result<_>>().map_err(&reading)?;
    Ok(Some((newest(file)?, ids.iter().filter_map(|id| id.parse().ok()).collect())))
}

/// The newest ending, and those of `ids` that have ended or are gone.
fn ended_of(file: &Connection, mut ids: Vec<JobId>) -> Result<(i64, Vec<JobId>)> {
    let reading = sqlite("follow the endings");
    let mut select = file.prepare_cached("SELECT finished_at IS NULL FROM jobs WHERE id = ?1").map_err(&reading)?;
    let mut open = Vec::with_capacity(ids.len());
    for id in &ids {
        let is_open = select.query_row([id.as_str()], |row| row.get(0)).optional().map_err(&reading)?;
        open.push(is_open.unwrap_or(false));
    }
    let mut open = open.into_iter();
    ids.retain(|_| !open.next().unwrap_or(false));
    Ok((newest(file)?, ids))
}

fn newest(file: &Connection) -> Result<i64> {
    let reading = sqlite("follow the endings");
    let mut newest = file.prepare_cached("SELECT max(ending) FROM endings").map_err(&reading)?;
    let newest: Option<i64> = newest.query_row([], |row| row.get(0)).map_err(&reading)?;
    Ok(newest.unwrap_or(0))
}

fn lock(waiting: &Mutex<Senders>) -> MutexGuard<'_, Senders> {
    // Every change of the map is a single call, so a panic cannot leave it half-changed.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
