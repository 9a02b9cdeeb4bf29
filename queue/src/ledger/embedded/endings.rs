//! Who waits for which job to end: one look per bell for all of them, whatever their number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::rows;
use crate::store::{Bell, Store, sqlite};
use crate::{JobId, Result};

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
    }
}

impl Ending {
    /// Returns when the job has ended, or nobody follows the endings any more.
    pub(super) async fn wait(mut self) {
        // An error means that the sender is gone with its ledger; the caller looks at the record either way.
        drop((&mut self.heard).await);
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
        let watched: Vec<JobId> = lock(&waiting).keys().cloned().collect();
        if watched.is_empty() {
            // Nothing to miss: the next waiter looks at its record after it has registered.
            last = None;
        } else {
            match store.read(move |file| endings_since(file, last, &watched)).await {
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
/// been forgotten, those of `watched` that have ended.
fn endings_since(file: &Connection, last: Option<i64>, watched: &[JobId]) -> Result<(i64, Vec<JobId>)> {
    let reading = sqlite("follow the endings");
    let bound = |sql| file.prepare_cached(sql)?.query_row([], |row| row.get::<_, Option<i64>>(0));
    let oldest = bound("SELECT min(ending) FROM endings").map_err(&reading)?;
    let newest = bound("SELECT max(ending) FROM endings").map_err(&reading)?.unwrap_or(0);
    if let Some(last) = last.filter(|last| oldest.is_none_or(|oldest| oldest <= last + 1)) {
        let mut select = file.prepare_cached("SELECT id FROM endings WHERE ending > ?1").map_err(&reading)?;
        let ids = select.query_map([last], |row| row.get::<_, String>(0)).map_err(&reading)?;
        let ids: Vec<String> = ids.collect::<rusqlite::Result<_>>().map_err(&reading)?;
        return Ok((newest, ids.iter().filter_map(|id| id.parse().ok()).collect()));
    }
    let mut select = file.prepare_cached("SELECT state FROM jobs WHERE id = ?1").map_err(&reading)?;
    let mut ended = Vec::new();
    for id in watched {
        let mut rows = select.query([id.as_str()]).map_err(&reading)?;
        let state = match rows.next().map_err(&reading)? {
            Some(row) => Some(rows::state(row.get(0).map_err(&reading)?)?),
            None => None,
        };
        if state.is_none_or(|state| state.has_ended()) {
            ended.push(id.clone());
        }
    }
    Ok((newest, ended))
}

fn lock(waiting: &Mutex<Senders>) -> MutexGuard<'_, Senders> {
    // Every change of the map is a single call, so a panic cannot leave it half-changed.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
