//! Notices for the watchers of jobs. One read per notification of the store serves all watchers.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::store::{Change, Store, sqlite};
use queue::{JobId, Result};

type Watchers = HashMap<JobId, Vec<oneshot::Sender<()>>>;

/// Notifies the watchers of this process when their jobs have ended.
pub(super) struct EndedNotices {
    watchers: Arc<Mutex<Watchers>>,
    following: JoinHandle<()>,
}

/// A future notice that one job has ended.
pub(super) struct EndedNotice {
    id: JobId,
    received: oneshot::Receiver<()>,
    watchers: Arc<Mutex<Watchers>>,
}

impl EndedNotices {
    /// Follows the table `endings`, into which every process writes.
    pub(super) fn start(store: &Store) -> Self {
        let watchers = Arc::default();
        let following = tokio::spawn(follow(store.clone(), Arc::clone(&watchers)));
        Self { watchers, following }
    }

    /// The notice of job `id`, if it ends after this returns.
    pub(super) fn of(&self, id: &JobId) -> EndedNotice {
        let (sender, received) = oneshot::channel();
        self.watchers.lock().entry(id.clone()).or_default().push(sender);
        EndedNotice { id: id.clone(), received, watchers: Arc::clone(&self.watchers) }
    }
}

impl Drop for EndedNotices {
    fn drop(&mut self) {
        self.following.abort();
        // Every notice shares the map, so its senders would otherwise live as long as a notice.
        self.watchers.lock().clear();
    }
}

impl EndedNotice {
    /// Returns when the job has ended. `false`: the ledger was dropped before that.
    pub(super) async fn wait(mut self) -> bool {
        // An error means that the sender was dropped with its ledger.
        (&mut self.received).await.is_ok()
    }
}

impl Drop for EndedNotice {
    fn drop(&mut self) {
        self.received.close();
        let mut watchers = self.watchers.lock();
        if let Some(senders) = watchers.get_mut(&self.id) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                watchers.remove(&self.id);
            }
        }
    }
}

async fn follow(store: Store, watchers: Arc<Mutex<Watchers>>) {
    let mut ended = store.subscribe(Change::Ended);
    let mut last = None;
    loop {
        let has_watchers = !watchers.lock().is_empty();
        if has_watchers {
            match newly_ended(&store, last, &watchers).await {
                Ok((newest, ids)) => {
                    last = Some(newest);
                    let mut watchers = watchers.lock();
                    for sender in ids.iter().filter_map(|id| watchers.remove(id)).flatten() {
                        // A watcher that was dropped needs no notice.
                        let _ = sender.send(());
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot read the jobs that ended; reading them again"),
            }
        } else {
            // No watcher can miss a job: the next one reads its record after it has registered.
            last = None;
        }
        ended.changed().await;
    }
}

/// The number of the newest row in `endings`, and the jobs of the rows after `last`. If `last` is unknown, or if some
/// rows after it may have been deleted, returns the watched jobs that have ended.
async fn newly_ended(store: &Store, last: Option<i64>, watchers: &Mutex<Watchers>) -> Result<(i64, Vec<JobId>)> {
    if let Some(last) = last
        && let Some(found) = store.read(move |file| endings_since(file, last)).await?
    {
        return Ok(found);
    }
    let watched: Vec<JobId> = watchers.lock().keys().cloned().collect();
    store.read(move |file| ended_of(file, watched)).await
}

/// The number of the newest row, and the jobs of the rows after `last`. `None` where some of these may have been deleted.
fn endings_since(file: &Connection, last: i64) -> Result<Option<(i64, Vec<JobId>)>> {
    let reading = sqlite("read the jobs that ended");
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

/// The number of the newest row, and those of `ids` that have ended or are deleted.
fn ended_of(file: &Connection, mut ids: Vec<JobId>) -> Result<(i64, Vec<JobId>)> {
    let reading = sqlite("read the jobs that ended");
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
    let reading = sqlite("read the jobs that ended");
    let mut newest = file.prepare_cached("SELECT max(ending) FROM endings").map_err(&reading)?;
    let newest: Option<i64> = newest.query_row([], |row| row.get(0)).map_err(&reading)?;
    Ok(newest.unwrap_or(0))
}
